"""Why memory ran out, as findings that each say what would be free without them, the likeliest first.

An anomaly comes first where it is large; then holes in segments and designs that would have been enough, the larger
first; then what the step takes as it is.
"""

from collections.abc import Callable, Iterator

from vramfit.postmortem.anomalies import forgotten_no_grad, fragmentation, other_processes, piles_up
from vramfit.postmortem.case import Case, Finding
from vramfit.postmortem.designs import second_networks, second_optimizers
from vramfit.postmortem.usual import first_step, largest_kind, one_tensor

# A design is told first if it holds so much of what was allocated, and enough for what was refused.
_DESIGN_TOLD_SHARE = 0.12

Finder = Callable[[Case], Iterator[Finding]]
_ANOMALIES: tuple[Finder, ...] = (forgotten_no_grad, piles_up, other_processes)
_DESIGNS: tuple[Finder, ...] = (second_networks, second_optimizers)
_USUAL: tuple[Finder, ...] = (first_step, one_tensor, largest_kind)


def find_causes(case: Case) -> list[Finding]:
    """All findings, the likeliest cause first."""
    anomalies = [one for finder in _ANOMALIES for one in finder(case)]
    designs = [one for finder in _DESIGNS for one in finder(case)]
    told = [one for one in designs if _would_be_enough(one, case)]
    choices = sorted([*fragmentation(case), *told], key=lambda one: -one.size_bytes)
    usual = [one for finder in _USUAL for one in finder(case)]
    rest = sorted((one for one in designs if one not in told), key=lambda one: -one.size_bytes)
    return [*anomalies, *choices, *usual, *rest]


def _would_be_enough(design: Finding, case: Case) -> bool:
    moment = case.moment
    free = sum(moment.holes(small=False)) + sum(moment.holes(small=True)) + (moment.device_free_bytes or 0)
    missing = (moment.request_bytes or 0) - free
    return design.size_bytes >= max(_DESIGN_TOLD_SHARE * case.allocated_bytes, missing)
