"""What each setting of the allocator would have done on a recording: its requests again, with the refused one."""

from dataclasses import replace

from vramfit.postmortem.recording import Moment, Recording
from vramfit.prediction.allocator.settings import Settings
from vramfit.prediction.snapshots.compare import Outcome, what_if
from vramfit.prediction.snapshots.initial_state import Event
from vramfit.records import Bytes, Record
from vramfit.units import format_size

LEVERS = (
    "expandable_segments:True",
    "garbage_collection_threshold:0.8",
    "max_split_size_mb:128",
    "max_split_size_mb:512",
    "roundup_power2_divisions:4",
)
_RECORDED = "as recorded"


class LeverOutcome(Record):
    """The same requests under one setting: peak of what is reserved, and whether the refused one is served.

    `served` is None where nothing was refused.
    """

    setting: str
    peak_reserved_bytes: Bytes
    served: bool | None
    retries: int


def lever_outcomes(recording: Recording) -> list[LeverOutcome]:
    """As it was recorded, then each lever, up to the moment that is explained; nothing without recorded events.

    The limit of an OOM is what was reserved then and what the card had free.
    """
    if not recording.snapshot.events:
        return []
    moment = recording.moment
    events = recording.snapshot.events[: moment.position]
    limit = None
    if moment.reason == "oom" and moment.request_bytes is not None:
        limit = moment.reserved_bytes + (moment.device_free_bytes or 0)
        events = (*events, _refused(recording, moment.request_bytes))
    snapshot = replace(recording.snapshot, events=events)
    settings = [(_RECORDED, None), *((lever, Settings.parse(lever)) for lever in LEVERS)]
    return [_outcome(name, what_if(snapshot, setting, limit), moment) for name, setting in settings]


def lever_sentence(outcomes: list[LeverOutcome], moment: Moment, *, grows: bool) -> str | None:
    """Which setting would have been enough, or that none would; `grows` is whether tensors pile up besides."""
    if moment.reason != "oom" or not outcomes:
        return _saving_sentence(outcomes)
    enough = [one.setting for one in outcomes if one.served and one.setting != _RECORDED]
    holes = format_size(sum(moment.holes(small=False)) + sum(moment.holes(small=True)))
    if not enough:
        return f"No setting of the allocator would have been enough: {holes} lie in holes."
    first = "expandable segments" if enough[0].startswith("expandable") else f"`{enough[0]}`"
    soon = " for that request, until what piles up has filled them too" if grows else ""
    name = f"{first[0].upper()}{first[1:]}"
    return f"{name} would have been enough{soon}: {holes} lie in holes; set PYTORCH_ALLOC_CONF={enough[0]}."


def pages_are_enough(outcomes: list[LeverOutcome]) -> bool | None:
    """Whether expandable segments serve the request that was refused; None where nothing was, or none was replayed."""
    return next((one.served for one in outcomes if one.setting == LEVERS[0]), None)


def _saving_sentence(outcomes: list[LeverOutcome]) -> str | None:
    if len(outcomes) < 2:
        return None
    recorded, best = outcomes[0], min(outcomes[1:], key=lambda one: one.peak_reserved_bytes)
    saved = recorded.peak_reserved_bytes - best.peak_reserved_bytes
    if saved < 0.02 * recorded.peak_reserved_bytes:
        return "No setting of the allocator would have reserved much less."
    return f"`{best.setting}` would have reserved {format_size(saved)} less."


def _refused(recording: Recording, size_bytes: int) -> Event:
    stream = recording.snapshot.events[recording.moment.position].stream
    return Event("alloc", -1, size_bytes, stream)


def _outcome(name: str, outcome: Outcome, moment: Moment) -> LeverOutcome:
    return LeverOutcome(
        setting=name,
        peak_reserved_bytes=outcome.peak_reserved_bytes,
        served=outcome.out_of_memory_at is None if moment.reason == "oom" else None,
        retries=outcome.retries,
    )
