"""Leaving a process as it was found: random states and global switches that a trial in it would change."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Switches of torch that a step, or a user's model, may turn: how to read one and how to set it back.
_Switch = tuple[Callable[[], Any], Callable[[Any], Any]]


@contextmanager
def preserved() -> Iterator[None]:
    """Restore python's, numpy's, torch's and CUDA's random states and torch's global switches on the way out."""
    import torch

    switches = [(put, get()) for get, put in _switches()]
    python_state = random.getstate()
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy else None
    torch_state = torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python_state)
        if numpy and numpy_state:
            numpy.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)
        for put, value in switches:
            put(value)


def _switches() -> list[_Switch]:
    import torch

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return [
        (lambda: cudnn.benchmark, lambda value: setattr(cudnn, "benchmark", value)),
        (lambda: cudnn.deterministic, lambda value: setattr(cudnn, "deterministic", value)),
        (lambda: cudnn.enabled, lambda value: setattr(cudnn, "enabled", value)),
        (
            lambda: matmul.allow_fp16_reduced_precision_reduction,
            lambda value: setattr(matmul, "allow_fp16_reduced_precision_reduction", value),
        ),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.is_grad_enabled, torch._C._set_grad_enabled),
        (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    ]
