"""One rank of several, without the others: a process group whose collectives return at once, with what this rank has.

The rank is the first. What it holds is what each holds: its weights, its share of the data, and the buckets in which
DistributedDataParallel gathers gradients. NCCL's own memory is not among them.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parallel import distributed as parallel

from vramfit.prediction.tracing.absent_ranks import sharding_is_recorded
from vramfit.prediction.tracing.recorder import Recorder
from vramfit.prediction.tracing.swapping import swap

InPlace = Callable[[], AbstractContextManager[None]]


@contextmanager
def first_of_ranks(on_card: InPlace, recorder: Recorder | None = None) -> Iterator[None]:
    """Within it, a script may start a process group of any size, and is its rank 0.

    `on_card` gives a context in which what torch makes for itself is on the card; with a `recorder`, networks that the
    script shards by FSDP2 are traced.
    """
    if not dist.is_available():
        yield
        return
    from torch.testing._internal.distributed import fake_pg  # noqa: F401  # registers the backend

    with ExitStack() as stack:
        group = _Group(stack, recorder)
        swap(stack, dist, "init_process_group", group.start)
        swap(stack, dist.distributed_c10d, "init_process_group", group.start)
        for name, replacement in group.answers().items():
            for owner in (dist, dist.distributed_c10d):
                if hasattr(owner, name):  # names differ by the version of torch
                    swap(stack, owner, name, replacement)
        swap(stack, parallel, "_verify_param_shape_across_processes", lambda *_, **__: None)
        swap(stack, parallel, "_sync_module_states", lambda *_, **__: None)
        for name in ("__init__", "_pre_forward"):
            swap(stack, DistributedDataParallel, name, _within(on_card, vars(DistributedDataParallel)[name]))
        hook = DistributedDataParallel.register_comm_hook
        swap(stack, DistributedDataParallel, "register_comm_hook", lambda *_, **__: None)
        made = DistributedDataParallel.__init__

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            made(self, *args, **kwargs)
            hook(self, None, lambda _, bucket: _gathered(bucket))  # torch refuses annotations but its own

        swap(stack, DistributedDataParallel, "__init__", init)
        for name in ("spawn", "start_processes"):
            swap(stack, torch.multiprocessing, name, _first_alone)
        yield


def _within(on_card: InPlace, original: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        with on_card():
            return original(*args, **kwargs)

    return called


def _gathered(bucket: Any) -> torch.futures.Future[Tensor]:
    """A bucket whose gradients are taken to be the mean already."""
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


def _first_alone(fn: Callable[..., Any], args: tuple[Any, ...] = (), nprocs: int = 1, **_: Any) -> None:
    """The first of the processes that a script would spawn, in this one."""
    os.environ.setdefault("WORLD_SIZE", str(nprocs))
    fn(0, *args)


class _Group:
    """The script's process group, as it asked for it."""

    def __init__(self, stack: ExitStack, recorder: Recorder | None) -> None:
        self._stack = stack
        self._recorder = recorder
        self._backend = "nccl"
        self._original = dist.init_process_group

    def start(
        self,
        backend: str | None = None,
        init_method: str | None = None,  # noqa: ARG002  # there is nobody to meet
        timeout: timedelta | None = None,  # noqa: ARG002  # nor to wait for
        world_size: int = -1,
        rank: int = -1,  # noqa: ARG002  # the first, whatever it says
        **_: Any,
    ) -> None:
        """Start a group of one rank and as many that are not here."""
        from torch.testing._internal.distributed.fake_pg import FakeStore

        if world_size < 1 and "WORLD_SIZE" not in os.environ:
            raise ValueError(
                "Error initializing torch.distributed using env:// rendezvous: environment variable WORLD_SIZE "
                "expected, but not set"
            )
        self._backend = str(backend or "nccl")
        size = world_size if world_size > 0 else int(os.environ["WORLD_SIZE"])
        if self._recorder is not None:
            self._stack.enter_context(sharding_is_recorded(self._recorder))
        self._original("fake", store=FakeStore(), rank=0, world_size=size)

    def answers(self) -> dict[str, Callable[..., Any]]:
        """What collectives leave in their outputs: what this rank gave, in every rank's place."""
        return {
            "get_backend": lambda *_, **__: self._backend.partition(":")[2].split(",")[0] or self._backend,
            "is_nccl_available": lambda: True,
            "barrier": lambda *_, **__: None,
            "monitored_barrier": lambda *_, **__: None,
            "all_gather": _all_gather,
            "all_gather_into_tensor": _all_gather_into,
            "all_gather_single": _all_gather_into,
            "reduce_scatter_tensor": _reduce_scatter_into,
            "reduce_scatter_single": _reduce_scatter_into,
            "all_gather_object": _all_gather_object,
            "gather_object": _gather_object,
            "broadcast_object_list": lambda *_, **__: None,
            "scatter_object_list": _scatter_object_list,
        }


def _all_gather(tensor_list: list[Tensor], tensor: Tensor, *_: Any, **__: Any) -> None:
    for place in tensor_list:
        place.copy_(tensor)


def _all_gather_into(output_tensor: Tensor, input_tensor: Tensor, *_: Any, **__: Any) -> None:
    output_tensor.view(-1, max(1, input_tensor.numel())).copy_(input_tensor.reshape(1, -1))


def _reduce_scatter_into(output: Tensor, input: Tensor, *_: Any, **__: Any) -> None:  # torch's name
    output.view(-1).copy_(input.reshape(-1)[: output.numel()])


def _all_gather_object(object_list: list[Any], obj: Any, *_: Any, **__: Any) -> None:
    object_list[:] = [obj] * len(object_list)


def _gather_object(obj: Any, object_gather_list: list[Any] | None = None, *_: Any, **__: Any) -> None:
    if object_gather_list is not None:
        object_gather_list[:] = [obj] * len(object_gather_list)


def _scatter_object_list(output: list[Any], given: list[Any], *_: Any, **__: Any) -> None:
    output[0] = given[0]
