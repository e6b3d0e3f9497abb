"""Levers as people write them: `half_upsample,recompute=block@stage3.0+stage3.1`."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from vramfit.errors import UsageError
from vramfit.jobs.levers.registry import kind_of, kinds
from vramfit.records import Lever

_ITEM = re.compile(r"(?P<name>[a-z_-]+)(=(?P<setting>[a-z0-9_]+))?(@(?P<modules>[\w.]+(\+[\w.]+)*))?")


def check_lever(lever: Lever) -> Lever:
    """The lever itself, if it makes sense.

    Raises:
        UsageError: an unknown name or setting, or modules for a lever that applies to the whole job.

    """
    kind = kind_of(lever.name)
    if lever.setting not in kind.settings:
        raise UsageError(f"{kind.name} cannot be '{lever.setting}'; use {' or '.join(kind.settings)}.")
    if lever.modules and not kind.per_module:
        raise UsageError(f"{kind.name} applies to the whole job; remove '@{'+'.join(lever.modules)}'.")
    return lever


def parse_levers(text: str) -> tuple[Lever, ...]:
    """Levers from `half_upsample,recompute=block@stage3.0+stage3.1`; `none` and an empty text are no levers.

    Without a setting a lever takes its first one; without modules it applies wherever it can.

    Raises:
        UsageError: a name, setting or form that makes no sense, or a lever without modules given twice.

    """
    items = [item.strip() for item in text.split(",") if item.strip()]
    levers = tuple(_parse_lever(item) for item in items if item != "none")
    return in_order(levers)


def describe_levers(levers: Iterable[Lever]) -> str:
    """Levers as `parse_levers` reads them; `none` for none."""
    return ",".join(_describe(lever) for lever in levers) or "none"


def short_levers(levers: Iterable[Lever]) -> str:
    """Levers for people: names, settings, and how many modules in place of which; `none` for none."""
    return ", ".join(_short(lever) for lever in levers) or "none"


def levers_sentence(levers: Iterable[Lever]) -> str:
    """Which levers a plan has, and how to do without those that cost no time."""
    levers = tuple(levers)
    free = all(kind_of(lever.name).cost == "free" for lever in levers)
    said = f"Levers of the plan: {short_levers(levers)}"
    return f"{said}; they cost no time, and --levers none leaves them out." if free else f"{said}."


def in_order(levers: Iterable[Lever]) -> tuple[Lever, ...]:
    """Levers checked and in the order in which they are tried, so that equal choices make equal records.

    Raises:
        UsageError: one that makes no sense, or two that contradict each other.

    """
    ordered = sorted((check_lever(lever) for lever in levers), key=_rank)
    _refuse_contradictions(ordered)
    return tuple(ordered)


def with_levers(levers: Iterable[Lever], more: Iterable[Lever]) -> tuple[Lever, ...]:
    """Levers, and more of them; one of a name that was there before takes its place."""
    more = tuple(more)
    named = {lever.name for lever in more}
    return in_order([*(lever for lever in levers if lever.name not in named), *more])


def _rank(lever: Lever) -> tuple[int, int, tuple[str, ...]]:
    kind = kind_of(lever.name)
    return kinds().index(kind), kind.settings.index(lever.setting), lever.modules


def _parse_lever(item: str) -> Lever:
    match = _ITEM.fullmatch(item)
    if match is None:
        raise UsageError(f"'{item}' is not a lever; write NAME, NAME=SETTING or NAME=SETTING@MODULE+MODULE.")
    kind = kind_of(match["name"])
    modules = tuple(match["modules"].split("+")) if match["modules"] else ()
    return Lever(name=kind.name, setting=match["setting"] or kind.settings[0], modules=modules)


def _describe(lever: Lever) -> str:
    kind = kind_of(lever.name)
    setting = "" if kind.settings == (lever.setting,) else f"={lever.setting}"
    return lever.name + setting + (f"@{'+'.join(lever.modules)}" if lever.modules else "")


def _short(lever: Lever) -> str:
    setting = "" if len(kind_of(lever.name).settings) == 1 else f"={lever.setting}"
    several = "module" if len(lever.modules) == 1 else "modules"
    modules = f" ({len(lever.modules)} {several})" if lever.modules else ""
    return f"{lever.name}{setting}{modules}"


def _refuse_contradictions(levers: Sequence[Lever]) -> None:
    for before, lever in pairwise(levers):
        if before.name == lever.name and not (before.modules and lever.modules):
            each = "name the modules of each, or " if kind_of(lever.name).per_module else ""
            raise UsageError(f"{lever.name} is given twice; {each}give it once.")
    used = {lever.name for lever in levers}
    for lever in levers:
        for other, sentence in kind_of(lever.name).conflicts.items():
            if other in used:
                raise UsageError(sentence)
