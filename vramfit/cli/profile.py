"""`vramfit profile`: list, show, compare, verify and copy profiles."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vramfit.cli.options import AsJson, OutputOption, one_path
from vramfit.cli.progress import working
from vramfit.cli.results import next_step, print_json, require_free, write_result
from vramfit.errors import UsageError

if TYPE_CHECKING:
    from vramfit.jobs.job import Job
    from vramfit.measure.device import Device
    from vramfit.records import Profile, Trial

app = typer.Typer(help="List, show, compare, verify and copy profiles.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="A shipped name such as rtx3070ti-768, or a profile's file.", metavar="NAME")]
First = Annotated[str, typer.Argument(help="One profile, by name or file.", metavar="FIRST")]
Second = Annotated[str, typer.Argument(help="The profile to compare it with.", metavar="SECOND")]

_UNPROVED = (
    "Checked: the profile is valid, and its model and image size are those of the job. "
    "Not checked: whether its batch fits, for there is no card here to try it on."
)
# What differs between any two profiles without meaning anything.
_INCIDENTAL = ("created",)


@app.command("list")
def list_profiles(*, as_json: AsJson = False) -> None:
    """List the profiles that vramfit ships."""
    import json

    from vramfit.report.table import profile_list
    from vramfit.report.terminal import show
    from vramfit.shipped import load_profile, shipped_profiles

    files = shipped_profiles()
    profiles = {name: load_profile(file) for name, file in files.items()}
    if as_json:
        typer.echo(json.dumps({"profiles": {name: str(file) for name, file in files.items()}}, indent=2))
    else:
        show(profile_list(profiles))
        next_step("vramfit profile show NAME; vramfit train --profile NAME --dataset-path FOLDER", as_json=as_json)


@app.command("show")
def show_one(name: Name, *, as_json: AsJson = False) -> None:
    """Show one profile: the job, the budget, the trials and the plan."""
    from vramfit.report.table import origin_sentence, show_profile
    from vramfit.report.terminal import say
    from vramfit.shipped import load_profile

    profile = load_profile(name)
    if as_json:
        typer.echo(profile.to_json(), nl=False)
        return
    show_profile(profile)
    say(origin_sentence(profile))
    next_step(f"vramfit profile verify {name} on the card itself", as_json=as_json)


@app.command("diff")
def diff(first: First, second: Second, *, as_json: AsJson = False) -> None:
    """Show in what two profiles differ: plan, job, machine, budget and the batches tried; --json has every key."""
    import json

    from vramfit.report.profile_difference import difference_table
    from vramfit.report.terminal import show
    from vramfit.shipped import load_profile

    profiles = load_profile(first), load_profile(second)
    changes = differences(*profiles)
    if as_json:
        typer.echo(json.dumps({"changes": changes}, indent=2))
        return
    if not changes:
        typer.echo("The two profiles are the same.")
        return
    table = difference_table((first, second), profiles)
    if table.row_count:
        show(table)
    else:
        typer.echo("The plans, jobs, machines, budgets and trials read the same; --json has every key that differs.")


@app.command("export")
def export(
    name: Name,
    file: Annotated[Path | None, typer.Argument(help="The JSON file to write.", metavar="FILE")] = None,
    *,
    output: OutputOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a copy of a profile, to be changed or carried to another machine."""
    from vramfit.shipped import load_profile

    target = one_path(file, output, "--output")
    profile = load_profile(name)
    require_free(target, force=force)
    written = write_result(target, profile.to_json(), "Profile")
    if as_json:
        print_json({"profile": name, "output": target})
    else:
        typer.echo(written)
    next_step(f"vramfit train --profile {target} --dataset-path FOLDER", as_json=as_json)


