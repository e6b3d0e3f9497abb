"""A traced step as the planner sees it: the parts that may be recomputed, what each saves and costs, and the windows.

Sizes in bytes, rounded as the allocator does; times in seconds on a card.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vramfit.jobs.recompute import Recomputable
from vramfit.plan.recomputation import Choice, Layout, Part
from vramfit.prediction.trace_records import OperationRecord, Trace
from vramfit.prediction.transforms.spans import Kept, Span, StepTrace, held_bytes

Seconds = Callable[[Iterable[OperationRecord]], float]
# Where a window lies: the outer part, and the part inside it; the number of parts means after all of them.
_Window = tuple[int, int]


def lay_out(trace: Trace, recomputable: Recomputable, seconds: Seconds, *, step: str = "step 2") -> Layout:
    """What recomputing each part of a network would save and cost in one step.

    Args:
        trace: a plain step, without recomputation.
        recomputable: the names of the parts.
        seconds: how long operations take on the card.
        step: which step; the second has all optimizer state.

    """
    return _Builder(StepTrace(trace, step, recomputable.names), seconds).layout()


@dataclass(slots=True)
class _Builder:
    step: StepTrace
    seconds: Seconds

    def layout(self) -> Layout:
        """The whole network's layout."""
        held = held_bytes(self.step.trace)
        outer, inner = self._nested()
        windows = _windows(held, self.step, outer, inner)
        parts = tuple(
            self._part(held, windows, number, span, inner.get(span.name, [])) for number, span in enumerate(outer)
        )
        return Layout(parts, windows.get((len(outer), 0), 0))

    def _nested(self) -> tuple[list[Span], dict[str, list[Span]]]:
        """The outermost spans in order, and those inside each module."""
        outer: list[Span] = []
        inner: dict[str, list[Span]] = {}
        for span in self.step.spans:
            if outer and span.name.startswith(f"{outer[-1].name}."):
                inner.setdefault(outer[-1].name, []).append(span)
            else:
                outer.append(span)
        return outer, inner

    def _part(
        self, held: Sequence[int], windows: dict[_Window, int], number: int, span: Span, inside: list[Span]
    ) -> Part:
        plain = [windows.get((number, place), 0) for place in range(len(inside) + 1)]
        choices = self._choices(held, span, max(plain), whole="module" if inside else "block")
        if not inside:
            return Part(span.name, plain[0], choices)
        parts = tuple(
            Part(part.name, plain[place], self._choices(held, part, plain[place], whole="block"))
            for place, part in enumerate(inside)
        )
        return Part(span.name, max(plain), choices, Layout(parts, plain[-1]))

    def _choices(self, held: Sequence[int], span: Span, plain: int, *, whole: str) -> tuple[Choice, ...]:
        everything = self.step.kept(span, selective=False)
        # At the start of the backward pass of the part: all of its forward over again, less what was never dropped.
        again = max(held[span.start : span.stop], default=0) - held[span.start - 1]
        limit = max(plain, held[span.back] - self._bytes(everything.dropped | everything.cast) + again)
        choices = []
        for setting in ("selective", whole):
            kept = self.step.kept(span, selective=True) if setting == "selective" else everything
            saved = self._bytes(kept.dropped) - self._bytes(kept.prolonged)
            if saved > 0:
                choices.append(Choice(setting, saved, self._cost(kept), limit))
        return tuple(choices)

    def _bytes(self, storages: Iterable[int]) -> int:
        return sum(self.step.size(storage) for storage in storages)

    def _cost(self, kept: Kept) -> float:
        return self.seconds(kept.again)


def _windows(
    held: Sequence[int], step: StepTrace, outer: Sequence[Span], inner: dict[str, list[Span]]
) -> dict[_Window, int]:
    """The most held while exactly the parts before each part wait for their backward pass."""
    spans = [*outer, *(span for inside in inner.values() for span in inside)]
    turns = sorted({step.start, step.stop, *(span.stop for span in spans), *(span.back for span in spans)})
    windows: dict[_Window, int] = {}
    for begin, end in pairwise(turns):
        number = _waiting(outer, begin)
        place = _waiting(inner.get(outer[number].name, []), begin) if number < len(outer) else 0
        most = max(held[begin:end], default=0)
        windows[number, place] = max(most, windows.get((number, place), 0))
    return windows


def _waiting(spans: Sequence[Span], position: int) -> int:
    """How many spans, from the first on, have run forward and not yet begun to go back."""
    for number, span in enumerate(spans):
        if not span.stop <= position < span.back:
            return number
    return len(spans)
