"""Lazy modules (`nn.LazyLinear` and its kin), which learn their shapes from the first batch that they see."""

from itertools import chain

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from vramfit.jobs.batch import pair_of, sample_batch
from vramfit.jobs.job import Job
from vramfit.jobs.network_call import call_network

_SAMPLES = 2


@torch.no_grad()
def initialise_lazy(model: nn.Module, job: Job) -> None:
    """Give a network's lazy modules their shapes by one forward pass of two samples; nothing else of it changes.

    An optimizer, an average and a checkpoint need parameters that exist.
    """
    tensors = chain(model.parameters(), model.buffers())
    if not any(isinstance(tensor, (UninitializedParameter, UninitializedBuffer)) for tensor in tensors):
        return
    inputs, targets = pair_of(sample_batch(job, _SAMPLES))
    if job.prepare is not None:
        inputs, targets = job.prepare(inputs, targets, False)
    whole = inputs is targets
    training = model.training
    call_network(model.eval(), inputs, of_whole_batch=whole and job.loss is not None)
    model.train(training)
