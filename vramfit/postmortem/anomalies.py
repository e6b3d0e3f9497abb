"""What no step needs: graphs and lists that grow, a forgotten no_grad, other processes, holes in segments."""

from collections.abc import Iterator, Sequence

from vramfit.postmortem.case import LARGE_SHARE, Case, Finding
from vramfit.postmortem.lives import Pile
from vramfit.postmortem.recording import Held
from vramfit.postmortem.stacks import Line
from vramfit.postmortem.words import at, since
from vramfit.units import MIB, format_size

# Of each turn a graph leaves several tensors, this part of what forward passes made; a list of outputs one or two.
_GRAPH_EACH_TURN = 2
_RETAINED_BLOCKS = 0.3


def forgotten_no_grad(case: Case) -> Iterator[Finding]:
    """Passes that keep a graph and never learn."""
    for caller in sorted(case.evaluating, key=str):
        blocks = [one for one in case.held if one.origin.phase == "forward" and one.origin.caller == caller]
        if not case.is_large(sum(block.size_bytes for block in blocks)):
            continue
        yield Finding(
            cause="forgotten no_grad",
            size_bytes=sum(block.size_bytes for block in blocks),
            sentence=(
                f"Forward passes that no backward pass follows keep their graph, {at('called', caller)}: {len(blocks)} "
                f"tensors hold {case.share_of(blocks)}; run them under torch.no_grad() or torch.inference_mode()."
            ),
            line=str(caller),
        )


def piles_up(case: Case) -> Iterator[Finding]:
    """Graphs that are kept and lists that grow, told as one."""
    piles = [pile for pile in case.piles if pile.origin.caller not in case.evaluating]
    blocks = [block for pile in piles for block in pile.blocks]
    if piles and case.is_large(sum(block.size_bytes for block in blocks)):
        yield _kept_graph(piles, blocks, case) if _is_graph(piles, case) else _growing_list(piles, blocks, case)


def _is_graph(piles: Sequence[Pile], case: Case) -> bool:
    """Whether what piles up is what a backward pass would need: much of all that forward passes made."""
    forward = [pile for pile in piles if pile.origin.phase == "forward"]
    if sum(pile.each_turn for pile in forward) < _GRAPH_EACH_TURN:
        return False
    turns = {case.course.pass_of(block.born) for pile in forward for block in pile.blocks}
    made = sum(one.origin.phase == "forward" and case.course.pass_of(one.born) in turns for one in case.lives)
    return sum(len(pile.blocks) for pile in forward) >= _RETAINED_BLOCKS * made


def _kept_graph(piles: Sequence[Pile], blocks: Sequence[Held], case: Case) -> Finding:
    where = _root_of(piles)
    return Finding(
        cause="kept graph",
        size_bytes=sum(block.size_bytes for block in blocks),
        sentence=(
            f"The graph of every step is kept {since(blocks, case.course)}: {len(blocks)} tensors of earlier forward "
            f"passes hold {case.share_of(blocks)}, {at('the smallest of each step made', where)}; "
            "keep loss.item() or a detached tensor in place of one that has a graph."
        ),
        line=str(where) if where else None,
    )


def _growing_list(piles: Sequence[Pile], blocks: Sequence[Held], case: Case) -> Finding:
    where = piles[0].origin.line if piles[0].origin.phase == "script" else piles[0].origin.caller
    return Finding(
        cause="growing list",
        size_bytes=sum(block.size_bytes for block in blocks),
        sentence=(
            f"Tensors pile up from step to step, as in a list that grows, {since(blocks, case.course)}: {len(blocks)} "
            f"of them hold {case.share_of(blocks)}, {at('made', where)}; "
            "move what is kept to the host, or keep numbers."
        ),
        line=str(where) if where else None,
    )


def _root_of(piles: Sequence[Pile]) -> Line | None:
    """The line that made what is kept of each turn, and with it the rest: its smallest tensor, as a loss is."""
    script = [pile for pile in piles if pile.origin.phase == "script"]
    if script:
        return min(script, key=lambda pile: pile.size_bytes / len(pile.blocks)).origin.line
    return max((block for pile in piles for block in pile.blocks), key=lambda block: block.born).origin.caller


def other_processes(case: Case) -> Iterator[Finding]:
    """What others hold of the card."""
    taken = case.outside.others_bytes
    if taken is None or case.outside.total_bytes is None or taken < LARGE_SHARE * case.outside.total_bytes:
        return
    needed = case.moment.request_bytes
    enough = ""
    if needed is not None and taken >= needed - (case.moment.device_free_bytes or 0):
        enough = f"; without them the {format_size(needed)} that were asked for would have fitted"
    yield Finding(
        cause="other processes",
        size_bytes=taken,
        sentence=(
            f"Other processes hold {format_size(taken)} of the card's {format_size(case.outside.total_bytes)}"
            f"{case.outside.names}{enough}; end them, or plan with what they leave."
        ),
    )


def fragmentation(case: Case) -> Iterator[Finding]:
    """Free memory in pieces that are too small, by replay."""
    request = case.moment.request_bytes
    if request is None:
        return
    holes = case.moment.holes(small=request <= MIB)
    total, largest = sum(holes), max(holes, default=0)
    enough = total >= request if case.pages_are_enough is None else case.pages_are_enough and 2 * total >= request
    if largest >= request or not enough or total < LARGE_SHARE * case.moment.reserved_bytes:
        return
    where = f"{len(holes)} holes" if len(holes) > 1 else "one hole"
    yield Finding(
        cause="fragmentation",
        size_bytes=total,
        sentence=(
            f"Fragmentation: {format_size(total)} of what is reserved lie free in {where} between blocks in use, the "
            f"largest of {format_size(largest)}, too small for the {format_size(request)} that were asked for."
        ),
    )
