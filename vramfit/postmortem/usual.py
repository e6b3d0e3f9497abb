"""What a step takes as it is: the optimizer's first step, one large request, the kind that holds most."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from vramfit.postmortem.case import Case, Finding
from vramfit.postmortem.kinds import MemoryKind
from vramfit.postmortem.recording import Held
from vramfit.postmortem.stacks import Line
from vramfit.postmortem.words import at
from vramfit.units import format_size

_ONE_TENSOR_SHARE = 0.3
_NAMES: dict[MemoryKind, str] = {
    "parameters": "The parameters of the network",
    "copy of the network": "Copies of the network",
    "gradients": "Gradients",
    "optimizer state": "The optimizer's states",
    "activations": "Activations of the forward pass",
    "tensors of the script": "Tensors that the script itself makes",
    "workspace": "Workspaces of libraries",
    "unknown": "Blocks without a recorded stack",
}
_ADVICE: dict[MemoryKind, str] = {
    "parameters": "a smaller network or fewer bits a weight is what makes room",
    "copy of the network": "keep the copies on the host",
    "gradients": "a smaller network, or fewer layers that learn, makes room",
    "optimizer state": "an optimizer with less state, or in eight bits, makes room",
    "activations": "a smaller batch, or recomputation, makes room",
    "tensors of the script": "keep what the step does not need on the host",
    "workspace": "cudnn.benchmark = False, or a smaller batch, makes room",
    "unknown": "record the history before the network is made to see what they are",
}


def first_step(case: Case) -> Iterator[Finding]:
    """The optimizer makes its state when it first steps, after everything else is there."""
    state = [one for one, kind in zip(case.held, case.kinds, strict=True) if kind == "optimizer state"]
    if case.moment.reason != "oom" or not state:
        return
    last = max(case.held, key=lambda one: one.born)
    now = case.course.step_of(case.moment.position)
    if last.origin.phase == "optimizer" and all(case.course.step_of(one.born) == now for one in state):
        yield Finding(
            cause="first optimizer step",
            size_bytes=sum(one.size_bytes for one in state),
            sentence=(
                f"It ran out in the first step of the optimizer, which makes its state then: {case.share_of(state)} so "
                f"far, {at('stepped', last.origin.caller)}; an optimizer with less state, or in eight bits, needs less."
            ),
            line=str(last.origin.caller) if last.origin.caller else None,
        )


def one_tensor(case: Case) -> Iterator[Finding]:
    """A request that alone is a large part of the card."""
    request = case.moment.request_bytes
    if request is None or request < _ONE_TENSOR_SHARE * (case.moment.reserved_bytes + request):
        return
    left = sum(case.moment.holes(small=False)) + (case.moment.device_free_bytes or 0)
    yield Finding(
        cause="one large tensor",
        size_bytes=request,
        sentence=(
            f"One request of {format_size(request)} came beside {format_size(case.allocated_bytes)} in use, with "
            f"{format_size(left)} left; compute it in parts, or use a smaller batch."
        ),
    )


def largest_kind(case: Case) -> Iterator[Finding]:
    """The kind that holds most."""
    sizes: dict[MemoryKind, int] = defaultdict(int)
    for block, kind in zip(case.held, case.kinds, strict=True):
        sizes[kind] += block.size_bytes
    if not sizes:
        return
    kind = max(sizes, key=lambda one: sizes[one])
    blocks = [one for one, of in zip(case.held, case.kinds, strict=True) if of == kind]
    where = _fullest_line(blocks)
    most = f", most of one line {at('made', where)}" if where else ""
    yield Finding(
        cause="largest kind",
        size_bytes=sizes[kind],
        sentence=f"{_NAMES[kind]} hold {case.share_of(blocks)}{most}; {_ADVICE[kind]}.",
        line=str(where) if where else None,
    )


def _fullest_line(blocks: Iterable[Held]) -> Line | None:
    sizes: dict[Line, int] = defaultdict(int)
    for block in blocks:
        if block.origin.line is not None:
            sizes[block.origin.line] += block.size_bytes
    return max(sizes, key=lambda line: sizes[line], default=None)
