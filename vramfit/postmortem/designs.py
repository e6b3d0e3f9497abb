"""What someone chose to hold: a second network, copies of the network, a second optimizer."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from vramfit.postmortem.case import LARGE_SHARE, Case, Finding
from vramfit.postmortem.networks import Group, alike, networks, optimizers
from vramfit.postmortem.stacks import Line
from vramfit.postmortem.words import at


def second_networks(case: Case) -> Iterator[Finding]:
    """Networks and copies of them beside the first."""
    first, others = networks(case.held, case.course)
    if first is None:
        return
    together: dict[tuple[tuple[Line, ...], bool], list[Group]] = defaultdict(list)
    for group in others:
        together[group.calls, _is_copy(group, first)].append(group)
    for (_, copied), groups in together.items():
        if sum(group.size_bytes for group in groups) >= LARGE_SHARE * case.allocated_bytes:
            yield _average(groups, case) if copied else _network_beside(groups, first, case)


def _is_copy(group: Group, first: Group) -> bool:
    return alike(group, first) and (group.phase != "build" or group.is_average)


def _average(groups: Sequence[Group], case: Case) -> Finding:
    blocks = [block for group in groups for block in group.blocks]
    named = (
        "An average of the weights (EMA), a copy of the network" if groups[0].is_average else "A copy of the network"
    )
    more = f" and {len(groups) - 1} more of it" if len(groups) > 1 else ""
    where = groups[0].line
    return Finding(
        cause="copy of the network",
        size_bytes=sum(block.size_bytes for block in blocks),
        sentence=(
            f"{named}{more}, {at('made', where)}, holds {case.share_of(blocks)}; "
            "keep it on the host, or update it less often from there."
        ),
        line=str(where) if where else None,
    )


def _network_beside(groups: Sequence[Group], first: Group, case: Case) -> Finding:
    blocks = [block for group in groups for block in group.blocks]
    where, theirs = groups[0].line_beside(first), first.line_beside(groups[0])
    again = " again" if where == theirs else ""
    more = f" and {len(groups) - 1} more" if len(groups) > 1 else ""
    likeness = "of the same sizes" if alike(groups[0], first) else "of its own"
    return Finding(
        cause="second network",
        size_bytes=sum(block.size_bytes for block in blocks),
        sentence=(
            f"A second network {likeness}{more}, {at('made', where)}{again}, holds {case.share_of(blocks)} beside the "
            f"first, {at('made', theirs)}; let go of what is not needed, or move it to the host."
        ),
        line=str(where) if where else None,
    )


def second_optimizers(case: Case) -> Iterator[Finding]:
    """State of the same sizes as that of an earlier optimizer."""
    groups = sorted(optimizers(case.held, case.course), key=lambda one: one.blocks[0].born)
    for place, group in enumerate(groups):
        earlier = next((one for one in groups[:place] if alike(one, group)), None)
        if earlier is None or group.size_bytes < LARGE_SHARE * case.allocated_bytes:
            continue
        yield Finding(
            cause="second optimizer",
            size_bytes=group.size_bytes,
            sentence=(
                f"A second optimizer, {at('stepped', group.line)}, holds state of the same sizes as the first, "
                f"{at('stepped', earlier.line)}: {case.share_of(group.blocks)}; let go of the one that is not needed."
            ),
            line=str(group.line) if group.line else None,
        )
