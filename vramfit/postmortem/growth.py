"""What grows in Python from step to step: containers that hold tensors or large objects, and graphs of autograd.

A scan goes through all containers that Python's garbage collector knows and notes their lengths. What has grown by the
next scan is a suspect, and so is a container that grows under a name of the running functions, which needs no scan.
Suspects, and the graphs behind the variables of the running functions, are then measured again and again, which costs
little.
"""

import gc
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise
from types import FrameType
from typing import Any

import torch
from torch import Tensor

_CONTAINERS = {list, dict, set, deque, defaultdict, OrderedDict}
_SHORTEST = 4
_LOOKS = 3
# Growth from look to look must be even within this factor, in entries a step.
_EVENNESS = 4.0
# One entry in so many steps at least: a record an epoch is no leak.
_SPARSEST = 0.02
_MOST_NODES = 50_000
_SMALLEST_BYTES = 16 << 10  # of an entry without a graph: numbers and small records are what a run keeps


@dataclass(frozen=True)
class Entry:
    """What one entry of a container holds: bytes of its tensors and arrays, whether a tensor has a graph, where."""

    size_bytes: int
    has_graph: bool
    on_card: bool

    @property
    def is_worth_telling(self) -> bool:
        """Whether a run that keeps one a step would suffer."""
        return self.has_graph or self.size_bytes >= _SMALLEST_BYTES


@dataclass(frozen=True, slots=True)  # without a dict of its own, in which the holder would be found
class Growth:
    """A container that grows, or a graph behind a variable; `entry` is None for the latter."""

    holder: Any
    each_step: float
    entry: Entry | None
    name: str = ""
    namespace: Mapping[str, Any] | None = None

    @property
    def has_no_graph(self) -> bool:
        """Whether it keeps tensors or arrays alone."""
        return self.entry is not None and not self.entry.has_graph

    @property
    def held_bytes(self) -> int:
        """What a container holds by now, if its entries are as large as the last."""
        return len(self.holder) * self.entry.size_bytes if self.entry is not None else 0


class Scans:
    """Passes over all containers of the process, each of some 50 ms; what grew from one to the next is a suspect."""

    def __init__(self) -> None:
        self._step = 0
        self._lengths: dict[int, int] = {}
        self.suspects: dict[int, Any] = {}

    def take(self, step: int, dropped: Collection[int] = ()) -> None:
        """Go through everything once more; what was `dropped` before, by identity, is no suspect."""
        found = {id(one): one for one in gc.get_objects() if type(one) in _CONTAINERS and len(one) >= _SHORTEST}
        grown = [key for key, one in found.items() if len(one) > self._lengths.get(key, len(one))]
        fewest = _SPARSEST * (step - self._step)
        for key in grown:
            container = found[key]
            fast = len(container) - self._lengths[key] >= fewest
            if fast and key not in dropped and _is_worth_telling(container) and not _is_bounded(container):
                self.suspects[key] = container
        self._step, self._lengths = step, {key: len(one) for key, one in found.items()}


class Checks:
    """Suspects and variables, measured again and again: what grows evenly over several checks has grown for good."""

    def __init__(self) -> None:
        self._steps: deque[int] = deque(maxlen=_LOOKS)
        self._sizes: deque[dict[Any, int]] = deque(maxlen=_LOOKS)
        self._named: dict[int, int] = {}  # lengths of containers that have names, by their identity
        self._unproven: set[int] = set()  # suspects by their name, of which it is not known what else holds them
        self.bounded: set[int] = set()  # what cannot grow without end, or was emptied before
        self._lengths: dict[int, int] = {}

    def follow(self, suspects: dict[int, Any]) -> None:
        """Drop what became shorter; after every step, for between checks an emptied list may seem to grow evenly."""
        for key, one in list(suspects.items()):
            if len(one) < self._lengths.get(key, 0):
                self.bounded.add(key)
                del suspects[key]
        self._lengths = {key: len(one) for key, one in suspects.items()}

    def take(self, step: int, suspects: dict[int, Any], frame: FrameType | None) -> list[Growth]:
        """Measure once more; what has grown over the last checks. `frame` is where the step was made."""
        self._add_named(suspects, frame)
        variables = dict(_tensors_with_graph(frame))
        sizes: dict[Any, int] = {key: len(one) for key, one in suspects.items()}
        sizes |= {key: _count_nodes(tensor) for key, (tensor, _) in variables.items()}
        self._steps.append(step)
        self._sizes.append(sizes)
        if len(self._steps) < _LOOKS:
            return []
        for key in [key for key in suspects if all(key in one for one in self._sizes) and not self._has_grown(key)]:
            del suspects[key]
        self._drop_bounded(suspects)
        return [self._growth(key, rate, suspects, variables) for key, rate in self._rates().items()]

    def _add_named(self, suspects: dict[int, Any], frame: FrameType | None) -> None:
        """Add the containers with a name that have grown since the last check."""
        found = {id(one): one for one in _containers(frame)}
        for key, one in found.items():
            grown = len(one) > self._named.get(key, len(one))
            if grown and key not in suspects and key not in self.bounded and _is_worth_telling(one):
                suspects[key] = one
                self._unproven.add(key)
        self._named = {key: len(one) for key, one in found.items()}

    def _drop_bounded(self, suspects: dict[int, Any]) -> None:
        """Leave out what cannot grow without end; asked of what would be told alone, for it costs as much as a scan."""
        for key in self._unproven.intersection(suspects, self._rates()):
            self._unproven.discard(key)
            if _is_bounded(suspects[key]):
                self.bounded.add(key)
                del suspects[key]
                self._sizes[-1].pop(key)

    def _has_grown(self, key: int) -> bool:
        return self._sizes[-1][key] > self._sizes[0][key]

    def _growth(
        self,
        key: Any,
        rate: float,
        suspects: Mapping[int, Any],
        variables: Mapping[Any, tuple[Tensor, Mapping[str, Any]]],
    ) -> Growth:
        if key in suspects:
            return Growth(suspects[key], rate, _last_entry(suspects[key]))
        tensor, namespace = variables[key]
        return Growth(tensor, rate, None, key[1], namespace)

    def _rates(self) -> dict[Any, float]:
        """Growth a step of what grew between any two checks, evenly."""
        grown = {}
        spans = [later - earlier for earlier, later in pairwise(self._steps)]
        for key in set(self._sizes[0]).intersection(*list(self._sizes)[1:]):
            rises = [after[key] - before[key] for before, after in pairwise(self._sizes)]
            rates = [rise / max(1, span) for rise, span in zip(rises, spans, strict=True)]
            if min(rates) >= _SPARSEST and max(rates) <= _EVENNESS * min(rates):
                grown[key] = sum(rates) / len(rates)
        return grown


