"""`vramfit train`: check what fits, then train without running out of memory."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vramfit.cli.config import config_text
from vramfit.cli.from_options import read, takes
from vramfit.cli.options import AsJson
from vramfit.cli.progress import working
from vramfit.cli.results import next_step, print_json
from vramfit.cli.tasks import FLAG, LANDMARKS, TaskKind
from vramfit.errors import UsageError
from vramfit.landmarks.training.options import LandmarkOptions
from vramfit.training.run_options import RunOptions

if TYPE_CHECKING:
    from vramfit.training.listeners import RunSummary

_HELP = """{summary}

    An OOM on the way splits the batch into smaller micro-batches and goes on; the effective batch stays.
    """


def verb_of(kind: TaskKind) -> Callable[..., None]:
    """The verb that trains one task: the options of its record, and those of every run."""

    @takes(kind.options)
    def train(
        *,
        effective_batch: Annotated[
            int | None, typer.Option(min=1, metavar="N", help="The same as --batch-size, in the probe's words.")
        ] = None,
        mixed_precision: Annotated[
            bool | None, typer.Option("--mixed-precision/--no-mixed-precision", help="fp16 (the usual), or float32.")
        ] = None,
        amp: Annotated[
            Literal["fp16", "bf16", "off"] | None, typer.Option(help="Mixed precision by its type; fp16 if not given.")
        ] = None,
        task: Annotated[
            str,
            typer.Option(help="What to train: landmarks, or classify, which has options of its own.", metavar="NAME"),
        ] = kind.name,
        log_images: Annotated[
            int,
            typer.Option(
                min=0, metavar="N", help="Validation pictures drawn into the log after every epoch; 0 for none."
            ),
        ] = 4,
        grad_accum: Annotated[
            int,
            typer.Option(
                min=1,
                metavar="N",
                help="Batches of --batch-size that make one optimizer step, as other trainers count.",
            ),
        ] = 1,
        as_json: AsJson = False,
        **options: Any,
    ) -> None:
        assert task == kind.name, "`--task` chose this verb"
        given = read(kind.options, options)
        given["batch_size"] = _one_batch(given["batch_size"], effective_batch, grad_accum)
        chosen = kind.options(**given | {"amp": _amp(mixed_precision, amp)})
        if isinstance(chosen, LandmarkOptions):
            chosen = replace(chosen, mixed_precision=bool(mixed_precision))
        run = partial(_run, kind, log_images=log_images, as_json=as_json)
        if isinstance(chosen, LandmarkOptions) and chosen.folds is not None and chosen.fold is None:
            _run_folds(chosen, run, as_json=as_json)
            return
        summary = run(chosen)
        if as_json:
            print_json(summary.document())
        next_step(_after(chosen), as_json=as_json)

    train.__doc__ = _HELP.format(summary=kind.summary)
    return train


train = verb_of(LANDMARKS)


def _run(kind: TaskKind, options: RunOptions, *, log_images: int, as_json: bool) -> "RunSummary":
    with working("loading torch"):
        from vramfit.report.console import ConsoleListener
        from vramfit.report.tracking import TensorBoardListener
        from vramfit.training.run_file import RunFile

        train_task = kind.load()
    # A document is all that stdout gets.
    console = ConsoleListener(stderr=as_json)
    amp = getattr(options, "amp", None) or "off"
    more = {FLAG.removeprefix("--"): kind.name, "log-images": log_images, "amp": amp}
    try:
        listeners = [RunFile(options.save_dir, config_text(options, more)), console, TensorBoardListener(log_images)]
        return train_task(options, listeners)  # type: ignore[no-any-return]
    finally:
        console.close()


def _after(options: RunOptions) -> str:
    """The command that judges what was trained, or that shows its curves."""
    if isinstance(options, LandmarkOptions):
        best = options.save_dir / "checkpoint_best.pth"
        return f"vramfit evaluate {best} --dataset-path {options.dataset_path} --html report.html"
    return f"tensorboard --logdir {options.log_dir}"


def _run_folds(options: LandmarkOptions, run: "Callable[[LandmarkOptions], RunSummary]", *, as_json: bool) -> None:
    from vramfit.landmarks.report.folds import fold_lines
    from vramfit.landmarks.training.cross_validation import cross_validate

    report = cross_validate(options, run)
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    for line in fold_lines(report):
        typer.echo(line)


def _one_batch(batch_size: int | None, effective_batch: int | None, grad_accum: int) -> int | None:
    if grad_accum > 1:
        if batch_size is None or effective_batch is not None:
            raise UsageError("--grad-accum counts batches of --batch-size; give the two, or --effective-batch alone.")
        return batch_size * grad_accum
    if batch_size and effective_batch and batch_size != effective_batch:
        raise UsageError(
            f"--batch-size {batch_size} and --effective-batch {effective_batch} name the same thing; give one of them."
        )
    return effective_batch or batch_size


def _amp(mixed: bool | None, amp: Literal["fp16", "bf16", "off"] | None) -> Literal["fp16", "bf16"] | None:
    if (mixed and amp == "off") or (mixed is False and amp in ("fp16", "bf16")):
        raise UsageError(f"--amp {amp} and --{'' if mixed else 'no-'}mixed-precision contradict each other; give one.")
    if amp == "off" or mixed is False:
        return None
    return amp or "fp16"
