"""`vramfit run`: a training script as it is, and what it takes of a card."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vramfit.cli.options import OUTPUT, AsJson
from vramfit.cli.results import require_free, tell, write_result
from vramfit.errors import UsageError
from vramfit.units import MemoryLimits, format_size

if TYPE_CHECKING:
    from vramfit.records import Trial
    from vramfit.script.answer import ScriptAnswer, ScriptPredictor


def run(
    command: Annotated[
        list[str], typer.Argument(help="The command, after a lone --: python train.py ...", metavar="-- COMMAND...")
    ],
    *,
    gpu: Annotated[
        str | None,
        typer.Option(help="The card to believe in, such as rtx3070ti; without it the one here.", metavar="CARD"),
    ] = None,
    vram: Annotated[
        str | None, typer.Option(help="What the script may use, such as 8GB (8 x 2^30 bytes).", metavar="SIZE")
    ] = None,
    reserve: Annotated[
        str | None, typer.Option(help="What the desktop takes of the card, such as 600MB.", metavar="SIZE")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, metavar="N", help="Optimizer steps to see before it ends.")] = 3,
    find: Annotated[
        str | None,
        typer.Option(
            help="Search the largest value that fits of this option of the script, such as batch-size, or of any "
            "argument with {} in place of the value, such as data.batch={}.",
            metavar="OPTION",
        ),
    ] = None,
    maximum: Annotated[int | None, typer.Option(min=1, metavar="N", help="The largest value --find may try.")] = None,
    effective_batch: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Samples per optimizer step: --find divides them into micro-batches."),
    ] = None,
    accumulation: Annotated[
        str | None,
        typer.Option(help="The script's option for accumulation steps, set by --effective-batch.", metavar="OPTION"),
    ] = None,
    timeout: Annotated[int, typer.Option(min=1, metavar="N", help="Seconds that one run may take.")] = 600,
    export: Annotated[
        Path | None, typer.Option("--export", *OUTPUT, help="Write the profile to this JSON file.", metavar="FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --export overwrite a file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a training script, unchanged, on a card that need not be here, and say what it takes.

    Predicted: the script believes in the card and ends after a few steps; nothing that it would write is written.
    """
    _check(find, maximum, effective_batch, accumulation)
    limits = MemoryLimits.parse(vram=vram, reserve=reserve)
    require_free(export, force=force)
    predictor = _predictor(command, gpu, limits, steps=steps, find=find, timeout_s=timeout)
    answer = predictor.largest(maximum, effective_batch, accumulation) if find else predictor.answer()
    _report(answer, export, as_json=as_json)


def _check(find: str | None, maximum: int | None, effective_batch: int | None, accumulation: str | None) -> None:
    if find is None and (maximum or effective_batch):
        name = "--maximum" if maximum else "--effective-batch"
        raise UsageError(f"{name} is of the search; name the option to search with --find, such as --find batch-size.")
    if (effective_batch is None) != (accumulation is None):
        raise UsageError(
            "--effective-batch divides the batch by the script's own option; give both, such as "
            "--effective-batch 64 --accumulation gradient-accumulation-steps."
        )


def _predictor(
    words: list[str], gpu: str | None, limits: MemoryLimits, *, steps: int, find: str | None, timeout_s: float
) -> "ScriptPredictor":
    from vramfit.script.command import parse_command

    command = parse_command(words)
    from vramfit.cli.explain import card_for
    from vramfit.prediction.predict import card_budget
    from vramfit.script.answer import ScriptPredictor
    from vramfit.script.run import watch_script

    card = card_for(gpu)
    return ScriptPredictor(
        command,
        card,
        card_budget(card, limits),
        lambda asked: watch_script(asked, card.name, steps=steps, quiet=find is not None, timeout_s=timeout_s),
        option=find,
        on_trial=_say,
    )


def _say(trial: "Trial") -> None:
    if sys.stderr.isatty():
        typer.echo(f"batch {trial.micro_batch}: {format_size(trial.device_used_bytes)}, {trial.verdict}", err=True)


def _report(answer: "ScriptAnswer", export: Path | None, *, as_json: bool) -> None:
    written = [write_result(export, answer.profile.to_json(), "Profile")] if export is not None else []
    if as_json:
        typer.echo(answer.model_dump_json(indent=2, exclude={"peak": {"timeline"}}))
    else:
        from vramfit.report.script import show_script

        show_script(answer)
    tell(written, as_json=as_json)
