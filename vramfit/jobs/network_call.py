"""How a batch reaches a network's `forward`, and how a loss is found in what it returns.

A tuple is several arguments where `forward` takes as many, a dict is keywords where `forward` has such names, anything
else is one argument. Of a whole batch, a dict, the network takes the names that it has, and the loss gets all.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vramfit.errors import UsageError
from vramfit.jobs.job import Tree


def call_network(network: nn.Module, inputs: Tree, *, of_whole_batch: bool = False) -> Any:
    """What a network returns of inputs.

    Raises:
        UsageError: its `forward` takes other arguments; says which.

    """
    signature = _signature(network)
    if signature is None:
        return network(inputs)
    for arguments, keywords in _ways(signature, inputs, of_whole_batch=of_whole_batch):
        try:
            signature.bind(*arguments, **keywords)
        except TypeError:
            continue
        return network(*arguments, **keywords)
    raise UsageError(
        f"forward of {type(network).__name__} takes {_names(signature)}, and batch gives it {describe(inputs)}; return "
        "((first, second), targets) from batch for several arguments, or a dict with their names."
    )


def loss_in(outputs: Any, job: str) -> Tensor:
    """The loss that a network returned: itself, its `loss`, the first of a tuple, or the sum of a dict of losses.

    Raises:
        UsageError: there is none.

    """
    found = find_loss(outputs)
    if found is None:
        raise UsageError(
            f"The network of '{job}' returns {describe(outputs)}, and no loss is among it; give "
            "loss=lambda outputs, targets: ..., or labels in the batch for a model that computes its loss from them."
        )
    return found


def find_loss(outputs: Any) -> Tensor | None:
    """The loss in what a network returned, None where there is none."""
    if isinstance(outputs, Tensor):
        return outputs if outputs.numel() == 1 else None
    named = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    if isinstance(named, Tensor):
        return named
    if isinstance(outputs, Mapping) and outputs and all(_is_scalar(part) for part in outputs.values()):
        return sum(outputs.values())  # type: ignore[return-value]  # tensors, of which there is one at least
    if isinstance(outputs, tuple) and outputs and _is_scalar(outputs[0]):
        return outputs[0]  # type: ignore[no-any-return]  # a tensor, as is known here
    return None


def describe(value: Any) -> str:
    """What a value is, in a few words: `a dict of input_ids 4x8, labels 4`."""
    if isinstance(value, Tensor):
        return f"a tensor {_shape(value)}"
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(f'{key} {_shape(part)}' for key, part in value.items())}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def left_out(network: Any, inputs: Tree) -> tuple[str, ...]:
    """The arguments of a network's `forward` that it was not given, by name; those that have a default alone."""
    signature = _signature(network) if isinstance(network, nn.Module) else None
    if signature is None:
        return ()
    for arguments, keywords in _ways(signature, inputs, of_whole_batch=True):
        try:
            given = signature.bind(*arguments, **keywords).arguments
        except TypeError:
            continue
        named = [name for name, one in signature.parameters.items() if one.kind is not one.VAR_KEYWORD]
        return tuple(name for name in named if name not in given)
    return ()


def _signature(network: nn.Module) -> inspect.Signature | None:
    """What forward takes, None where it does not say, as a compiled script."""
    try:
        return inspect.signature(network.forward)
    except (TypeError, ValueError):
        return None


def _ways(signature: inspect.Signature, inputs: Tree, *, of_whole_batch: bool) -> list[tuple[Any, dict[str, Any]]]:
    """Arguments and keywords to try, in order."""
    whole: tuple[Any, dict[str, Any]] = ((inputs,), {})
    if type(inputs) is tuple:
        return [(inputs, {}), whole]
    if not isinstance(inputs, Mapping) or not all(isinstance(key, str) for key in inputs):
        return [whole]
    known = {key: value for key, value in inputs.items() if key in signature.parameters}
    ways = [((), dict(inputs))]
    if of_whole_batch and known:
        ways.append(((), known))
    return [*ways, whole]


def _names(signature: inspect.Signature) -> str:
    needed = [p.name for p in signature.parameters.values() if p.default is p.empty and p.kind < p.VAR_KEYWORD]
    return f"({', '.join(needed)})"


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1


def _shape(value: Any) -> str:
    return "x".join(map(str, value.shape)) if isinstance(value, Tensor) else type(value).__name__
