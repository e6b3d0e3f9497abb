"""Traces a job's real step on tensors without storage: no card, and next to no memory, is needed.

Sizes in bytes. A storage's order of birth and death is that of the step on a card: parameters move over one by one,
optimizer state appears at the first step, gradients are dropped after each.
"""

import gc
import traceback
from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vramfit.choices import ASSUMED, ValuePolicy
from vramfit.jobs.batch import batch_size
from vramfit.jobs.job import Batch, Job, Tree
from vramfit.jobs.levers.apply import job_to_trace
from vramfit.jobs.repeatable_randomness import repeatable_randomness
from vramfit.jobs.step import Precision, Step
from vramfit.prediction.trace_records import Trace, TracePhase
from vramfit.prediction.tracing.absent_ranks import absent_ranks
from vramfit.prediction.tracing.address_space import release
from vramfit.prediction.tracing.card_places import CARD
from vramfit.prediction.tracing.compiled import compiled_runs_eagerly
from vramfit.prediction.tracing.cuda_emulation import cuda_everywhere, move_to_card
from vramfit.prediction.tracing.cuda_kernels import AMPERE
from vramfit.prediction.tracing.explained import explained, frame_of
from vramfit.prediction.tracing.flex_attention import fused_flex_attention
from vramfit.prediction.tracing.host_batch import traceable_batch
from vramfit.prediction.tracing.host_draws import extreme_draws
from vramfit.prediction.tracing.lasting_answers import LastingAnswers
from vramfit.prediction.tracing.long_memory import remember_all
from vramfit.prediction.tracing.model_building import built_without_memory
from vramfit.prediction.tracing.recorder import Recorder
from vramfit.prediction.tracing.step_lines import place
from vramfit.prediction.tracing.undecided import Undecided, largest_of_ways
from vramfit.prediction.tracing.unknown_numbers import largest_trace
from vramfit.units import MIB

_MOST_STEPS = 8  # that are traced while each leaves more behind than the one before it
_SAME = 1.001  # by less than this, a number or two that is kept of each step, nothing grows
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, None: None}


def trace_step(
    job: Job,
    micro_batch: int,
    *,
    steps: int = 2,
    validation: bool = True,
    capability: tuple[int, int] = AMPERE,
    policy: ValuePolicy = ASSUMED,
    uncast: Collection[str] = (),
) -> Trace:
    """Record `steps` optimizer steps of a job, and then a validation step, at one micro-batch.

    While a step leaves more behind than the one before it, up to 8 are recorded, and what grows on is said.
    `capability` is the compute capability of the card, which decides the kernels of attention; `uncast` names
    operations that autocast is to leave alone, as older versions of torch did. Of a job that
    several cards share, the step is that of the first. `policy` says what to do about values
    that only a card has; what was assumed is listed in the trace. Where a flag among them, or a number drawn at random,
    decides what runs, both ways are traced, and the one that holds more is returned. Validation that fails is traced up
    to there, and the list says so.

    Raises:
        NotTraceable: training fails on tensors without storage, the policy is strict and a value is read, or memory
            grows with a number of which nothing is known; names the operation and the line.

    """
    make = partial(_trace, job, micro_batch, steps=steps, validation=validation, capability=capability, uncast=uncast)
    return largest_of_ways(lambda undecided: largest_trace(partial(make, undecided), policy))


def _trace(
    job: Job,
    micro_batch: int,
    undecided: Undecided,
    policy: ValuePolicy,
    *,
    steps: int,
    validation: bool,
    capability: tuple[int, int],
    uncast: Collection[str],
) -> Trace:
    """One trace, as `trace_step` describes it."""
    job = job_to_trace(job)
    trace = Trace(micro_batch)
    with explained(job), repeatable_randomness():
        host = traceable_batch(job, micro_batch)
        recorder, lasting = Recorder(trace, capability, policy, undecided), LastingAnswers()
        with cuda_everywhere(capability, recorder, uncast), lasting.kept_true(), absent_ranks(job.cards, recorder):
            traced = _set_up(job, recorder)
            note = recorder.note
            with compiled_runs_eagerly(note), fused_flex_attention(note), extreme_draws(undecided, place):
                _run(traced, recorder, host, steps=steps, validation=validation)
        recorder.stop()
        release()
    order_frees(trace)
    return trace


def _run(traced: "TracedStep", recorder: Recorder, host: Batch, *, steps: int, validation: bool) -> None:
    with recorder:
        _train(traced, recorder, host, steps)
        recorder.mark("validation")
        if validation and traced.can_validate:
            recorder.phase = "validation"
            _validate(traced, recorder, host)
        recorder.mark("end")


def _train(traced: "TracedStep", recorder: Recorder, host: Batch, steps: int) -> None:
    """Trace so many steps, and some more while each leaves more behind: a memory of segments or a queue fills up."""
    left: list[int] = []
    while len(left) < steps or (len(left) < _MOST_STEPS and _grows(recorder, left)):
        recorder.mark(f"step {len(left) + 1}")
        traced.train(host, batch_size(host))
        left.append(recorder.allocated_bytes)
    if _grows(recorder, left):
        recorder.trace.assumptions.append(
            f"the step: it leaves {(left[-1] - left[-2]) / MIB:.2g} MiB more behind each time, also the {len(left)}th "
            "time, and no later step is traced"
        )


