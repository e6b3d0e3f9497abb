"""Recurrent layers are one call of cuDNN; what they return, keep and take, in bytes."""

import pytest
import torch
from made_storages import made
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.cuda_emulation import cuda_everywhere
from vramfit.prediction.tracing.recorder import Recorder
from vramfit.prediction.tracing.recurrent import META_KERNELS, forward_workspace

B, T, W, H = 6, 10, 16, 32
FLOAT = 4
# Of every step and unit of a layer: gates, cell and the like.
KEPT = {"RNN": 1, "LSTM": 5, "GRU": 6}


def traced(layer, *shape, amp=None, packed=False):
    """A trace of a layer and its backward pass, and the output."""
    trace = Trace(B)
    recorder = Recorder(trace)
    layer = layer.to("meta")
    with cuda_everywhere(), recorder, torch.autocast("cpu", dtype=amp or torch.float16, enabled=amp is not None):
        for module in layer.modules():
            for name, parameter in list(module._parameters.items()):
                module._parameters[name] = nn.Parameter(recorder.move(parameter.detach(), "parameter"))
            if isinstance(module, nn.RNNBase):
                module._init_flat_weights()
        value = recorder.move(torch.empty(shape), "input").requires_grad_()
        if packed:
            value = pack_padded_sequence(value, torch.arange(T, T - B, -1), batch_first=True)
        recorder.mark("forward")
        out = layer(value)[0]
        out = out.data if packed else out
        recorder.mark("backward")
        if layer.training:
            out.sum().backward()
        recorder.mark("end")
    return trace, out


def names(trace):
    return [operation.name for operation in trace.operations if "rnn" in operation.name or "thnn" in operation.name]


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (3, False), (2, True)])
def test_a_layer_is_one_call_and_keeps_its_gates(kind, layers, bidirectional) -> None:
    layer = getattr(nn, kind)(W, H, layers, bidirectional=bidirectional)
    trace, out = traced(layer, T, B, W)
    directions = 1 + bidirectional
    assert names(trace) == ["_cudnn_rnn", "_cudnn_rnn_backward"]
    assert out.shape == (T, B, directions * H)
    rows = T * B * directions * H * FLOAT
    assert made(trace, "_cudnn_rnn")[0] == rows
    reserve = rows * (KEPT[kind] * layers + layers - 1)
    assert reserve in made(trace, "_cudnn_rnn")
    gradients = made(trace, "_cudnn_rnn_backward")
    assert all(weight.numel() * FLOAT in gradients for weight in layer.parameters())


@pytest.mark.parametrize(
    ("kind", "mode", "reserve", "workspace"), [("LSTM", 2, 736e6, 17730560), ("GRU", 3, 864e6, 13169920)]
)
def test_published_sizes(kind, mode, reserve, workspace) -> None:
    """4 layers of 320 units, 123 inputs, 250 steps of 100 samples (pytorch/pytorch#2895)."""
    layer = getattr(nn, kind)(123, 320, 4, device="meta")
    value, state = torch.empty(250, 100, 123, device="meta"), torch.empty(4, 100, 320, device="meta")
    cell = state if kind == "LSTM" else None
    args = (value, layer._flat_weights, 4, None, state, cell, mode, 320, 0, 4, False, 0.0, True, False, [], None)
    results = META_KERNELS[torch.ops.aten._cudnn_rnn.default](*args)
    assert results[3].numel() == reserve
    assert sum(forward_workspace(args, (8, 6))) == workspace


def test_time_comes_first_in_memory_whatever_the_order_of_the_output() -> None:
    trace, out = traced(nn.GRU(W, H, batch_first=True), B, T, W)
    assert out.shape == (B, T, H)
    assert out.transpose(0, 1).is_contiguous()
    assert B * T * W * FLOAT in made(trace, "_cudnn_rnn")  # the input is turned


def test_dropout_keeps_each_output_between_layers_once_more() -> None:
    trace, _ = traced(nn.LSTM(W, H, 3, dropout=0.1), T, B, W)
    assert T * B * H * FLOAT * (5 * 3 + 2 * 2) in made(trace, "_cudnn_rnn")


def test_a_size_that_only_cudnn_knows_is_said() -> None:
    trace, _ = traced(nn.GRU(W, H), T, B, W)
    assert any("cuDNN keeps of a recurrent layer" in said for said in trace.assumptions)


def test_nothing_is_kept_in_evaluation() -> None:
    with torch.no_grad():
        trace, _ = traced(nn.LSTM(W, H).eval(), T, B, W)
    kept = T * B * H * FLOAT
    assert max(made(trace, "_cudnn_rnn")[:4]) == kept


def test_a_projection_makes_outputs_smaller_than_cells() -> None:
    trace, out = traced(nn.LSTM(W, H, proj_size=8), T, B, W)
    assert out.shape == (T, B, 8)
    assert made(trace, "_cudnn_rnn")[:3] == [T * B * 8 * FLOAT, B * 8 * FLOAT, B * H * FLOAT]


def test_packed_sequences_count_their_steps_alone() -> None:
    trace, out = traced(nn.LSTM(W, H, batch_first=True), B, T, W, packed=True)
    steps = sum(range(T - B + 1, T + 1))
    assert names(trace) == ["_cudnn_rnn", "_cudnn_rnn_backward"]
    assert out.shape == (steps, H)
    assert steps * H * 5 * FLOAT in made(trace, "_cudnn_rnn")


def test_half_precision_casts_all_weights_and_halves_the_reserve() -> None:
    layer = nn.LSTM(W, H, 2)
    trace, out = traced(layer, T, B, W, amp=torch.float16)
    assert out.dtype == torch.float16
    assert T * B * H * 2 * (5 * 2 + 1) in made(trace, "_cudnn_rnn")
    weights = [weight.numel() * 2 for weight in layer.parameters()]
    assert all(size in made(trace, "_to_copy") for size in weights)


class Cells(nn.Module):
    """A cell over time."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.cell = kind(W, H)

    def forward(self, value):
        state, states = None, []
        for step in value.unbind(0):
            state = self.cell(step, state)
            states.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(states), state


@pytest.mark.parametrize(("kind", "name", "gates", "kept"), [(nn.LSTMCell, "lstm", 4, 4), (nn.GRUCell, "gru", 3, 5)])
@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_a_cell_is_one_kernel_beside_its_products(kind, name, gates, kept, amp) -> None:
    trace, out = traced(Cells(kind), T, B, W, amp=amp)
    assert out.shape == (T, B, H)
    assert names(trace).count(f"_thnn_fused_{name}_cell") == T
    assert made(trace, f"_thnn_fused_{name}_cell").count(B * kept * H * (2 if amp else FLOAT)) == T
    casts = [size for size in made(trace, "_to_copy") if size == gates * H * W * 2]
    assert len(casts) <= 1  # a weight is cast once, not at every step


def test_products_count_as_they_did() -> None:
    """2 FLOP a multiply-add: every step's input and state with the gates' matrices, twice that backward."""
    trace, _ = traced(nn.GRU(W, H), T, B, W)
    forward = 2 * T * B * 3 * H * (W + H)
    assert sum(operation.flops for operation in trace.operations) == 3 * forward
