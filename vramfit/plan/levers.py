"""The levers: settings that make a job fit, by name, in the order in which they are tried.

Those that cost nothing come first, then those that cost time. `vramfit.jobs.levers` applies them;
`vramfit.plan.recomputation` chooses among them.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from vramfit.errors import UsageError
from vramfit.records import Lever

Cost = Literal["free", "time"]


@dataclass(frozen=True)
class LeverKind:
    """What one lever is.

    Attributes:
        name: what `--levers` and a profile call it.
        settings: what it may be set to; the first is the default.
        cost: `free` costs no time, `time` takes some.
        exact: the run's numbers are those of the run without it, up to the order of additions.
        per_module: may name the modules that it applies to.
        help: one line for people.

    """

    name: str
    settings: tuple[str, ...]
    cost: Cost
    exact: bool
    help: str
    per_module: bool = False


KINDS: tuple[LeverKind, ...] = (
    LeverKind(
        "expandable_segments",
        ("on",),
        "free",
        True,
        "the allocator grows its segments page by page, so that less lies idle between them (Linux)",
    ),
    LeverKind(
        "fused_optimizer", ("on",), "free", True, "one kernel for the optimizer: no copy of the weights on the way"
    ),
    LeverKind(
        "half_upsample",
        ("on",),
        "free",
        False,
        "upsampling layers stay in half precision; CUDA's autocast would make it, and the sums after it, float32",
    ),
    LeverKind("channels_last", ("on", "off"), "free", True, "NHWC memory order, which tensor cores read as it is"),
    LeverKind("amp", ("fp16", "bf16", "off"), "free", False, "the dtype of automatic mixed precision"),
    LeverKind("ema_on_host", ("on",), "time", True, "the averaged weights live in host memory; each step copies to it"),
    LeverKind(
        "recompute",
        ("selective", "block", "module"),
        "time",
        True,
        "run parts of the forward pass again in the backward pass in place of keeping their activations",
        per_module=True,
    ),
    LeverKind(
        "compile",
        ("100", "75", "50", "25", "0"),
        "time",
        False,
        "torch.compile; the setting is the percent of its activations that it may keep. Measured, never predicted",
    ),
)
NAMES = tuple(kind.name for kind in KINDS)
# The compiler chooses itself what to run again, and cannot see through a checkpoint of ours.
_EXCLUDE_EACH_OTHER = ("recompute", "compile")
_ITEM = re.compile(r"(?P<name>[a-z_-]+)(=(?P<setting>[a-z0-9]+))?(@(?P<modules>[\w.]+(\+[\w.]+)*))?")


def kind_of(name: str) -> LeverKind:
    """The lever of a name; hyphens count as underscores.

    Raises:
        UsageError: there is none; the message lists them.

    """
    found = next((kind for kind in KINDS if kind.name == name.replace("-", "_")), None)
    if found is None:
        raise UsageError(f"'{name}' is not a lever; use one of {', '.join(NAMES)}.")
    return found


def check_lever(lever: Lever) -> Lever:
    """The lever itself, if it makes sense.

    Raises:
        UsageError: an unknown name or setting, or modules for a lever that applies to the whole job.

    """
    kind = kind_of(lever.name)
    if lever.setting not in kind.settings:
        raise UsageError(f"{kind.name} cannot be '{lever.setting}'; use {' or '.join(kind.settings)}.")
    if lever.modules and not kind.per_module:
        raise UsageError(f"{kind.name} applies to the whole job; leave '@{'+'.join(lever.modules)}' away.")
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


def in_order(levers: Iterable[Lever]) -> tuple[Lever, ...]:
    """Levers checked and in the order of `KINDS`, so that equal choices make equal records.

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
    return KINDS.index(kind), kind.settings.index(lever.setting), lever.modules


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


def _refuse_contradictions(levers: Sequence[Lever]) -> None:
    for before, lever in pairwise(levers):
        if before.name == lever.name and not (before.modules and lever.modules):
            each = "name the modules of each, or " if kind_of(lever.name).per_module else ""
            raise UsageError(f"{lever.name} is given twice; {each}give it once.")
    if {lever.name for lever in levers}.issuperset(_EXCLUDE_EACH_OTHER):
        raise UsageError("compile chooses itself what to run again; leave recompute away, or compile.")
