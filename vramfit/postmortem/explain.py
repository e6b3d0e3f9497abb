"""Why memory ran out, or what held it at its peak, of one device of a PyTorch memory snapshot. Sizes in bytes.

The parts by kind, the allocator's rounding, what waits for another stream and what is free sum to what was reserved.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from vramfit.errors import DataError
from vramfit.postmortem.case import Case, Finding
from vramfit.postmortem.course import Course
from vramfit.postmortem.evaluations import evaluating_callers
from vramfit.postmortem.findings import find_causes
from vramfit.postmortem.kinds import KINDS, MemoryKind, kinds_of
from vramfit.postmortem.levers import LeverOutcome, lever_outcomes, lever_sentence, pages_are_enough
from vramfit.postmortem.lives import Life, lives_of, piles_of
from vramfit.postmortem.names import Names
from vramfit.postmortem.outside import Outside, outside_of
from vramfit.postmortem.picture import Picture, draw
from vramfit.postmortem.recording import Held, Moment, Recording, read_devices
from vramfit.postmortem.stacks import Line
from vramfit.prediction.snapshots.snapshot import load_plain, refusing_what_is_no_snapshot
from vramfit.records import Bytes, Record
from vramfit.units import format_size

NOTED = "vramfit"  # what our own report at an OOM adds to a snapshot


class KindPart(Record):
    """Blocks of one kind: the bytes that were asked for, how many blocks, and the first step that made one.

    `since_step` is 0 for what is older than the recording.
    """

    kind: MemoryKind
    size_bytes: Bytes
    blocks: int
    since_step: int


class LinePart(Record):
    """Blocks that one line of code made, of one kind."""

    module: str
    line: str
    kind: MemoryKind
    size_bytes: Bytes
    blocks: int
    since_step: int


class AllocatorPart(Record):
    """What the allocator held besides tensors: `rounding`, `waiting`, `holes` or `cached`."""

    name: Literal["rounding", "waiting", "holes", "cached"]
    size_bytes: Bytes


class Process(Record):
    """Another process on the card; its bytes are None where the driver does not tell."""

    name: str
    size_bytes: Bytes | None


class Postmortem(Record):
    """One device at one moment; `sentence` is the likeliest cause.

    `reason` is what makes the moment: a refused request, the peak, or the end of a snapshot without a history;
    `position` is how many recorded events came before it.
    `total_bytes`, `context_bytes` and `others_bytes` are None where not known.
    """

    device: int
    reason: Literal["oom", "peak", "end"]
    position: int
    step: int
    sentence: str
    findings: tuple[Finding, ...]
    lever_sentence: str | None
    request_bytes: Bytes | None
    device_free_bytes: Bytes | None
    allocated_bytes: Bytes
    reserved_bytes: Bytes
    largest_free_bytes: Bytes
    total_bytes: Bytes | None
    context_bytes: Bytes | None
    others_bytes: Bytes | None
    processes: tuple[Process, ...]
    kinds: tuple[KindPart, ...]
    lines: tuple[LinePart, ...]
    allocator: tuple[AllocatorPart, ...]
    levers: tuple[LeverOutcome, ...]
    notes: tuple[str, ...]
    picture: Picture


def explain_snapshot(path: str | Path, *, total_bytes: int | None = None, names: bool = True) -> list[Postmortem]:
    """Every device of a snapshot file, the one that ran out or is fullest first.

    Args:
        path: what `torch.cuda.memory._dump_snapshot` wrote; read as plain data, nothing in it is run.
        total_bytes: the card's whole memory, where it is known; a snapshot does not say.
        names: whether files, functions, modules and processes are named; else they are numbered.

    Raises:
        DataError: no such file, or no snapshot.

    """
    data = load_plain(path)
    with refusing_what_is_no_snapshot(path):
        found = explain_containers(data, total_bytes=total_bytes, names=names)
    if not found:
        raise DataError(f"{path} holds no memory and no events; dump it while the job runs.")
    return found


def explain_containers(data: Any, *, total_bytes: int | None = None, names: bool = True) -> list[Postmortem]:
    """As `explain_snapshot`, of containers in hand; errors of wrong containers are Python's own."""
    noted = data.get(NOTED, {}) if isinstance(data, Mapping) else {}
    return [_explained(one, total_bytes, noted, Names(shown=names)) for one in read_devices(data)]


def _explained(recording: Recording, total_bytes: int | None, noted: Mapping[str, Any], names: Names) -> Postmortem:
    recording = names.of_recording(_with_noted_request(recording, noted))
    outcomes = lever_outcomes(recording)
    outside = names.of_outside(outside_of(recording.moment, total_bytes, noted))
    case = _case_of(recording, noted, outside, pages=pages_are_enough(outcomes))
    moment, course, kinds = case.moment, case.course, case.kinds
    findings = find_causes(case)
    return Postmortem(
        device=recording.snapshot.device,
        reason=moment.reason,
        position=moment.position,
        step=course.step_of(moment.position),
        sentence=findings[0].sentence if findings else "Nothing was allocated.",
        findings=tuple(findings),
        lever_sentence=lever_sentence(outcomes, moment, grows=bool(case.piles)),
        request_bytes=moment.request_bytes,
        device_free_bytes=moment.device_free_bytes,
        allocated_bytes=moment.allocated_bytes,
        reserved_bytes=moment.reserved_bytes,
        largest_free_bytes=max([*moment.holes(small=True), *moment.holes(small=False)], default=0),
        **_outside_figures(outside),
        kinds=_by_kind(moment.held, kinds, course),
        lines=_by_line(moment.held, kinds, course),
        allocator=_allocator_parts(moment),
        levers=tuple(outcomes),
        notes=recording.notes,
        picture=draw(recording, kinds),
    )


