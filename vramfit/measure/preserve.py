"""Leaving a process as it was found: random states and global switches that a trial in it would change."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vramfit.jobs.random_state import CPU, random_state, set_random_state

# Switches of torch that a step, or a user's model, may turn: how to read one and how to set it back.
_Switch = tuple[Callable[[], Any], Callable[[Any], Any]]


@contextmanager
def preserved() -> Iterator[None]:
    """Restore python's, numpy's, torch's and CUDA's random states and torch's global switches on the way out."""
    switches = [(get, put, get()) for get, put in _switches()]
    host_state = random_state(CPU)
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        set_random_state(host_state, CPU)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)
        for get, put, value in switches:
            if get() != value:  # setting one may load much of torch
                put(value)


def _switches() -> list[_Switch]:
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
