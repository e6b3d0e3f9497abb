"""One rank of several that are not here: what it holds of a network that all of them share.

FSDP2 itself runs on traced tensors, in a process group whose other ranks are not there: which weights it shards,
gathers, keeps and frees, and when, is torch's own doing (torch/distributed/fsdp/_fully_shard). Three things are told
in place of torch: collectives return at once, a storage that is resized frees or takes its memory in the trace, and
its streams only say which of the allocator's pools memory comes from.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parallel import distributed as parallel
from torch.utils._python_dispatch import _disable_current_modes

from vramfit.errors import UsageError
from vramfit.prediction.tracing.recorder import Recorder
from vramfit.prediction.tracing.swapping import swap

_COLLECTIVES = ("all_gather_single", "reduce_scatter_single", "all_gather_into_tensor", "reduce_scatter_tensor")


@contextmanager
def absent_ranks(cards: int, recorder: Recorder) -> Iterator[None]:
    """Within it, this process is the first of as many ranks as there are cards; with one card it is alone.

    Raises:
        UsageError: this process is in a process group already, or this torch has no FSDP2.

    """
    if cards == 1:
        yield
        return
    if dist.is_initialized():
        raise UsageError(f"cards is {cards}, and this process is one of several already; predict before they meet.")
    from torch.testing._internal.distributed.fake_pg import FakeStore

    with ExitStack() as stack:
        stack.enter_context(sharding_is_recorded(recorder))
        for name in filter(partial(hasattr, dist), _COLLECTIVES):
            swap(stack, dist, name, _at_once)
        _averages_alone(stack)
        stack.callback(setattr, sys, "excepthook", sys.excepthook)  # a process group names the rank in front of errors
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=cards)
        stack.callback(dist.destroy_process_group)
        yield


def _averages_alone(stack: ExitStack) -> None:
    """DistributedDataParallel without the others: its buckets stay as they are first made, and are the mean already.

    After the first step it would order them anew; they take as many bytes either way.
    """
    swap(stack, parallel, "_verify_param_shape_across_processes", lambda *_, **__: None)
    swap(stack, parallel, "_sync_module_states", lambda *_, **__: None)
    made = DistributedDataParallel.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        self.register_comm_hook(None, lambda _, bucket: _gathered(bucket))
        self.reducer = _Reducer(self.reducer)

    swap(stack, DistributedDataParallel, "__init__", init)
    swap(stack, DistributedDataParallel, "register_comm_hook", _registered)


def _registered(wrapped: Any, state: Any, hook: Callable[..., Any]) -> None:
    """Torch itself refuses hooks whose annotations are not its own."""
    dist._register_comm_hook(wrapped.reducer, state, hook)  # type: ignore[attr-defined]  # torch has it, and exports it not


def _gathered(bucket: Any) -> torch.futures.Future[Tensor]:
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


class _Reducer:
    """A reducer that never orders its buckets anew."""

    def __init__(self, reducer: Any) -> None:
        self._reducer = reducer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reducer, name)

    def _rebuild_buckets(self) -> bool:
        return False


@contextmanager
def sharding_is_recorded(recorder: Recorder) -> Iterator[None]:
    """Within it, what FSDP2 takes and frees without an operation is in the trace, and so are its streams.

    Raises:
        UsageError: this torch has no FSDP2.

    """
    try:
        from torch.distributed import device_mesh
        from torch.distributed.fsdp._fully_shard import _fsdp_collectives, _fsdp_param, _fsdp_param_group, _fsdp_state
        from torch.distributed.tensor._sharding_prop import ShardingPropagator
    except ImportError as error:
        raise UsageError(
            "cards runs torch's fully_shard, which this torch has not; upgrade it to 2.6 or later."
        ) from error
    streams = _Streams(recorder)
    with ExitStack() as stack:
        for module in (_fsdp_param, _fsdp_param_group):
            swap(stack, module, "alloc_storage", partial(recorder.refill, op="all_gather"))
        swap(stack, _fsdp_param, "free_storage", recorder.empty)
        for module in (_fsdp_collectives, _fsdp_param_group, _fsdp_state):
            swap(stack, module, "_get_device_handle", lambda *_: streams)
        for owner, name in (
            (ShardingPropagator, "_propagate_tensor_meta_non_cached"),
            (device_mesh, "init_device_mesh"),
        ):
            swap(stack, owner, name, _unseen(vars(owner)[name]))
        yield


class _Streams:
    """Streams of the card as FSDP2 uses them; nothing waits in a trace, and a new tensor is of the current one."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._made = 0

    def Stream(self, priority: int = 0) -> "_Stream":  # noqa: ARG002, N802  # torch's name and signature
        """A stream of its own."""
        self._made += 1
        return _Stream(self._made)

    def Event(self) -> "_Event":  # noqa: N802  # torch's name
        """A moment in a stream."""
        return _Event()

    def current_stream(self) -> "_Stream":
        """The stream that new tensors are of."""
        return _Stream(self._recorder.stream)

    @contextmanager
    def stream(self, chosen: "_Stream") -> Iterator[None]:
        """Within it, new tensors are of a stream."""
        before, self._recorder.stream = self._recorder.stream, chosen.number
        try:
            yield
        finally:
            self._recorder.stream = before


class _Event:
    def record(self, stream: "_Stream | None" = None) -> "_Event":  # noqa: ARG002  # torch's signature
        return self


class _Stream:
    def __init__(self, number: int) -> None:
        self.number = number

    def wait_event(self, event: _Event) -> None:
        pass

    def wait_stream(self, stream: "_Stream") -> None:
        pass

    def record_event(self) -> _Event:
        return _Event()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Stream) and other.number == self.number

    def __hash__(self) -> int:
        return self.number


def _unseen(original: Callable[..., Any]) -> Callable[..., Any]:
    """A function of DTensor's whose tensors are none of the card's: they ask for shapes, or number the ranks."""

    def called(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return original(*args, **kwargs)

    return called


def _at_once(*_: Tensor, **__: Any) -> None:
    """A collective whose result nobody reads."""
