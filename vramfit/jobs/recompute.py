"""Recomputation: parts of a network run again in the backward pass in place of keeping their activations.

Built on torch's own checkpoint, so autocast and random numbers are the same the second time. What torch leaves to the
caller is done here: BatchNorm's running statistics move once, not twice; a module that rewrites the list it is given
(timm's HighResolutionModule does) sees the same list twice; one that overwrites its input is refused.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from vramfit.errors import UsageError

_CONTAINERS = (nn.Sequential, nn.ModuleList)
# What `selective` keeps: the outputs of the operations that take the time.
_KEPT = ("convolution", "mm", "addmm", "bmm", "baddbmm")
_KEPT_PREFIX = "_scaled_dot_product"


def is_kept(operation: str) -> bool:
    """Whether selective recomputation keeps the outputs of an ATen operation, by name: `convolution`, `add.Tensor`."""
    name = operation.partition(".")[0]
    return name in _KEPT or name.startswith(_KEPT_PREFIX)


@dataclass(frozen=True)
class Recomputable:
    """The parts of a network that are worth running again, by dotted name, in the order of the network.

    Attributes:
        blocks: the smallest: members of a Sequential or ModuleList with layers of their own, such as a residual block.
        modules: the modules whose members are blocks, such as a HighResolutionModule or a stage.
        chains: Sequentials of blocks outside those modules, such as a ResNet's layers; only a planner knows when to
            recompute a whole one.

    """

    blocks: tuple[str, ...]
    modules: tuple[str, ...]
    chains: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.blocks, *self.modules, *self.chains)

    def of_setting(self, setting: str) -> tuple[str, ...]:
        """The names that a setting without names means: all blocks, or all modules and the blocks outside them."""
        if setting == "block":
            return self.blocks
        inside = tuple(f"{name}." for name in self.modules)
        return tuple(name for name in (*self.modules, *self.blocks) if not name.startswith(inside))


def find_recomputable(model: nn.Module) -> Recomputable:
    """The blocks and modules of any network, found by their place: members of containers that hold layers."""
    members = _members(model)
    blocks = tuple(name for name in members if not _holds(name, members))
    holders = [name for name, module in members.items() if name not in blocks and not isinstance(module, _CONTAINERS)]
    modules = tuple(name for name in holders if not _holds(name, holders))
    inside = tuple(f"{name}." for name in modules)
    held = Counter(name.rpartition(".")[0] for name in blocks if not name.startswith(inside))
    # A chain of one block is that block: offered as both, a planner could choose one inside the other.
    chains = tuple(name for name, part in model.named_modules() if held[name] > 1 and type(part) is nn.Sequential)
    return Recomputable(blocks, modules, chains)


def recompute(model: nn.Module, names: Iterable[str], *, selective: bool) -> None:
    """Make modules of a network recompute; weights, buffers and their names stay as they are.

    Args:
        model: the network, changed in place.
        names: dotted names of the modules; none inside another.
        selective: keep the outputs of convolutions and matrix products, recompute the rest.

    Raises:
        UsageError: a module that is not there, recomputes already, or cannot be recomputed.

    """
    names = tuple(names)
    _refuse_nesting([*recomputed(model), *names])
    for name in names:
        module = _module(model, name)
        if any(isinstance(part, nn.SyncBatchNorm) for part in module.modules()):
            raise UsageError(f"{name} holds a SyncBatchNorm, which cannot be recomputed; choose other modules.")
        if selective:
            _keep_what_is_kept(module)
        module.forward = Recomputation(module, name, selective=selective)


def recomputed(model: nn.Module) -> tuple[str, ...]:
    """The dotted names of the modules that recompute."""
    return tuple(name for name, module in model.named_modules() if isinstance(module.forward, Recomputation))


class Recomputation:
    """The forward of one module, which keeps its input and runs again when the backward pass needs the rest.

    An instance stands in for the module's `forward`; a deep copy of the network copies it along with the module.
    """

    def __init__(self, module: nn.Module, name: str, *, selective: bool) -> None:
        self.module = module
        self.name = name
        self.selective = selective
        self._statistics = [part for part in module.modules() if isinstance(part, _NormBase)]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the module's own forward returns."""
        forward = partial(type(self.module).forward, self.module)
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        twice = _SameTwice(forward, self.name)
        return checkpoint(twice, *args, use_reentrant=False, context_fn=self._contexts, **kwargs)

    def _contexts(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        if not self.selective:
            return nullcontext(), frozen_statistics(self._statistics)
        first, again = create_selective_checkpoint_contexts(_policy)
        return first, _both(again, frozen_statistics(self._statistics))


@contextmanager
def frozen_statistics(norms: Iterable[nn.Module]) -> Iterator[None]:
    """Let normalisation layers see a batch without moving their running statistics or counters.

    A momentum of zero adds nothing to a running statistic, and the kernels save the same tensors as before.
    """
    kept = [(norm, norm.momentum, norm._buffers.get("num_batches_tracked")) for norm in norms]
    try:
        for norm, _, _ in kept:
            norm.momentum = 0.0  # type: ignore[assignment]  # a float attribute, not a module
            norm._buffers["num_batches_tracked"] = None
        yield
    finally:
        for norm, momentum, counter in kept:
            norm.momentum = momentum
            norm._buffers["num_batches_tracked"] = counter


class _SameTwice:
    """Runs a function on the same arguments twice, or says why it cannot."""

    def __init__(self, forward: Callable[..., Any], name: str) -> None:
        self.forward = forward
        self.name = name
        self.versions: list[int] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, structure = tree_flatten((args, kwargs))
        before = _versions(leaves)
        if self.versions is not None and before != self.versions:
            self._refuse("is overwritten after it")
        # New containers: the function may rewrite the lists that it is given.
        args, kwargs = tree_unflatten(leaves, structure)
        outputs = self.forward(*args, **kwargs)
        if _versions(leaves) != before:
            self._refuse("is overwritten by it")
        self.versions = before
        return outputs

    def _refuse(self, what: str) -> None:
        raise UsageError(f"{self.name} cannot be recomputed: its input {what}; leave it out of the recompute lever.")


def _versions(leaves: Iterable[Any]) -> list[int]:
    return [leaf._version for leaf in leaves if isinstance(leaf, Tensor)]


@contextmanager
def _both(first: AbstractContextManager[Any], second: AbstractContextManager[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(first)
        stack.enter_context(second)
        yield


def _policy(_context: Any, operation: Any, *_args: Any, **_kwargs: Any) -> CheckpointPolicy:
    kept = is_kept(operation.overloadpacket.__name__)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def _keep_what_is_kept(module: nn.Module) -> None:
    """An activation that works in place would overwrite a convolution's output that is kept."""
    for part in module.modules():
        if getattr(part, "inplace", False) is True:
            part.inplace = False  # type: ignore[assignment]  # a bool attribute, not a module


def _members(model: nn.Module) -> dict[str, nn.Module]:
    """Whatever holds layers and sits in a container, or is a Sequential that is not part of such a member."""
    members: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        parent = model.get_submodule(name.rpartition(".")[0])
        in_container = isinstance(parent, _CONTAINERS)
        alone = isinstance(module, nn.Sequential) and not any(name.startswith(f"{other}.") for other in members)
        if name and (in_container or alone) and _has_layers(module):
            members[name] = module
    return members


def _has_layers(module: nn.Module) -> bool:
    return any(True for _ in module.children()) and any(weight.dim() > 1 for weight in module.parameters())


def _holds(name: str, names: Iterable[str]) -> bool:
    """Whether the named module holds another of the names."""
    return any(other.startswith(f"{name}.") for other in names)


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        known = ", ".join(find_recomputable(model).of_setting("module")[:4])
        raise UsageError(f"The network has no module '{name}' to recompute; it has {known} and more.") from None


def _refuse_nesting(names: Sequence[str]) -> None:
    for before, name in pairwise(sorted(names, key=lambda name: name.split("."))):
        if f"{name}.".startswith(f"{before}."):
            raise UsageError(f"{before} and {name} cannot both be recomputed: one holds the other.")
