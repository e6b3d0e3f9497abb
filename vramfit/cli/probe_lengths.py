"""`vramfit probe --axis`: what fits where the size of samples varies."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vramfit.cli.probe_request import Case
from vramfit.cli.results import tell, write_result
from vramfit.errors import UsageError
from vramfit.units import format_size

if TYPE_CHECKING:
    from vramfit.jobs.job import Job
    from vramfit.plan.lengths import Length
    from vramfit.records import Trial

BATCH_AXIS = "batch"


def require_axis(axis: str, lengths: str | None, buckets: int | None, multiple: int | None) -> None:
    """Refuse options of lengths without an axis.

    Raises:
        UsageError: names the option, and what to give beside it.

    """
    if axis == BATCH_AXIS and lengths is not None:
        raise UsageError("--lengths says how long samples are along an axis; name it with --axis tokens or image-size.")
    if axis == BATCH_AXIS and multiple is not None:
        raise UsageError("--length-multiple rounds lengths along an axis; name it with --axis, or leave it out.")
    if lengths is None and buckets is not None:
        raise UsageError(
            "--buckets is at how many of the --lengths a batch is proven; give --lengths, or leave it out."
        )


def require_one_case(axis: str, html: Path | None, cases: list[Case], *, slurm: bool) -> None:
    """Refuse options that an axis has no answer for.

    Raises:
        UsageError: names the option, and what to do.

    """
    if axis != BATCH_AXIS and (html is not None or len(cases) > 1):
        raise UsageError("--axis answers for one card and one job, without --html; ask for each by itself.")
    if axis != BATCH_AXIS and slurm:
        raise UsageError("--slurm is of one plan, and --axis has one for each length; leave one of them out.")


def answer_axis(
    case: Case,
    axis: str,
    *,
    lengths: str | None,
    buckets: int,
    multiple: int | None,
    export: Path | None,
    as_json: bool,
) -> None:
    """Print, and export, what fits along an axis: a batch for each of several lengths, or the longest at one batch.

    Raises:
        UsageError: options that make no sense with an axis.

    """
    from vramfit.jobs.axis import AXES, axis_named

    axis, sizes = axis_named(axis), case.request.batch_sizes
    if case.request.choose_levers or case.request.effective_batch:
        raise UsageError("--axis tries the job as it is; name levers with --levers LIST, and no --effective-batch.")
    if lengths is None and (sizes is None or len(sizes) > 1):
        raise UsageError(f"--axis {axis} needs --lengths FILE or 16:512, or the one --batch-size that is to fit.")
    step = multiple or (32 if AXES[axis] == 2 else 1 if lengths else 8)
    if lengths is None:
        _longest(case, axis, step, export=export, as_json=as_json)
    else:
        _lengths(case, axis, (lengths, buckets, step), export=export, as_json=as_json)


def _lengths(case: Case, axis: str, asked: tuple[str, int, int], *, export: Path | None, as_json: bool) -> None:
    from vramfit.plan.lengths import read_lengths
    from vramfit.probe.lengths import LengthRequest, prove_lengths
    from vramfit.report.lengths import show_lengths

    text, buckets, multiple = asked
    lengths = LengthRequest(axis=axis, lengths=read_lengths(text), buckets=buckets, multiple=multiple)
    request = replace(case.request, batch_sizes=None)
    plan = prove_lengths(partial(_job_at, case, axis), lengths, request, _tell_of)
    written = [write_result(export, plan.to_json(), "Plan")] if export is not None else []
    if as_json:
        typer.echo(plan.to_json(), nl=False)
    else:
        show_lengths(plan, case.request.batch_sizes[0] if case.request.batch_sizes else None)
    tell(written, as_json=as_json)


def _longest(case: Case, axis: str, multiple: int, *, export: Path | None, as_json: bool) -> None:
    from vramfit.probe.longest import LongestSearch
    from vramfit.report.lengths import show_longest

    if export is not None:
        raise UsageError("--export writes the plan of several lengths; give --lengths, or leave it out.")
    batch = (case.request.batch_sizes or (1,))[0]
    request = replace(case.request, batch_sizes=None)
    search = LongestSearch(partial(_job_at, case, axis), axis, batch, request, multiple, _tell_of)
    found = search.run()
    if as_json:
        trials = [{"length": length, "trial": trial.model_dump(mode="json")} for length, trial in found]
        typer.echo(json.dumps({"axis": axis, "trials": trials}, indent=2))
    else:
        show_longest(axis, found, search.notes)


def _job_at(case: Case, axis: str, length: "Length") -> "Job":
    """The job with samples of one length; one by its name is made anew for an image size or a sequence length."""
    from vramfit.cli.options import HUB
    from vramfit.jobs.axis import at_length

    if axis == "image_size" and not case.is_factory:
        return replace(case, image_size=(length[0], length[-1])).job()
    if axis == "tokens" and case.model.startswith(HUB):
        return replace(case, hub=replace(case.hub, seq_len=length[0])).job()
    return at_length(case.job(), axis, length)


def _tell_of(length: "Length", trial: "Trial") -> None:
    """Tells a person at a terminal of each trial."""
    from vramfit.plan.lengths import name_of

    if sys.stderr.isatty():
        verdict = trial.verdict.value.replace("_", " ")
        used = format_size(trial.device_used_bytes)
        typer.echo(f"{trial.source} {name_of(length)}, batch {trial.micro_batch}: {used}, {verdict}", err=True)
