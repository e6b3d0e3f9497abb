"""Traces a job's real step on tensors without storage: no card, and next to no memory, is needed.

Sizes in bytes. A storage's order of birth and death is that of the step on a card: parameters move over one by one,
optimizer state appears at the first step, gradients are dropped after each.
"""

import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch.optim import optimizer as optimizers
from torch.utils import _foreach_utils
from torch.utils._pytree import tree_leaves, tree_map

from vramfit.errors import NotTraceable, VramfitError
from vramfit.jobs.job import Batch, Job
from vramfit.jobs.levers import on_card
from vramfit.jobs.step import Precision, Step
from vramfit.prediction.autocast import cuda_autocast
from vramfit.prediction.record import Kind, Trace, TracePhase
from vramfit.prediction.recorder import Recorder

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, None: None}


def trace_step(job: Job, micro_batch: int, *, steps: int = 2, validation: bool = True) -> Trace:
    """Record `steps` optimizer steps of a job, and then a validation step, at one micro-batch.

    Raises:
        NotTraceable: the step reads a value back, has a shape that depends on values, or fails on tensors
            without storage; names the operation and the line.

    """
    job = on_card(job)
    host = job.batch(micro_batch)
    trace = Trace(micro_batch)
    with _explained(job), _storageless() as mode:
        recorder = Recorder(trace)
        traced = _set_up(job, recorder)
        batch = tree_map(lambda value: _host_tensor(mode, recorder, value), host)
        with recorder:
            for number in range(steps):
                recorder.mark(f"step {number + 1}")
                traced.train(batch, micro_batch)
            recorder.mark("validation")
            if validation:
                recorder.phase = "validation"
                traced.validate(batch)
            recorder.mark("end")
    del trace.events[trace.marks["end"] :]
    _order_frees(trace.events)
    return trace


def _order_frees(events: list[int]) -> None:
    """Give frees in a row one order: autocast empties its cache in the order of addresses, which is chance.

    The order makes no difference to an allocator: what is free afterwards is the same.
    """
    start = 0
    for position, event in enumerate([*events, 0]):
        if event >= 0:
            events[start:position] = sorted(events[start:position])
            start = position + 1


class TracedScaler(torch.amp.GradScaler):
    """Allocates what a scaler does on a card, says when the backward pass begins, and never reads a value."""

    def __init__(self, recorder: Recorder, *, enabled: bool) -> None:
        super().__init__("cpu", enabled=enabled)
        self._recorder = recorder

    def scale(self, outputs: Any) -> Any:
        """Scale a loss; what follows is its backward pass."""
        scaled = super().scale(outputs)
        self._recorder.phase = "backward"
        return scaled

    def _lazy_init_scale_growth_tracker(self, dev: torch.device) -> None:
        # Filled on the card, where a scaler on a CPU makes host tensors.
        self._scale = torch.full((), self._init_scale, dtype=torch.float32, device=dev)
        self._growth_tracker = torch.full((), self._init_growth_tracker, dtype=torch.int32, device=dev)

    def _maybe_opt_step(self, optimizer: torch.optim.Optimizer, state: Any, *args: Any, **kwargs: Any) -> Any:
        return optimizer.step(*args, **kwargs)


class TracedStep(Step):
    """The step itself, with hooks that say which phase runs."""

    def __init__(self, job: Job, recorder: Recorder) -> None:
        self._recorder = recorder
        scaler = TracedScaler(recorder, enabled=job.amp == "fp16")
        super().__init__(job, "cpu", precision=Precision(_DTYPES[job.amp], scaler))

    def update(self) -> None:
        """Update the weights, and note what the optimizer keeps."""
        self._recorder.phase = "optimizer"
        super().update()
        for value in tree_leaves(list(self.optimizer.state.values())):
            if isinstance(value, Tensor):
                self._recorder.mark_kind(value, "optimizer state")

    def _to_device(self, value: Tensor) -> Tensor:
        return value.clone()

    def _prepare(self, batch: Batch, *, training: bool) -> Batch:
        after: TracePhase = "forward" if training else "validation"
        self._recorder.phase = "input" if training else "validation"
        prepared = super()._prepare(batch, training=training)
        self._recorder.phase = after
        return prepared


def _set_up(job: Job, recorder: Recorder) -> TracedStep:
    model = job.model()
    _move_over(model, recorder)
    with recorder:
        traced = TracedStep(replace(job, model=lambda: model, loss=_marked(job.loss, recorder)), recorder)
        if traced.average is not None:
            for value in traced.average.model.state_dict().values():
                recorder.mark_kind(value, "average")
            recorder.watch_modules(traced.average.model)
    recorder.watch_modules(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda owner: _mark_gradient(recorder, owner))
    return traced


def _mark_gradient(recorder: Recorder, owner: Tensor) -> None:
    if owner.grad is not None:
        recorder.mark_kind(owner.grad, "gradient")