def _last_entry(container: Any) -> Entry | None:
    values = container.values() if isinstance(container, dict) else container
    last = next(iter(values), None) if isinstance(container, set) else next(reversed(values), None)
    leaves = list(islice(_leaves(last, 3), 64))
    if not leaves:
        return None
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    return Entry(
        size_bytes=sum(_size(leaf) for leaf in leaves),
        has_graph=any(tensor.grad_fn is not None for tensor in tensors),
        on_card=any(tensor.device.type == "cuda" for tensor in tensors),
    )


def _is_worth_telling(container: Any) -> bool:
    entry = _last_entry(container)
    return entry is not None and entry.is_worth_telling


def _leaves(value: Any, depth: int) -> Iterator[Any]:
    """Tensors, arrays and texts in a value, at most so many levels deep."""
    if isinstance(value, (Tensor, bytes, bytearray, str)) or type(value).__name__ == "ndarray":
        yield value
    elif depth:
        if isinstance(value, Mapping):
            parts: Any = value.values()
        elif isinstance(value, (list, tuple, set, deque)):
            parts = value
        else:
            parts = getattr(value, "__dict__", {}).values()
        for part in islice(list(parts), 16):
            yield from _leaves(part, depth - 1)


def _size(leaf: Any) -> int:
    return int(leaf.nbytes) if hasattr(leaf, "nbytes") else sys.getsizeof(leaf)


def _is_bounded(container: Any) -> bool:
    """Whether a container cannot grow without end: a queue of fixed length, a data set's own cache."""
    if isinstance(container, deque) and container.maxlen is not None:
        return True
    owners = gc.get_referrers(container)
    holders = [holder for owner in owners if isinstance(owner, dict) for holder in gc.get_referrers(owner)]
    return any(isinstance(one, torch.utils.data.Dataset) for one in (*owners, *holders))


def _containers(frame: FrameType | None) -> Iterator[Any]:
    """Containers that are variables of the running functions or attributes of their objects."""
    for namespace in _namespaces(frame):
        for value in list(namespace.values()):
            if type(value) in _CONTAINERS and len(value) >= _SHORTEST:
                yield value


def _tensors_with_graph(frame: FrameType | None) -> Iterator[tuple[tuple[int, str], tuple[Tensor, Mapping[str, Any]]]]:
    """Variables of the running functions, and attributes of their objects, that hold a tensor with a graph."""
    seen: set[int] = set()
    for namespace in _namespaces(frame):
        if id(namespace) in seen:
            continue
        seen.add(id(namespace))
        for name, value in list(namespace.items()):
            if isinstance(value, Tensor) and value.grad_fn is not None:
                yield (_place(namespace), name), (value, namespace)


def _namespaces(frame: FrameType | None) -> Iterator[Mapping[str, Any]]:
    while frame is not None:
        yield frame.f_locals
        yield frame.f_globals
        owner = frame.f_locals.get("self")
        if owner is not None and hasattr(owner, "__dict__"):
            yield vars(owner)
        frame = frame.f_back


def _place(namespace: Mapping[str, Any]) -> int:
    """What tells a namespace at one look from another: that of a function is made anew at each."""
    return id(namespace) if "__name__" in namespace else hash(tuple(sorted(map(str, namespace))))


def _count_nodes(tensor: Tensor) -> int:
    """Nodes of the graph behind a tensor, `_MOST_NODES` at most."""
    seen, open_nodes = {tensor.grad_fn}, [tensor.grad_fn]
    while open_nodes and len(seen) < _MOST_NODES:
        node = open_nodes.pop()
        for following, _ in node.next_functions if node is not None else ():
            if following is not None and following not in seen:
                seen.add(following)
                open_nodes.append(following)
    return len(seen)
