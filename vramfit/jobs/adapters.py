"""A network with LoRA adapters on its linear layers: only they learn."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from torch import nn

from vramfit.errors import UsageError

_ADAPTER = "lora_"


@dataclass(frozen=True)
class Adapted:
    """A network's factory with adapters of one rank put in; pickles where the factory does.

    A network that has adapters already is left as it is.
    """

    build: Callable[[], nn.Module]
    rank: int

    def __call__(self) -> nn.Module:
        """The network.

        Raises:
            UsageError: peft is not installed, or the network has no linear layer.

        """
        model = self.build()
        if any(_ADAPTER in name for name, _ in model.named_parameters()):
            return model
        if find_spec("peft") is None:
            raise UsageError("lora puts in peft's adapters, and peft is not installed: pip install peft.")
        names = adaptable(model)
        if not names:
            raise UsageError(f"{type(model).__name__} has no linear layer that lora could adapt; leave the lever out.")
        from peft import LoraConfig, inject_adapter_in_model

        config = LoraConfig(r=self.rank, lora_alpha=2 * self.rank, target_modules=names)
        adapted: nn.Module = inject_adapter_in_model(config, model)
        return adapted


def adaptable(model: nn.Module) -> list[str]:
    """The linear layers that adapters go on: all but a language model's output."""
    outputs: Any = getattr(model, "get_output_embeddings", lambda: None)
    last = outputs()
    return [name for name, part in model.named_modules() if name and _is_linear(part) and part is not last]


def _is_linear(module: nn.Module) -> bool:
    # GPT-2's layers are a class of transformers, with the weight the other way round.
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def suits(model: nn.Module) -> bool:
    """Whether most of what learns is in linear layers that could have adapters, and none are there."""
    if any(_ADAPTER in name for name, _ in model.named_parameters()):
        return False
    learning = sum(one.numel() for one in model.parameters() if one.requires_grad)
    return 2 * sum(model.get_parameter(f"{name}.weight").numel() for name in adaptable(model)) > learning
