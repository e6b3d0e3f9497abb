"""Options that several verbs share, each spelled once: what one verb calls --decode means the same in every other."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vramfit.choices import FREE
from vramfit.cli.arguments import IMAGE_SIZE
from vramfit.errors import UsageError
from vramfit.landmarks.model.options import NetworkOptions
from vramfit.units import parse_image_size

ModelOrFactory = Annotated[
    str,
    typer.Option(
        help="hrnet, a timm HRNet's name, timm:NAME, hf:NAME or hf:FOLDER of a Hugging Face model, or module:function "
        "or file.py:function, which returns a Job.",
        metavar="NAME",
    ),
]
# None is not given: a model by its name then has these, and a Job of one's own keeps what it says itself.
DEFAULT_MODEL = NetworkOptions.model
DEFAULT_SIZE = NetworkOptions.image_size
DEFAULT_PRECISION = NetworkOptions.amp
DEFAULT_HUB_PRECISION: Literal["bf16"] = "bf16"
ImageSize = Annotated[
    str | None,
    typer.Option(*IMAGE_SIZE, help="Pixels: 768, or height and width as 512x640; 768 if not given.", metavar="SIZE"),
]
MixedPrecision = Annotated[
    Literal["fp16", "bf16", "off"] | None,
    typer.Option(
        help="Mixed precision of the step, off for float32; if not given fp16, for hf: bf16, or what a Job says itself."
    ),
]
SequenceLength = Annotated[
    int | None,
    typer.Option(
        "--seq-len",
        min=2,
        metavar="N",
        help="Tokens in each sample of an hf: model; its own, at most 1024, if not given.",
    ),
]
LoraSettings = Annotated[
    str | None,
    typer.Option(
        "--lora",
        metavar="LIST",
        help="Train adapters of an hf: model in place of its weights: r=16,alpha=32,targets=q_proj+v_proj, as peft "
        "names them.",
    ),
]
LoadWeights = Annotated[
    Literal["4bit", "8bit"] | None,
    typer.Option(
        "--load-in", help="Weights of an hf: model quantized by bitsandbytes, as QLoRA has them; with --lora."
    ),
]
Levers = Annotated[
    str | None,
    typer.Option(
        help="Settings that save memory: free (the usual) uses what costs no time, auto also what makes the batch fit, "
        "none nothing, or a list such as half_upsample,recompute=block.",
        metavar="free|auto|none|LIST",
    ),
]
ChannelsLast = Annotated[bool, typer.Option("--channels-last", help="NHWC memory order.")]

Checkpoint = Annotated[
    Path | None,
    typer.Argument(help="checkpoint_best.pth of `vramfit train`, or safetensors.", metavar="CHECKPOINT"),
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="The checkpoint, where it is not the first argument.", metavar="FILE"),
]
Mig = Annotated[
    str | None,
    typer.Option("--mig", help="An instance of the --gpu named, by its profile: 1g.10gb.", metavar="PROFILE"),
]
CardMemory = Annotated[
    str | None,
    typer.Option(
        "--memory", help="The --gpu named, modded: its memory in place of that it is sold with.", metavar="SIZE"
    ),
]
TIMM = "timm:"
HUB = "hf:"
OUTPUT = ("--output", "-o")
BATCH = ("--batch-size", "--batch")
OutputOption = Annotated[Path | None, typer.Option(*OUTPUT, help="The same as the argument.", metavar="PATH")]
Decode = Annotated[Literal["dark", "argmax", "soft"], typer.Option(help="How a point is found in its heatmap.")]
Views = Annotated[
    int,
    typer.Option("--tta", min=1, metavar="N", help="Test-time augmentation: the mean of N views, a little rotated."),
]
Ensemble = Annotated[
    list[Path] | None,
    typer.Option(
        "--ensemble",
        help="Another checkpoint, whose points are averaged with these; may be given again.",
        metavar="FILE",
    ),
]
DeviceToUse = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto is the GPU where there is one.")]
FilmsAtOnce = Annotated[
    int | None,
    typer.Option(
        *BATCH, min=1, metavar="N", help="Films at once; if not given, what the card is fastest with, and 4 on a CPU."
    ),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out films that cannot be used, and list them.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
FilmFormat = Annotated[
    str | None, typer.Option("--format", help="The film set's format, if it is not to be detected.", metavar="NAME")
]


def is_factory(model: str) -> bool:
    """Whether a model's name is that of a function of one's own, which returns a Job."""
    return ":" in model and not model.startswith((TIMM, HUB))


def is_landmark(model: str) -> bool:
    """Whether a model's name is that of a network of the landmark job."""
    return ":" not in model


def uses_free(levers: str | None, *, own: bool) -> bool:
    """Whether `Levers` asks for those that cost no time, as nothing does; a Job of one's `own` is taken as it is."""
    return levers == FREE or (levers is None and not own)


def read_size(text: str | None) -> tuple[int, int] | None:
    """The (height, width) that `ImageSize` was given; None where it was not."""
    return None if text is None else parse_image_size(text)


def one_path(argument: Path | None, option: Path | None, flag: str) -> Path:
    """What may be given as an argument or as an option, and must be given once.

    Raises:
        UsageError: neither, or two that differ.

    """
    if argument is not None and option is not None and argument != option:
        raise UsageError(f"'{argument}' and {flag} '{option}' name the same thing; give one of them.")
    given = argument or option
    if given is None:
        raise UsageError(f"{flag} is missing; give it, or the path alone as an argument.")
    return given