def _case_of(recording: Recording, noted: Mapping[str, Any], outside: Outside, *, pages: bool | None) -> Case:
    """What causes are found in: what is held at the moment and what it is, and how that came to be."""
    moment = recording.moment
    course, lives = Course.of(recording.origins[: moment.position]), lives_of(recording, moment.position)
    whole, all_lives = Course.of(recording.origins), lives_of(recording)
    owners = {} if recording.snapshot.events else {address: kind for address, kind, _ in noted.get("owners", ())}
    kinds = kinds_of(moment.held, _gradient_sizes(all_lives, whole))
    kinds = [owners.get(block.address, kind) for block, kind in zip(moment.held, kinds, strict=True)]
    piles = piles_of(moment.held, all_lives, whole, moment.position)
    return Case(moment, kinds, course, lives, piles, outside, evaluating_callers(course, lives, piles), pages)


def _with_noted_request(recording: Recording, noted: Mapping[str, Any]) -> Recording:
    """A recording without a history at the OOM at which it was written, if it was written at one."""
    moment, request = recording.moment, noted.get("request_bytes")
    if moment.reason != "end" or request is None:
        return recording
    free = noted.get("device_free_bytes")
    return replace(recording, moment=replace(moment, reason="oom", request_bytes=request, device_free_bytes=free))


def _outside_figures(outside: Outside) -> dict[str, Any]:
    return {
        "total_bytes": outside.total_bytes,
        "context_bytes": outside.context_bytes,
        "others_bytes": outside.others_bytes,
        "processes": tuple(Process(name=name, size_bytes=size) for name, size in outside.processes),
    }


def _gradient_sizes(lives: Sequence[Life], course: Course) -> list[int]:
    """Sizes of what a backward pass made and an optimizer then found; the fullest step counts."""
    found: dict[int, list[int]] = defaultdict(list)
    stepped = [(one.born, course.step_of(one.born)) for one in lives if one.origin.phase == "optimizer"]
    first = {step: born for born, step in reversed(stepped)}
    for one in lives:
        step = course.step_of(one.born)
        stays = one.died is None or (step in first and one.died > first[step])
        if one.origin.phase == "backward" and not one.origin.workspace and stays:
            found[step].append(one.size_bytes)
    return max(found.values(), key=sum, default=[])


def _by_kind(held: Sequence[Held], kinds: Sequence[MemoryKind], course: Course) -> tuple[KindPart, ...]:
    parts = []
    for kind in KINDS:
        blocks = [block for block, of in zip(held, kinds, strict=True) if of == kind]
        if blocks:
            parts.append(KindPart(kind=kind, **_figures(blocks, course)))
    return tuple(sorted(parts, key=lambda part: -part.size_bytes))


def _by_line(held: Sequence[Held], kinds: Sequence[MemoryKind], course: Course) -> tuple[LinePart, ...]:
    groups: dict[tuple[str, str, MemoryKind], list[Held]] = defaultdict(list)
    for block, kind in zip(held, kinds, strict=True):
        groups[_module_of(block), _place_of(block.origin.line), kind].append(block)
    parts = [
        LinePart(module=module, line=line, kind=kind, **_figures(blocks, course))
        for (module, line, kind), blocks in groups.items()
    ]
    return tuple(sorted(parts, key=lambda part: (-part.size_bytes, part.line, part.module)))


def _figures(blocks: Sequence[Held], course: Course) -> dict[str, int]:
    return {
        "size_bytes": sum(block.requested_bytes for block in blocks),
        "blocks": len(blocks),
        "since_step": min(course.step_of(block.born) for block in blocks),
    }


def _module_of(block: Held) -> str:
    """The function that allocated, as the stack names it, and the layer of torch in it."""
    line = block.origin.line
    layer = f", {block.origin.layer}" if block.origin.layer else ""
    return f"{line.shown_function}{layer}" if line else f"({block.origin.phase}{layer})"


def _place_of(line: Line | None) -> str:
    return str(line) if line else "-"


def _allocator_parts(moment: Moment) -> tuple[AllocatorPart, ...]:
    """What is held beyond what was asked for; free memory is in holes of segments in use, or in whole segments."""
    requested = sum(block.requested_bytes for block in moment.held)
    cached = sum(one.size_bytes for one in moment.stretches if one.is_free)
    holes = sum(moment.holes(small=True)) + sum(moment.holes(small=False)) - cached
    sizes = {
        "rounding": moment.allocated_bytes - requested,
        "holes": holes,
        "cached": cached,
        "waiting": moment.reserved_bytes - moment.allocated_bytes - holes - cached,
    }
    return tuple(AllocatorPart(name=name, size_bytes=size) for name, size in sizes.items())


def heading(found: Postmortem) -> str:
    """What is explained, in a sentence."""
    if found.reason == "oom":
        free = (
            "" if found.device_free_bytes is None else f" and {format_size(found.device_free_bytes)} free on the card"
        )
        return (
            f"Device {found.device} ran out in step {found.step}: {format_size(found.request_bytes)} were asked for, "
            f"with {format_size(found.allocated_bytes)} in use, {format_size(found.reserved_bytes)} reserved{free}."
        )
    when = f"at its peak, in step {found.step}," if found.reason == "peak" else "when the snapshot was taken"
    return (
        f"Device {found.device} {when} had {format_size(found.allocated_bytes)} in use and "
        f"{format_size(found.reserved_bytes)} reserved."
    )