def _marked(loss: Any, recorder: Recorder) -> Any:
    def marked(outputs: Any, targets: Any) -> Tensor:
        if recorder.phase == "forward":
            recorder.phase = "loss"
        result: Tensor = loss(outputs, targets)
        return result

    return marked


def _move_over(model: nn.Module, recorder: Recorder) -> None:
    """Allocate parameters and buffers in the order in which `Module.to` moves them."""
    for name, module in _children_first(model, ""):
        for kind, tensors in (("parameter", module._parameters), ("buffer", module._buffers)):
            for tensor in tensors.values():
                if tensor is not None:
                    recorder.mark_device(tensor, _kind(kind), name)


def _kind(name: str) -> Kind:
    return "parameter" if name == "parameter" else "buffer"


def _children_first(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    for child_name, child in module.named_children():
        yield from _children_first(child, f"{name}.{child_name}" if name else child_name)
    yield name, module


def _host_tensor(mode: fake_tensor.FakeTensorMode, recorder: Recorder, value: Tensor) -> Tensor:
    tensor: Tensor = mode.from_tensor(value)
    recorder.mark_host(tensor)
    return tensor


@contextmanager
def _storageless() -> Iterator[fake_tensor.FakeTensorMode]:
    """Tensors without storage, CUDA's autocast, and the optimizers that CUDA would get."""
    mode = fake_tensor.FakeTensorMode(allow_non_fake_inputs=True)
    benchmark = torch.backends.cudnn.benchmark
    with ExitStack() as stack:
        stack.callback(setattr, torch.backends.cudnn, "benchmark", benchmark)
        stack.enter_context(cuda_autocast())
        stack.enter_context(_foreach_everywhere())
        stack.callback(setattr, nn.Module, "to", nn.Module.to)
        nn.Module.to = _to  # type: ignore[method-assign,assignment]  # torch's own refuses tensors without storage
        stack.callback(_restore_deepcopy, fake_tensor.FakeTensor.__dict__.get("__deepcopy__"))
        fake_tensor.FakeTensor.__deepcopy__ = _deepcopy
        stack.enter_context(mode)
        yield mode


def _deepcopy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    if id(tensor) not in memo:
        copy = tensor.detach().clone()
        parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(copy, tensor.requires_grad) if parameter else copy
    copied: Tensor = memo[id(tensor)]
    return copied


def _restore_deepcopy(own: Any) -> None:
    if own is None:
        del fake_tensor.FakeTensor.__deepcopy__
    else:
        fake_tensor.FakeTensor.__deepcopy__ = own


def _to(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """`Module.to` for tensors without storage: the same conversions, in the same order."""
    _, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
    for _, part in _children_first(module, ""):
        for tensor in (*part._parameters.values(), *part._buffers.values()):
            if tensor is None:
                continue
            if layout is not None and tensor.dim() in (4, 5):
                tensor.data = tensor.data.to(memory_format=layout)
            if dtype is not None and tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)
    return module


@contextmanager
def _foreach_everywhere() -> Iterator[None]:
    """Optimizers and clipping choose foreach for tensors that say they are on a CPU, as they would on a card."""
    real = _foreach_utils._get_foreach_kernels_supported_devices
    known = (*real(), "cpu")
    types = optimizers._foreach_supported_types
    for module in (optimizers, _foreach_utils):
        module._get_foreach_kernels_supported_devices = lambda: list(known)
    types.append(fake_tensor.FakeTensor)
    try:
        yield
    finally:
        types.remove(fake_tensor.FakeTensor)
        for module in (optimizers, _foreach_utils):
            module._get_foreach_kernels_supported_devices = real


@contextmanager
def _explained(job: Job) -> Iterator[None]:
    try:
        yield
    except VramfitError:
        raise
    except Exception as error:
        raise NotTraceable(_explanation(job, error)) from error


def _explanation(job: Job, error: Exception) -> str:
    operation = getattr(error, "func", None)
    reads = isinstance(error, (fake_tensor.DataDependentOutputException, fake_tensor.DynamicOutputShapeException))
    what = f"{operation} needs values that only a card has" if reads else f"{type(error).__name__}: {error}".strip()
    advice = "write it without reading values (torch.where in place of a mask or .item())" if reads else "fix that line"
    return f"the step of '{job.name}' cannot be traced at {_user_line(error)}: {what}; {advice}, or measure on a card."


def _user_line(error: Exception) -> str:
    """The last line of the traceback that is neither torch's nor the tracer's."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        frame
        for frame in frames
        if "/torch/" not in frame.filename.replace("\\", "/") and "prediction" not in frame.filename
    ]
    frame = ours[-1] if ours else frames[-1]
    return f"{frame.filename}:{frame.lineno} `{frame.line}`"
