"""`vramfit probe` of several image sizes, or of several cards by name: one table, a row for each."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vramfit.cli.probe_request import Case, keeping
from vramfit.cli.progress import working
from vramfit.cli.results import next_step, require_free, tell, write_result
from vramfit.cli.slurm import slurm_of_plans
from vramfit.errors import NothingFits, UsageError

if TYPE_CHECKING:
    from vramfit.records import Profile


def compare_cases(
    cases: list[Case], *, label: str, export: Path | None, html: Path | None, force: bool, slurm: bool, as_json: bool
) -> None:
    """Print how the cases compare, and write the profile of each into the folder of `export`.

    Raises:
        UsageError: `export` is one file.
        NothingFits: nothing fits for any case.

    """
    if export is not None and export.suffix == ".json":
        raise UsageError(f"--export {export} is one file, and there are {len(cases)} profiles; name a folder.")
    files = {case.label: export / f"{case.label}.json" for case in cases} if export is not None else {}
    require_free(*files.values(), html, force=force)
    with working(f"probing {label}") as told:
        from vramfit.report.plans import plan_sentences, shared_remarks
        from vramfit.report.table import plan_table
        from vramfit.report.terminal import say, show

        results = [(case, _or_nothing(case, told)) for case in cases]
    found = [(case.label, profile) for case, profile in results if profile is not None]
    written = [write_result(files[name], profile.to_json(), "Profile") for name, profile in found if files]
    if html is not None and found:
        written.append(write_result(html, _cases_page(label, results), "Report"))
    if not as_json:
        show(plan_table(label, [(case.label, profile) for case, profile in results]))
    if not found:
        raise NothingFits(f"no batch fits for any {label} asked; probe one alone to see by how much it fails.")
    if as_json:
        typer.echo(_document(label, results))
    else:
        say("", *plan_sentences(found), *shared_remarks(found))
    planned = [(case, profile) for case, profile in results if profile is not None]
    tell([*written, *(slurm_of_plans(planned) if slurm else [])], as_json=as_json)
    next_step(f"probe one {label} alone for every batch, and with -o plan.json to keep its plan", as_json=as_json)


def _cases_page(label: str, results: "list[tuple[Case, Profile | None]]") -> str:
    from vramfit.report.probe_page import cases_page

    return cases_page(label, [(case.label, profile) for case, profile in results])


def _or_nothing(case: Case, told: Callable[[str], None]) -> "Profile | None":
    told(case.label)
    try:
        return case.answer(keeping([], lambda word: told(f"{case.label}, {word}")))
    except NothingFits as error:
        if sys.stderr.isatty():
            typer.echo(f"{case.label}: {error}", err=True)
        return None


def _document(label: str, results: "list[tuple[Case, Profile | None]]") -> str:
    cases = [
        {label: case.label, "profile": None if profile is None else profile.model_dump(mode="json")}
        for case, profile in results
    ]
    return json.dumps({"cases": cases}, indent=2)
