"""`vramfit train`: check what fits, then train without running out of memory."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vramfit.cli.options import FilmFormat
from vramfit.errors import UsageError

if TYPE_CHECKING:
    from vramfit.landmarks.training.options import TrainOptions
    from vramfit.training.listeners import RunSummary

Size = tuple[int, int]
AUTO = "auto"


def train(
    *,
    dataset_path: Annotated[Path, typer.Option(help="A film set: a folder or file; docs/formats.md.", metavar="PATH")],
    film_format: FilmFormat = None,
    model: Annotated[str, typer.Option(help="hrnet or a timm HRNet's name.", metavar="NAME")] = "hrnet",
    image_size: Annotated[Size, typer.Option(help="Height and width in pixels.", metavar="H W")] = (768, 768),
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Samples per optimizer step; split where they do not fit. Usually 6."),
    ] = None,
    effective_batch: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The same as --batch-size, in the probe's words.")
    ] = None,
    auto_batch: Annotated[
        bool, typer.Option("--auto-batch", help="Let the probe choose the batch; the learning rate stays.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure anew, whatever an earlier probe on this card found.")
    ] = False,
    profile: Annotated[
        str | None, typer.Option(help="Train as a profile says: its name or file.", metavar="NAME")
    ] = None,
    vram: Annotated[str | None, typer.Option(help="What the job may use, such as 8GB.", metavar="SIZE")] = None,
    reserve: Annotated[str | None, typer.Option(help="What the desktop takes, such as 600MB.", metavar="SIZE")] = None,
    gpu: Annotated[
        str | None, typer.Option(help="Plan for this card by prediction, wherever the run is.", metavar="CARD")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Epochs of the whole run.")] = 200,
    lr: Annotated[float, typer.Option(metavar="RATE", help="Highest learning rate.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(min=0, metavar="X", help="AdamW's weight decay.")] = 1e-4,
    warmup_epochs: Annotated[
        float, typer.Option(min=0, metavar="N", help="Epochs of linear warm-up, by the step; then half a cosine.")
    ] = 10,
    loss: Annotated[Literal["adaptive_wing"], typer.Option(help="The loss of the heatmaps.")] = "adaptive_wing",
    mixed_precision: Annotated[
        bool | None, typer.Option("--mixed-precision/--no-mixed-precision", help="fp16 (the usual), or float32.")
    ] = None,
    amp: Annotated[
        Literal["fp16", "bf16", "off"] | None, typer.Option(help="Mixed precision by its type; fp16 if not given.")
    ] = None,
    emulated_bf16: Annotated[
        bool, typer.Option("--emulated-bf16", help="Take bf16 on a card that has none, at float32's speed.")
    ] = False,
    heatmap_stride: Annotated[int, typer.Option(metavar="1|2|4", help="Image pixels to a heatmap pixel.")] = 4,
    sigma: Annotated[
        float | None, typer.Option(metavar="X", help="Standard deviation of the heatmaps' Gaussians, in their pixels.")
    ] = None,
    weights: Annotated[str, typer.Option(metavar="auto|imagenet|none|FILE", help="Weights to start from.")] = "auto",
    freeze: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Stages that do not learn: stem,stage1,stage2,stage3,stage4 or backbone."),
    ] = None,
    backbone_lr_scale: Annotated[
        float, typer.Option(metavar="X", help="The backbone's learning rate as a share of the head's.")
    ] = 1.0,
    clip_norm: Annotated[float | None, typer.Option(metavar="X", help="Largest norm of the gradient.")] = None,
    ema_decay: Annotated[
        float | None, typer.Option(metavar="X", help="Decay of averaged weights, which are then judged and kept.")
    ] = None,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="NHWC memory order.")] = False,
    cudnn_benchmark: Annotated[bool, typer.Option("--cudnn-benchmark", help="Let cuDNN time its algorithms.")] = False,
    compile_model: Annotated[bool, typer.Option("--compile", help="Compile the network with torch.compile.")] = False,
    annotator: Annotated[Literal["mean", "senior", "junior"], typer.Option(help="Whose points to learn.")] = "mean",
    augmentation: Annotated[
        Literal["none", "light", "standard", "strong", "elastic"], typer.Option(help="How far films are changed.")
    ] = "standard",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out films that cannot be used, and list them.")
    ] = False,
    difficulty: Annotated[
        float,
        typer.Option(min=0, metavar="X", help="Weigh landmarks by this power of their running error; 0 for all alike."),
    ] = 0.0,
    patience: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after so many epochs without a better MRE.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=2, metavar="K", help="Deal the films of train and valid to K folds; without --fold runs all."),
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=1, metavar="I", help="Validate on this fold, train on the others.")
    ] = None,
    device: Annotated[
        Literal["auto", "cuda", "cpu"], typer.Option(help="auto takes the GPU where there is one.")
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of weights, order and augmentation.")] = 0,
    num_workers: Annotated[
        str, typer.Option(metavar="auto|N", help="Processes that load data; auto measures how many the card needs.")
    ] = AUTO,
    pin_memory: Annotated[
        bool | None,
        typer.Option("--pin-memory/--no-pin-memory", help="Page-locked batches, or not; else where memory allows."),
    ] = None,
    save_dir: Annotated[Path, typer.Option(help="Where checkpoints go.", metavar="FOLDER")] = Path("checkpoints"),
    log_dir: Annotated[Path, typer.Option(help="Where TensorBoard logs go.", metavar="FOLDER")] = Path("logs"),
    log_images: Annotated[
        int, typer.Option(min=0, metavar="N", help="Validation films drawn into the log after every epoch; 0 for none.")
    ] = 4,
    cache_dir: Annotated[Path | None, typer.Option(help="Where decoded films are kept.", metavar="FOLDER")] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on from a checkpoint; alone, from the latest.", metavar="[FILE]")
    ] = None,
    save_every: Annotated[int, typer.Option(min=1, metavar="N", help="Epochs between periodic checkpoints.")] = 10,
    keep: Annotated[int, typer.Option(min=1, metavar="N", help="How many periodic checkpoints stay.")] = 3,
    save_every_steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Write the latest checkpoint every N steps, too.")
    ] = None,
    save_every_minutes: Annotated[
        float, typer.Option(min=0, metavar="X", help="Write it after so many minutes, too; 0 for never.")
    ] = 10.0,
    grow_back: Annotated[
        bool, typer.Option("--grow-back", help="After an OOM, take larger micro-batches again once an epoch had none.")
    ] = False,
) -> None:
    """Train a landmark network on a film set, after checking what fits the card.

    An OOM on the way splits the batch into smaller micro-batches and goes on; the effective batch stays.
    """
    from vramfit.landmarks.training.options import TrainOptions

    options = TrainOptions(
        dataset_path=dataset_path,
        film_format=film_format,
        model=model,
        image_size=image_size,
        batch_size=_one_batch(batch_size, effective_batch),
        epochs=epochs,
        learning_rate=lr,
        weight_decay=weight_decay,
        warmup_epochs=warmup_epochs,
        loss=loss,
        amp=_amp(mixed_precision, amp),
        emulated_bf16=emulated_bf16,
        heatmap_stride=heatmap_stride,
        sigma=sigma,
        weights=weights,
        freeze=_stages(freeze),
        backbone_lr_scale=backbone_lr_scale,
        clip_norm=clip_norm,
        ema_decay=ema_decay,
        channels_last=channels_last,
        cudnn_benchmark=cudnn_benchmark,
        compile=compile_model,
        annotator=annotator,
        skip_bad=skip_bad,
        augmentation=augmentation,
        auto_batch=auto_batch,
        fresh=fresh,
        profile=profile,
        vram=vram,
        reserve=reserve,
        gpu=gpu,
        difficulty=difficulty,
        patience=patience,
        folds=folds,
        fold=fold,
        device=device,
        seed=seed,
        num_workers=_workers(num_workers),
        pin_memory=pin_memory,
        save_dir=save_dir,
        log_dir=log_dir,
        cache_dir=cache_dir,
        resume=resume,
        save_every=save_every,
        keep=keep,
        save_every_steps=save_every_steps,
        save_every_minutes=save_every_minutes,
        grow_back=grow_back,
    )
    if folds is not None and fold is None:
        _run_folds(options, log_images)
    else:
        _run(options, log_images)


def _run(options: "TrainOptions", log_images: int) -> "RunSummary":
    from vramfit.report.console import ConsoleListener
    from vramfit.report.tracking import TensorBoardListener
    from vramfit.training.trainer import train

    console = ConsoleListener()
    try:
        return train(options, [console, TensorBoardListener(log_images)])
    finally:
        console.close()


def _run_folds(options: "TrainOptions", log_images: int) -> None:
    from vramfit.landmarks.report.folds import fold_lines
    from vramfit.landmarks.training.cross_validation import cross_validate

    for line in fold_lines(cross_validate(options, partial(_run, log_images=log_images))):
        typer.echo(line)


def _stages(words: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in words.split(",")) if words else ()


def _one_batch(batch_size: int | None, effective_batch: int | None) -> int | None:
    if batch_size and effective_batch and batch_size != effective_batch:
        raise UsageError(
            f"--batch-size {batch_size} and --effective-batch {effective_batch} name the same thing; give one of them."
        )
    return effective_batch or batch_size


def _workers(words: str) -> int | None:
    if words == AUTO:
        return None
    if not words.isdecimal():
        raise UsageError(f"--num-workers {words} is neither auto nor a whole number; use one of them.")
    return int(words)


def _amp(mixed: bool | None, amp: Literal["fp16", "bf16", "off"] | None) -> Literal["fp16", "bf16"] | None:
    if (mixed and amp == "off") or (mixed is False and amp in ("fp16", "bf16")):
        raise UsageError(f"--amp {amp} and --{'' if mixed else 'no-'}mixed-precision contradict each other; give one.")
    if amp == "off" or mixed is False:
        return None
    return amp or "fp16"
