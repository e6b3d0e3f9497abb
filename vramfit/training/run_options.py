"""What can be chosen about a run, whatever it trains."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vramfit.choices import AUTO, EPOCHS, FREE, NONE
from vramfit.errors import UsageError
from vramfit.options import Options, option
from vramfit.units import MemoryLimits

if TYPE_CHECKING:
    from vramfit.records import Lever

DeviceChoice = Literal["auto", "cuda", "cpu"]


def _read_workers(words: str) -> int | None:
    if words == AUTO:
        return None
    if not words.isdecimal():
        raise UsageError(f"--num-workers {words} is neither auto nor a whole number; use one of them.")
    return int(words)


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """A training run on the engine: its length, its batch and memory, its files.

    The defaults are those of `vramfit train`. An application adds its own fields in a subclass.

    >>> import vramfit
    >>> vramfit.RunOptions(epochs=20, batch_size=32, vram="8GB").warmup_epochs
    10
    """

    batch_size: int | None = option(
        None,
        "Samples per optimizer step; split where they do not fit. Usually 6.",
        flags=("--batch-size", "--batch"),
        metavar="N",
        minimum=1,
        on_resume="silent",
    )
    auto_batch: bool = option(False, "Let the probe choose the batch; the learning rate stays.", on_resume="silent")
    fresh: bool = option(False, "Measure anew, whatever an earlier probe on this card found.", on_resume="silent")
    profile: str | None = option(None, "Train as a profile says: its name or file.", metavar="NAME", on_resume="silent")
    vram: str | None = option(None, "Memory limit for the job, such as 8GB.", metavar="SIZE", on_resume="silent")
    reserve: str | None = option(None, "Memory left to the desktop, such as 600MB.", metavar="SIZE", on_resume="silent")
    gpu: str | None = option(
        None, "Plan for this card by prediction, wherever the run is.", metavar="CARD", on_resume="silent"
    )
    levers: str = option(
        FREE,
        "Settings that save memory: free uses what costs no time, auto also what makes the batch fit, none nothing, "
        "or a list such as half_upsample,recompute=block.",
        metavar="free|auto|none|LIST",
        on_resume="silent",
    )
    watermark: float = option(
        0.95, "Warn once when this share of the budget was in use.", metavar="X", above=0, on_resume="silent"
    )
    epochs: int = option(EPOCHS, "Epochs of the whole run.", metavar="N", minimum=1)
    warmup_epochs: float = option(
        10, "Epochs of linear warm-up, by the step; then half a cosine.", metavar="N", minimum=0
    )
    emulated_bf16: bool = option(False, "Take bf16 on a card that has none, at float32's speed.", on_resume="silent")
    compile: bool = option(False, "Compile the network with torch.compile.")
    difficulty: float = option(
        0.0,
        "Weigh each validation figure, such as a landmark, by this power of its error; 0 for all alike.",
        metavar="X",
        minimum=0,
    )
    patience: int | None = option(None, "Stop after so many epochs without a better one.", metavar="N", minimum=1)
    device: DeviceChoice = option(
        "auto", "auto takes the GPU where there is one; 0 is the first of several.", on_resume="silent"
    )
    seed: int = option(0, "Random seed of weights, order and augmentation.", metavar="N", minimum=0)
    num_workers: int | None = option(
        None,
        "Processes that load data; auto measures how many the card needs.",
        flags=("--num-workers", "--workers"),
        metavar="auto|N",
        minimum=0,
        read=_read_workers,
        shown=AUTO,
        on_resume="silent",
    )
    pin_memory: bool | None = option(
        None,
        "Page-locked batches, or not; else where memory allows.",
        flags=("--pin-memory/--no-pin-memory",),
        on_resume="silent",
    )
    save_dir: Path = option(
        Path("checkpoints"),
        "Where checkpoints go.",
        flags=("--save-dir", "--output", "-o"),
        metavar="FOLDER",
        on_resume="silent",
    )
    log_dir: Path = option(Path("logs"), "Where TensorBoard logs go.", metavar="FOLDER", on_resume="silent")
    resume: str | None = option(
        None, "Go on from a checkpoint; alone, from the latest.", metavar="[FILE]", on_resume="silent"
    )
    save_every: int = option(10, "Epochs between periodic checkpoints.", metavar="N", minimum=1, on_resume="silent")
    keep: int = option(3, "How many periodic checkpoints stay.", metavar="N", minimum=1, on_resume="silent")
    save_every_steps: int | None = option(
        None, "Write the latest checkpoint every N steps, too.", metavar="N", minimum=1, on_resume="silent"
    )
    save_every_minutes: float = option(
        10.0, "Write it after so many minutes, too; 0 for never.", metavar="X", minimum=0, on_resume="silent"
    )
    grow_back: bool = option(
        False, "After an OOM, take larger micro-batches again once an epoch had none.", on_resume="silent"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.limits  # refuses what is no size before anything is loaded
        if self.auto_batch and self.profile:
            raise UsageError("--auto-batch and --profile each choose the batch; give one of them.")
        if self.profile and self.levers != FREE:
            raise UsageError("--profile has the levers that it was made with; leave --levers out.")
        refuse_communicating(self.named_levers)  # and what is no lever, as above
        if self.gpu and self.profile:
            raise UsageError("--gpu and --profile each name the card that is planned for; give one of them.")

    @property
    def limits(self) -> MemoryLimits:
        """`vram` and `reserve` in bytes."""
        return MemoryLimits.parse(vram=self.vram, reserve=self.reserve)

    @property
    def named_levers(self) -> "tuple[Lever, ...]":
        """The levers that `levers` names; none where it leaves the choice to vramfit."""
        if self.levers in (FREE, AUTO, NONE):
            return ()
        from vramfit.jobs.levers.text import parse_levers

        return parse_levers(self.levers)


def refuse_communicating(levers: "Iterable[Lever]") -> None:
    """Refuse levers with which a rank that is out of memory would leave the others waiting.

    Raises:
        UsageError: names the lever, and what predicts or trains in its place.

    """
    from vramfit.jobs.levers.apply import communicating

    for name in communicating(levers):
        raise UsageError(
            f"{name} is predicted for a loop of your own (`vramfit probe --cards N --levers {name}`); this trainer "
            "keeps whole weights on every card and averages gradients itself, after the backward pass: under torchrun "
            f"leave {name} out."
        )