def _grows(recorder: Recorder, left: list[int]) -> bool:
    """Whether the last step left more behind than the one before it, garbage apart."""
    if len(left) < 2 or left[-1] <= left[-2] * _SAME:
        return False
    gc.collect()
    return recorder.allocated_bytes > left[-2] * _SAME


def _validate(traced: "TracedStep", recorder: Recorder, host: Batch) -> None:
    """Trace a validation step as far as it goes: a model may answer otherwise there than its training loss takes."""
    try:
        traced.validate(host)
    except Exception as error:
        if recorder.policy.strict:
            raise
        recorder.trace.assumptions.append(_left_out(error))


def _left_out(error: Exception) -> str:
    """Where validation ends, as an assumption; the tensors of its frames are freed."""
    frame, what = frame_of(error), f"{type(error).__name__}: {error}".splitlines()[0]
    traceback.clear_frames(error.__traceback__)
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    return f"{place}: validation is traced up to here, where it fails ({what[:120]})"


def order_frees(trace: Trace) -> None:
    """Give frees in a row one order: autocast empties its cache in the order of addresses, which is chance.

    The order makes no difference to an allocator: what is free afterwards is the same. What an operation lies between
    keeps its place.
    """
    events, start = trace.events, 0
    turns = {operation.position for operation in trace.operations}
    for position, event in enumerate([*events, 0]):
        if event >= 0 or position in turns:
            events[start:position] = sorted(events[start:position])
            start = position + (event >= 0)


class TracedScaler(torch.amp.GradScaler):
    """Allocates what a scaler does on a card, says when the backward pass begins, and never reads a value."""

    def __init__(self, recorder: Recorder, *, enabled: bool) -> None:
        super().__init__("cuda", enabled=enabled)
        self._recorder = recorder

    def scale(self, outputs: Any) -> Any:
        """Scale a loss; what follows is its backward pass."""
        scaled = super().scale(outputs)
        self._recorder.phase = "backward"
        return scaled

    def _maybe_opt_step(
        self,
        optimizer: torch.optim.Optimizer,
        optimizer_state: dict[str, Any],  # noqa: ARG002  # holds what the real scaler reads from the card
        *args: Any,
        **kwargs: Any,
    ) -> float | None:
        result: float | None = optimizer.step(*args, **kwargs)
        return result


class TracedStep(Step):
    """The step itself, with hooks that say which phase runs."""

    def __init__(self, job: Job, recorder: Recorder) -> None:
        self._recorder = recorder
        scaler = TracedScaler(recorder, enabled=job.amp == "fp16")
        super().__init__(job, CARD, precision=Precision(_DTYPES[job.amp], scaler))

    def backward(self, batch: Batch, micro_batch: int) -> Tensor:
        """Accumulate gradients; the sum of the losses comes first."""
        self._recorder.phase = "loss"
        loss = super().backward(batch, micro_batch)
        if self.closure is not None and self.closure.running:
            self._recorder.phase = "optimizer"
        return loss

    def update(self) -> None:
        """Update the weights, and note what the optimizer keeps."""
        self._recorder.phase = "optimizer"
        super().update()
        self._mark_state()

    def step_optimizer(self, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
        """Step one optimizer; in a step of a job's own, a forward pass may follow."""
        self._recorder.phase = "optimizer"
        super().step_optimizer(optimizer, parameters)
        if self.job.step is not None:
            self._recorder.phase = "forward"

    def _mark_state(self) -> None:
        for value in tree_leaves(list(self.optimizer.state.values())):
            if isinstance(value, Tensor):
                self._recorder.mark_kind(value, "optimizer state")

    def to_card(self, module: nn.Module) -> None:
        """Move what is not there yet to the card of the trace."""
        move_to_card(module, self._recorder)

    def _to_device(self, value: Tensor) -> Tensor:
        return self._recorder.move(value, "input")

    def _prepare(self, batch: Batch, *, training: bool) -> tuple[Tree, Tree]:
        after: TracePhase = "forward" if training else "validation"
        self._recorder.phase = "input" if training else "validation"
        prepared = super()._prepare(batch, training=training)
        self._recorder.phase = after
        return prepared


def _set_up(job: Job, recorder: Recorder) -> TracedStep:
    model = built_without_memory(job, real=recorder.policy.real)
    with recorder:
        loss = None if job.loss is None else _marked(job.loss, recorder)
        traced = TracedStep(replace(job, model=lambda: model, loss=loss), recorder)
        _mark_network(recorder, model)
        if isinstance(traced.optimizer, torch.optim.LBFGS):
            recorder.trace.assumptions.append(remember_all(traced.optimizer))
        if traced.average is not None:
            for value in traced.average.model.state_dict().values():
                recorder.mark_kind(value, "average")
            recorder.running.watch(traced.average.model)
    recorder.running.watch(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda owner: _mark_gradient(recorder, owner))
    return traced


def _mark_network(recorder: Recorder, model: nn.Module) -> None:
    """Another memory order moves weights to new storages, which are the network's none the less."""
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            recorder.mark_kind(parameter, "parameter", name)
        for buffer in module.buffers(recurse=False):
            recorder.mark_kind(buffer, "buffer", name)


def _mark_gradient(recorder: Recorder, owner: Tensor) -> None:
    if owner.grad is not None:
        recorder.mark_kind(owner.grad, "gradient")


def _marked(loss: Any, recorder: Recorder) -> Any:
    def marked(outputs: Any, targets: Any) -> Tensor:
        if recorder.phase == "forward":
            recorder.begin_loss()
        result: Tensor = loss(outputs, targets)
        return result

    return marked
