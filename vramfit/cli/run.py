"""`vramfit run`: a training script as it is, and what it takes of a card."""

import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from vramfit.cli.options import OUTPUT, AsJson, CardMemory, Mig
from vramfit.cli.results import next_step, require_free, tell, write_result
from vramfit.errors import OutOfMemory, UsageError
from vramfit.units import MemoryLimits, format_size

if TYPE_CHECKING:
    from vramfit.records import Trial
    from vramfit.script.answer import ScriptAnswer
    from vramfit.script.source import RunRequest

_BESIDE_WATCH = ("command", "watch", "config")


def run(
    context: typer.Context,
    command: Annotated[
        list[str], typer.Argument(help="The command, after a lone --: python train.py ...", metavar="-- COMMAND...")
    ],
    *,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="A card that need not be here, such as rtx3070ti: predicts. Without it the card here is measured.",
            metavar="CARD",
        ),
    ] = None,
    mig: Mig = None,
    memory: CardMemory = None,
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
        typer.Option(
            help="The script's option for accumulation steps, set by --effective-batch; found in the script by itself "
            "where it has a usual name.",
            metavar="OPTION",
        ),
    ] = None,
    levers: Annotated[
        str,
        typer.Option(
            help="Pulled from outside the script: auto for those that cost nothing and then, if it does not fit, "
            "recomputation (not with --find); or a list such as channels_last,recompute=block.",
            metavar="LIST",
        ),
    ] = "none",
    whole_run: Annotated[
        bool,
        typer.Option(
            "--whole-run",
            help="On the card here: run the script to its end and let it write what it writes, under the limit.",
        ),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Run the script to its end on what it runs on, and tell what grows from step to step, with its line.",
        ),
    ] = False,
    timeout: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Seconds that one run may take; 600, and no limit for a whole run."),
    ] = None,
    export: Annotated[
        Path | None, typer.Option("--export", *OUTPUT, help="Write the profile to this JSON file.", metavar="FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --export overwrite a file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a training script, unchanged, on a card that need not be here, and say what it takes.

    Predicted: the script believes in the card and ends after a few steps. On the card that is here it is measured,
    under a hard limit. Nothing that it would write is written, but in a whole run.
    """
    _check(find, maximum, effective_batch, accumulation)
    if watch:
        _refuse_beside_watch(context)
        _watch(command)
    if whole_run and (gpu or find):
        raise UsageError(f"--whole-run is of the card that is here; leave out {'--gpu' if gpu else '--find'}.")
    limits = MemoryLimits.parse(vram=vram, reserve=reserve)
    require_free(export, force=force)
    from vramfit.cards import card_name
    from vramfit.script.accumulation import accumulation_option
    from vramfit.script.command import parse_command
    from vramfit.script.levers import choices_of
    from vramfit.script.run import TIMEOUT_S
    from vramfit.script.source import RunRequest, answer_with, open_source

    asked = RunRequest(
        command=parse_command(command),
        limits=limits,
        gpu=card_name(gpu, mig=mig, memory=memory),
        steps=steps,
        option=find,
        timeout_s=timeout or (None if whole_run else TIMEOUT_S),
        whole_run=whole_run,
    )
    choices = choices_of(levers)
    if not find:
        _announce(asked)
        _report(answer_with(asked, choices, say_trial), export, as_json=as_json, whole_run=whole_run)
        return
    if effective_batch and not accumulation:
        accumulation = accumulation_option(asked.command)
        if accumulation is None:
            raise UsageError(
                f"'{asked.command.name}' shows no option for accumulation steps, which --effective-batch sets; "
                "name it, such as --accumulation gradient-accumulation-steps."
            )
    asked = replace(asked, command=replace(asked.command, levers=choices[0]))
    source = open_source(asked, partial(say_trial, option=find))
    _report(source.largest(maximum, effective_batch, accumulation), export, as_json=as_json)


def _refuse_beside_watch(context: typer.Context) -> None:
    """Refuse every option that was given beside --watch, which has no use for any."""
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        if source is not None and source.name != "DEFAULT" and param.name not in _BESIDE_WATCH:
            name = max(param.opts, key=len)
            raise UsageError(
                f"{name} is of a measured or predicted run, and --watch lets the script run; leave one out."
            )


def _watch(command: list[str]) -> NoReturn:
    from vramfit.script.command import parse_command
    from vramfit.script.watching import watch_whole_run

    raise typer.Exit(watch_whole_run(parse_command(command)))


def _announce(asked: "RunRequest") -> None:
    """Say whose lines come next, and that the figures in them are no results, where the script runs without a card."""
    from vramfit.probe.backend import card_here
    from vramfit.probe.request import ProbeRequest

    if card_here(ProbeRequest(gpu=asked.gpu)) is None:
        typer.echo("What the script prints, with values that are assumed (a loss is 1):", err=True)


def _check(find: str | None, maximum: int | None, effective_batch: int | None, accumulation: str | None) -> None:
    if find is None and (maximum or effective_batch):
        name = "--maximum" if maximum else "--effective-batch"
        raise UsageError(f"{name} is of the search; name the option to search with --find, such as --find batch-size.")
    if accumulation and effective_batch is None:
        raise UsageError("--accumulation names what --effective-batch sets; give both, such as --effective-batch 64.")


def say_trial(trial: "Trial", option: str | None = None) -> None:
    """Tell whoever waits at a terminal of one run of the script; of a search, with the value of its option."""
    if sys.stderr.isatty():
        said = trial.note or f"{format_size(trial.device_used_bytes)}, {trial.verdict}"
        typer.echo(f"{option or 'batch'} {trial.micro_batch}: {said}", err=True)


def _report(answer: "ScriptAnswer", export: Path | None, *, as_json: bool, whole_run: bool = False) -> None:
    written = [write_result(export, answer.profile.to_json(), "Profile")] if export is not None else []
    if as_json:
        typer.echo(answer.model_dump_json(indent=2, exclude={"peak": {"timeline"}}))
    else:
        from vramfit.report.script import show_script

        show_script(answer)
    tell(written, as_json=as_json)
    if not whole_run:
        next_step(_after(answer), as_json=as_json)
    if whole_run and answer.profile.trials[0].verdict == "oom":
        raise OutOfMemory(f"the script ran out of memory: {answer.profile.trials[0].note}.")


def _after(answer: "ScriptAnswer") -> str:
    """The command that trains as was found to fit, in one line to be copied; else how to make it fit."""
    from vramfit.jobs.levers.text import describe_levers

    profile = answer.profile
    planned = profile.trial(profile.plan.micro_batch)
    if planned is None or planned.verdict != "fits":
        return "the same with --levers auto, or with --find OPTION for the largest batch that fits"
    outside = (
        f"vramfit run --whole-run --levers {describe_levers(profile.plan.levers)} -- " if profile.plan.levers else ""
    )
    return f"{outside}{shlex.join(answer.command)}"
