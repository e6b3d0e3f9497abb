"""`torch.set_default_device` for a script that believes in a card.

Torch applies its own default last, when a new tensor's place has been filled in already; here it is applied first, as
`with torch.device(...)` is.
"""

from collections.abc import Callable
from typing import Any

import torch


class DefaultDevice:
    """The default that a script sets, None for the host."""

    def __init__(self) -> None:
        self._place: torch.device | None = None

    def answers(self) -> dict[str, Callable[..., Any]]:
        """Replacements for torch's functions of the same names."""
        return {
            "set_default_device": self.set,
            "get_default_device": lambda: self._place or torch.device("cpu"),
            "set_default_tensor_type": self._set_type,
        }

    def set(self, device: Any) -> None:
        """Make new tensors there unless they say otherwise."""
        if self._place is not None:
            self._place.__exit__(None, None, None)
            self._place = None
        if device is not None and torch.device(device).type == "cuda":
            self._place = torch.device(device)
            self._place.__enter__()

    def _set_type(self, kind: Any) -> None:
        """`torch.cuda.FloatTensor` names a device and a dtype at once."""
        name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__name__}"
        types = {"HalfTensor": torch.float16, "BFloat16Tensor": torch.bfloat16, "DoubleTensor": torch.float64}
        self.set("cuda" if ".cuda." in name else None)
        torch.set_default_dtype(types.get(name.rpartition(".")[2], torch.float32))
