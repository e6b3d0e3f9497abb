"""Levers applied to a job: its settings, its network, its optimizer and the allocator.

`vramfit.jobs.step.Step` calls these, so a job with levers is predicted, measured and trained with them alike.
"""

import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vramfit.errors import NotTraceable, UsageError
from vramfit.jobs.compiled import compile_network
from vramfit.jobs.job import Job, empty_model
from vramfit.jobs.recompute import find_recomputable, recompute
from vramfit.plan.levers import in_order
from vramfit.records import Amp, Lever

_AMP: dict[str, Amp | None] = {"fp16": "fp16", "bf16": "bf16", "off": None}


def setting_of(levers: Iterable[Lever], name: str) -> str | None:
    """What a lever is set to, None where it is not used."""
    return next((lever.setting for lever in levers if lever.name == name), None)


def settled(job: Job) -> Job:
    """The job with the settings that its levers ask for: AMP, memory order, optimizer.

    Raises:
        UsageError: a lever that makes no sense.

    """
    levers = in_order(job.levers)
    amp, channels_last = setting_of(levers, "amp"), setting_of(levers, "channels_last")
    return replace(
        job,
        levers=levers,
        amp=_AMP[amp] if amp else job.amp,
        channels_last=channels_last == "on" if channels_last else job.channels_last,
        optimizer=FusedOptimizer(job.optimizer) if setting_of(levers, "fused_optimizer") else job.optimizer,
    )


def on_card(job: Job) -> Job:
    """The settled job as the card sees it, operation by operation: without what its levers keep on the host.

    Raises:
        NotTraceable: its step is compiled.

    """
    job = settled(job)
    if setting_of(job.levers, "compile"):
        raise NotTraceable(
            f"the step of '{job.name}' is compiled: torch.compile fuses operations and chooses what to keep only once "
            "it runs, so nothing can be predicted; measure it on a card, or leave the compile lever away."
        )
    return replace(job, ema_decay=None) if setting_of(job.levers, "ema_on_host") else job


def free_levers(job: Job) -> tuple[Lever, ...]:
    """The levers that cost this job nothing and that it does not use yet."""
    job = settled(job)
    optimizer = job.optimizer([nn.Parameter(torch.zeros(1))])
    upsamples = any(isinstance(module, nn.Upsample) for module in empty_model(job).modules())
    found = {
        "expandable_segments": sys.platform != "win32",
        "half_upsample": job.amp is not None and upsamples,
        "fused_optimizer": optimizer.defaults.get("fused", True) in (False, None),
    }
    used = {lever.name for lever in job.levers}
    return tuple(Lever(name=name) for name, helps in found.items() if helps and name not in used)


def apply_levers(model: nn.Module, levers: Iterable[Lever]) -> None:
    """Make a network, in place, upsample in half precision, recompute and compile where the levers say so.

    Raises:
        UsageError: a module that the network does not have, or that cannot be recomputed; or no compiler.

    """
    for lever in levers:
        if lever.name == "half_upsample":
            _keep_upsampling_half(model)
        elif lever.name == "recompute":
            names = lever.modules or find_recomputable(model).of_setting(lever.setting)
            recompute(model, names, selective=lever.setting == "selective")
        elif lever.name == "compile":
            compile_network(model, int(lever.setting) / 100)


def apply_allocator(levers: Iterable[Lever], device: torch.device) -> None:
    """Set the CUDA caching allocator up as the levers ask; before the first tensor on the card.

    Does nothing where the allocator knows no expandable segments: other devices, and Windows.
    """
    if device.type == "cuda" and sys.platform != "win32" and setting_of(levers, "expandable_segments"):
        torch._C._accelerator_setAllocatorSettings(_with_expandable_segments(os.environ))


def _with_expandable_segments(environment: Mapping[str, str]) -> str:
    """The allocator's settings of the environment, with expandable segments.

    Torch puts every option that it is not given back to its default, so those of the environment are given again.
    """
    given = environment.get("PYTORCH_ALLOC_CONF") or environment.get("PYTORCH_CUDA_ALLOC_CONF") or ""
    kept = [part for part in given.split(",") if part and not part.startswith("expandable_segments")]
    return ",".join([*kept, "expandable_segments:True"])


@dataclass(frozen=True)
class FusedOptimizer:
    """An optimizer factory whose optimizer takes each step in one kernel; pickles where the factory does.

    A fused optimizer also reads the scaler's verdict on the card, so the step waits for nothing.
    """

    build: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of these parameters, fused."""
        optimizer = self.build(parameters)
        if "fused" not in optimizer.defaults:
            raise UsageError(f"{type(optimizer).__name__} has no fused form; leave the fused_optimizer lever away.")
        return optimizer if optimizer.defaults["fused"] else _rebuilt(optimizer)


def _rebuilt(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The same optimizer made anew: its constructor is where torch prepares a fused step."""
    fused = {"foreach": False, "fused": True}
    make: Any = type(optimizer)
    known = inspect.signature(make).parameters
    defaults = {key: value for key, value in {**optimizer.defaults, **fused}.items() if key in known}
    return make([{**group, **fused} for group in optimizer.param_groups], **defaults)  # type: ignore[no-any-return]


class HalfUpsample:
    """The forward of an upsampling without autocast: its kernels work in float32 and round once, as autocast would."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, value: Tensor) -> Tensor:
        """BxCxHxW -> BxCxsHxsW, in the dtype that comes in."""
        forward = partial(type(self.module).forward, self.module)
        with torch.autocast(value.device.type, enabled=False):
            upsampled: Tensor = forward(value)
        return upsampled


def _keep_upsampling_half(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Upsample):
            module.forward = HalfUpsample(module)  # type: ignore[method-assign,assignment]  # survives a deep copy