@app.command("verify")
def verify(
    name: Name,
    *,
    model: Annotated[
        str | None,
        typer.Option(help="module:function or file.py:function of a job that is not vramfit's own.", metavar="NAME"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a profile holds on this machine; where that is in doubt, one trial on the card decides.

    Exit 5 for another model or shape, a smaller card, or a batch that does not fit here. Without a card nothing is
    proved, and that is said.
    """
    from vramfit.errors import ProfileError
    from vramfit.records import Verdict
    from vramfit.report.table import trial_table
    from vramfit.report.terminal import show
    from vramfit.shipped import load_profile

    profile = load_profile(name)
    with working(f"verifying {name}"):
        reasons, trial = _judged(profile, model)
    refused = trial is not None and trial.verdict is not Verdict.FITS
    if not as_json:
        for reason in reasons:
            typer.echo(reason)
        if trial is not None:
            show(trial_table([trial], trial.micro_batch, profile.schedule))
    if refused:
        batch = profile.plan.micro_batch
        raise ProfileError(f"batch {batch} of '{name}' does not fit here; make one with `probe --export`.")
    holds = trial is not None or not reasons
    if as_json:
        tried = trial.model_dump(mode="json") if trial is not None else None
        print_json({"profile": name, "holds": holds or None, "reasons": reasons, "trial": tried})
    elif trial is not None:
        typer.echo(f"The profile holds: batch {trial.micro_batch} fits.")
    elif holds:
        typer.echo("The profile holds: it was made on this card, with this driver and this torch.")
    next_step(f"vramfit train --profile {name} --dataset-path FOLDER", as_json=as_json)


def _judged(profile: "Profile", model: str | None) -> "tuple[tuple[str, ...], Trial | None]":
    """The reasons to doubt a profile on this machine, and the trial that settled them if one was needed."""
    from vramfit.errors import NoUsableGpu
    from vramfit.jobs.job import job_key
    from vramfit.measure.device import local_device
    from vramfit.measure.machine import read_machine
    from vramfit.plan.reuse import judge_reuse

    job = _job_of(profile, model)
    try:
        device = local_device()
    except NoUsableGpu:
        judge_reuse(profile, job_key(job), read_machine(None), None)
        return (_UNPROVED,), None
    reuse = judge_reuse(profile, job_key(job), read_machine(device), device.total_bytes)
    return reuse.reasons, _tried(profile, job, device) if reuse.verify else None


def _tried(profile: "Profile", job: "Job", device: "Device") -> "Trial":
    from vramfit.measure.budget import read_budget
    from vramfit.measure.worker import measure_trial
    from vramfit.units import MemoryLimits

    budget = read_budget(device, MemoryLimits(vram_bytes=profile.budget.requested_bytes))
    micro_batch = profile.plan.micro_batch
    last_batch = None if profile.schedule.assumed else profile.schedule.images % micro_batch or None
    return measure_trial(job, micro_batch, budget, device_index=device.index, last_batch=last_batch)


def _job_of(profile: "Profile", model: str | None) -> "Job":
    """The job that a profile was made for, rebuilt from its key, or the one that the user names."""
    from dataclasses import replace

    from vramfit.cli.models import named_job

    key = profile.job
    if model is None and key.name not in ("landmark", "backbone"):
        raise UsageError(f"the profile is of a job of your own, '{key.name}'; name it with --model module:function.")
    name = model or (f"timm:{key.model}" if key.name == "backbone" else key.model)
    job = named_job(name, image_size=key.image_size, amp=key.amp or "off", channels_last=key.channels_last)
    return replace(job, levers=profile.plan.levers, cudnn_benchmark=key.cudnn_benchmark)


def differences(first: "Profile", second: "Profile") -> list[dict[str, Any]]:
    """The keys of two profiles whose values differ, in the order of the document; None where a key is missing."""
    one, two = (dict(_flat(profile.model_dump(mode="json"), "")) for profile in (first, second))
    keys = [key for key in dict.fromkeys([*one, *two]) if key not in _INCIDENTAL and one.get(key) != two.get(key)]
    return [{"key": key, "first": one.get(key), "second": two.get(key)} for key in keys]


def _flat(value: Any, key: str) -> list[tuple[str, Any]]:
    """Leaves of nested mappings and lists under dotted keys; a trial is named by its micro-batch."""
    if isinstance(value, dict):
        return [leaf for name, part in value.items() for leaf in _flat(part, f"{key}.{name}" if key else name)]
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        return [
            leaf for place, part in enumerate(value) for leaf in _flat(part, f"{key}[{part.get('micro_batch', place)}]")
        ]
    return [(key, value)]
