"""`vramfit probe` of one job on one card: the table of its batches, and of levers where they are asked for."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vramfit.cli.options import TIMM
from vramfit.cli.probe_request import Case, keeping
from vramfit.cli.progress import working
from vramfit.cli.results import next_step, require_free, tell, write_result
from vramfit.cli.slurm import slurm_of_plans
from vramfit.errors import NothingFits

if TYPE_CHECKING:
    from vramfit.prediction.frontier import Frontier
    from vramfit.records import Profile, Schedule, Trial


def answer_one(case: Case, *, export: Path | None, html: Path | None, force: bool, slurm: bool, as_json: bool) -> None:
    """Print, and write where that is asked for, what a probe finds; of what does not fit, the trials before it."""
    require_free(export, html, force=force)
    trials: list[Trial] = []
    with working(f"probing {case.model}"):
        from vramfit.report.table import show_profile, trial_table
        from vramfit.report.terminal import show

        frontier = case.frontier()
    if frontier is not None and not as_json:
        _show_frontier(frontier, case.schedule())
    try:
        with working(f"probing {case.model}") as told:
            profile = case.answer(keeping(trials, told), frontier)
    except NothingFits:
        if trials and not as_json:
            show(trial_table(trials, None, case.request.schedule))
        raise
    written = [write_result(export, profile.to_json(), "Profile")] if export is not None else []
    written += [write_result(html, _page(profile, frontier), "Report")] if html is not None else []
    if as_json:
        typer.echo(_one_document(profile, frontier), nl=False)
    else:
        show_profile(profile)
    tell([*written, *(slurm_of_plans([(case, profile)]) if slurm else [])], as_json=as_json)
    next_step(_after(case, export), as_json=as_json)


def _after(case: Case, export: Path | None) -> str:
    """The command that goes on from a plan."""
    if case.is_factory:
        return f"vramfit explain --model {case.model} shows where the memory goes"
    task = f"--task classify --model {case.model} " if case.model.startswith(TIMM) else ""
    train = f"vramfit train {task}--dataset-path FOLDER --profile {export or 'plan.json'}"
    return train if export else f"the same with -o plan.json keeps the plan, then {train}"


def _page(profile: "Profile", frontier: "Frontier | None") -> str:
    from vramfit.report.probe_page import probe_page

    return probe_page(profile, frontier)


def _show_frontier(frontier: "Frontier", schedule: "Schedule") -> None:
    from vramfit.report.frontier import show_frontier

    show_frontier(frontier, schedule)


def _one_document(profile: "Profile", frontier: "Frontier | None") -> str:
    if frontier is None:
        return profile.to_json()
    both = {"frontier": frontier.model_dump(mode="json")["rows"], "profile": profile.model_dump(mode="json")}
    return json.dumps(both, indent=2) + "\n"
