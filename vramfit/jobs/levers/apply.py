"""Levers used on a job: its settings, its network, its step, its trace and the allocator.

`vramfit.jobs.step.Step` calls these, so a job with levers is predicted, measured and trained with them alike.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from vramfit.allocator_environment import with_options
from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import kind_of, kinds
from vramfit.jobs.levers.text import in_order
from vramfit.records import JobKey, Lever

if TYPE_CHECKING:
    import torch
    from torch import nn

    from vramfit.cards import Card
    from vramfit.jobs.job import Job
    from vramfit.jobs.step import Step


def settled(job: "Job") -> "Job":
    """The job with the settings that its levers ask for: AMP, memory order, optimizer.

    Raises:
        UsageError: a lever that makes no sense.

    """
    job = replace(job, levers=in_order(job.levers))
    for kind, lever in _used(job.levers):
        job = kind.on_job(job, lever)
    return job


def settled_key(key: JobKey, levers: Iterable[Lever]) -> JobKey:
    """What a profile says of its job, with the settings of levers in place of the job's own."""
    for kind, lever in _used(levers):
        fields = kind.job_fields(lever)
        key = key.model_copy(update={name: value for name, value in fields.items() if name in JobKey.model_fields})
    return key


def job_to_trace(job: "Job") -> "Job":
    """The settled job as the card sees it, operation by operation: without what its levers keep on the host.

    Raises:
        NotTraceable: its step is compiled.

    """
    job = settled(job)
    for kind, lever in _used(job.levers):
        job = kind.on_trace(job, lever)
    return job


def available(levers: Iterable[Lever]) -> tuple[Lever, ...]:
    """Those of some levers that this machine knows."""
    return tuple(lever for kind, lever in _used(levers) if kind.is_available())


def free_levers(job: "Job", model: "nn.Module | None" = None) -> tuple[Lever, ...]:
    """The levers that cost this job nothing and that it does not use yet.

    `model` is the job's network, on tensors without memory; it is built where none is given.
    """
    from vramfit.jobs.job import empty_model

    job = settled(job)
    model = model or empty_model(job)
    free = [kind for kind in _unused(job.levers) if kind.is_free_for(job, model)]
    return tuple(Lever(name=kind.name, setting=kind.settings[0]) for kind in free)


def levers_to_compare(job: "Job", card: "Card", model: "nn.Module") -> tuple[Lever, ...]:
    """The levers that the job does not use yet and that may make its step on a card faster, or slower.

    `model` is the job's network, on tensors without memory.
    """
    job = settled(job)
    open_ones = [kind for kind in _unused(job.levers) if kind.may_be_faster(job, card, model)]
    return tuple(Lever(name=kind.name, setting=kind.settings[0]) for kind in open_ones)


def levers_that_may_save(job: "Job", model: "nn.Module") -> tuple[Lever, ...]:
    """The levers that the job does not use yet and that may save memory of it at some cost; recomputation apart.

    `model` is the job's network, on tensors without memory.
    """
    job = settled(job)
    saving = [kind for kind in _unused(job.levers) if kind.may_save(job, model)]
    return tuple(Lever(name=kind.name, setting=kind.settings[0]) for kind in saving)


def in_conflict(levers: Iterable[Lever], others: Iterable[Lever]) -> bool:
    """Whether one of the levers cannot be used beside one of the others."""
    first, second = ({kind.name: kind for kind, _ in _used(several)} for several in (levers, others))
    return any(
        set(kind.conflicts) & set(against)
        for these, against in ((first, second), (second, first))
        for kind in these.values()
    )


def accumulates(levers: Iterable[Lever]) -> bool:
    """Whether gradients of several micro-batches can be added up with the levers."""
    return all(kind.accumulates for kind, _ in _used(levers))


def shards(levers: Iterable[Lever]) -> bool:
    """Whether a card holds a part of each weight with the levers."""
    return any(kind.shards for kind, _ in _used(levers))


def communicating(levers: Iterable[Lever]) -> tuple[str, ...]:
    """The names of levers with which ranks wait for each other within a forward and backward pass."""
    return tuple(kind.name for kind, _ in _used(levers) if kind.communicates)


def levers_to_measure(job: "Job", model: "nn.Module", *, predicted: Collection[str]) -> tuple[Lever, ...]:
    """Levers to try on a card beside the job as it is; `predicted` are the names of those that a prediction chose."""
    found = (kind.to_measure(job, model, is_predicted=kind.name in predicted) for kind in kinds())
    return tuple(lever for lever in found if lever is not None)


def apply_to_placement(step: "Step", levers: Iterable[Lever]) -> None:
    """Bring a step's network to its device as its levers say, before the rest of it is moved there.

    Raises:
        UsageError: the network or the machine cannot do it.

    """
    for kind, lever in _used(levers):
        kind.on_placement(step, lever)


def apply_to_network(model: "nn.Module", levers: Iterable[Lever]) -> None:
    """Change a network in place as its levers say.

    Raises:
        UsageError: a module that the network does not have, or that cannot be recomputed; or no compiler.

    """
    for kind, lever in _used(levers):
        kind.on_network(model, lever)


def apply_to_step(step: "Step", levers: Iterable[Lever]) -> None:
    """Change a step in place, once all of it is built."""
    for kind, lever in _used(levers):
        kind.on_step(step, lever)


def allocator_options(levers: Iterable[Lever]) -> str:
    """What levers ask of the CUDA caching allocator, as PYTORCH_ALLOC_CONF has it; empty for nothing."""
    return ",".join(options for kind, lever in _used(levers) if (options := kind.allocator_options(lever)))


def apply_to_allocator(levers: Iterable[Lever], device: "torch.device") -> None:
    """Set the CUDA caching allocator up as the levers ask; before the first tensor on the card.

    Does nothing on other devices, and leaves out what the allocator of this system does not know.
    """
    options = allocator_options(available(levers))
    if device.type == "cuda" and options:
        import torch

        torch._C._accelerator_setAllocatorSettings(with_options(os.environ, options))


def _used(levers: Iterable[Lever]) -> Iterator[tuple[LeverKind, Lever]]:
    return ((kind_of(lever.name), lever) for lever in levers)


def _unused(levers: Iterable[Lever]) -> list[LeverKind]:
    """What could be used beside levers on this machine."""
    levers = tuple(levers)
    used = {lever.name for lever in levers}
    others = [kind for kind in kinds() if kind.name not in used and kind.is_available()]
    return [kind for kind in others if not in_conflict((Lever(name=kind.name),), levers)]
