"""Whether a profile holds for a run: as it is, after one trial, or not at all."""

from collections.abc import Iterator
from dataclasses import dataclass

from vramfit.errors import ProfileError
from vramfit.records import JobKey, Machine, Profile
from vramfit.units import format_size

# A driver of another version or system shows a few per cent less of the same card; the trial tells the rest.
_SAME_SIZE = 0.95
# Without these a plan means nothing; any other difference moves memory a little, which one trial settles.
_SAME_JOB = ("model", "image_size")
_MACHINE_KEYS = ("card", "driver", "torch", "allocator_settings")


@dataclass(frozen=True)
class Reuse:
    """What to do with a profile: `verify` asks for one trial of its micro-batch; `reasons` say why, in sentences."""

    verify: bool
    reasons: tuple[str, ...] = ()


def judge_reuse(profile: Profile, job: JobKey, machine: Machine, total_bytes: int | None) -> Reuse:
    """Judge a profile for a job on a machine.

    Args:
        profile: what is to be used.
        job: the run's own key.
        machine: where it is to run.
        total_bytes: the card's memory; None without a card, where a profile is taken as it is and said to be unproved.

    Raises:
        ProfileError: made for another model or shape, or for a larger card; names the key.

    """
    _refuse_other_job(profile, job)
    if total_bytes is None:
        return Reuse(verify=False, reasons=("There is no card here, so the profile is used unproved.",))
    _refuse_smaller_card(profile, total_bytes)
    reasons = tuple(_doubts(profile, job, machine))
    return Reuse(verify=bool(reasons), reasons=reasons)


def _refuse_other_job(profile: Profile, job: JobKey) -> None:
    for key in _SAME_JOB:
        theirs, ours = getattr(profile.job, key), getattr(job, key)
        if theirs != ours:
            raise ProfileError(
                f"the profile's job.{key} is {_worded(theirs)} and this run's is {_worded(ours)}; "
                "make one for this run with `probe --export`."
            )


def _refuse_smaller_card(profile: Profile, total_bytes: int) -> None:
    needed = profile.budget.budget_bytes
    if total_bytes < _SAME_SIZE * needed:
        raise ProfileError(
            f"the profile's budget.budget_bytes is {format_size(needed)} and this card has {format_size(total_bytes)}; "
            "make one for this card with `probe --export`."
        )


def _doubts(profile: Profile, job: JobKey, machine: Machine) -> Iterator[str]:
    if profile.source == "predicted":
        yield "The profile is predicted."
    for key in _MACHINE_KEYS:
        theirs, ours = getattr(profile.machine, key), getattr(machine, key)
        if theirs != ours and profile.source == "measured":
            yield f"machine.{key} was {_worded(theirs)} and is {_worded(ours)}."
    for key in JobKey.model_fields:
        theirs, ours = getattr(profile.job, key), getattr(job, key)
        is_older = key == "sample" and not theirs
        if theirs != ours and key != "name" and not is_older:
            yield f"job.{key} was {_worded(theirs)} and is {_worded(ours)}."


def _worded(value: object) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return "not set" if value in (None, "") else str(value)
