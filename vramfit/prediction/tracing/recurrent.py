"""LSTM, GRU and plain recurrent layers as a card runs them: all layers and steps in one call of cuDNN.

`_cudnn_rnn` keeps a reserve for its backward pass, of a size that only cuDNN knows. It is taken to hold of every step
and layer the gates, the cell and, of all layers but the last, the output. Two published sizes agree: 736,000,000 bytes
for an LSTM and 864,000,000 for a GRU of 4 layers of 320 units in float32
(https://github.com/pytorch/pytorch/issues/2895), which is 4 x 5 + 3 and 4 x 6 + 3 times a layer's output at 25,000
steps x samples. Their workspaces, 17,730,560 and 13,169,920 bytes, are the weights' and (3 gates - 1) states' for 100
samples. Units and layers follow from the parameters counted there; steps and samples are not stated and were read from
the sizes, so both rules are fitted to these four figures.

B batch, T steps, I inputs, H hidden units, P outputs (H, unless they are projected), G gates, D directions.

Known limitations: those sizes are of cuDNN 6 on a P100, and today's may differ; the reserve of a plain layer (one value
a step and unit) and of dropout (taken to be each output once more, dropped) is not published. The state of dropout's
random numbers, a few MB a card, is not counted. The weights of a layer lie in one buffer on a card, which is not
rebuilt here.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

_ATEN = torch.ops.aten
# cuDNN's numbers for the kinds of cells, what a step of a unit keeps of each, and its gates.
_MODES = {"rnn_relu": 0, "rnn_tanh": 1, "lstm": 2, "gru": 3}
_KEPT = (1, 1, 5, 6)
_GATES = (1, 1, 4, 3)
_CELL = 2  # the mode that has a cell state beside the hidden one
Kernel = Callable[..., Any]


def recurrent_kernels() -> dict[str, Kernel]:
    """What a card runs for torch's recurrent layers and cells, by the operation's name."""
    layers = {f"{name}.input": _padded(mode) for name, mode in _MODES.items()}
    packed = {f"{name}.data": _packed(mode) for name, mode in _MODES.items()}
    return {**layers, **packed, "lstm_cell": _lstm_cell, "gru_cell": _gru_cell}


def _padded(mode: int) -> Kernel:
    def kernel(  # noqa: PLR0917  # the signature of torch's own
        value: Tensor,
        hidden: Any,
        weights: list[Tensor],
        has_biases: bool,
        layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        options: tuple[Any, ...] = (layers, batch_first, dropout, train, bidirectional, [])
        return _run(mode, value, hidden, weights, has_biases, options)

    return kernel


def _packed(mode: int) -> Kernel:
    def kernel(  # noqa: PLR0917  # the signature of torch's own
        value: Tensor,
        batch_sizes: Tensor,
        hidden: Any,
        weights: list[Tensor],
        has_biases: bool,
        layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
    ) -> Any:
        options = (layers, False, dropout, train, bidirectional, batch_sizes.tolist())
        return _run(mode, value, hidden, weights, has_biases, options)

    return kernel


def _run(  # noqa: PLR0917  # what the two forms of a layer have in common
    mode: int, value: Tensor, hidden: Any, weights: list[Tensor], has_biases: bool, options: tuple[Any, ...]
) -> Any:
    """Output, last hidden state and, of an LSTM, last cell state."""
    state, cell = hidden if mode == _CELL else (hidden, None)
    units = state.shape[2] if cell is None else cell.shape[2]
    projected = 0 if units == state.shape[2] else state.shape[2]
    of_layer = (4 if has_biases else 2) + (projected != 0)
    shape = (mode, units, projected)
    kernel = _ATEN._cudnn_rnn.default
    output, last, last_cell, *_ = kernel(value, weights, of_layer, None, state, cell, *shape, *options, None)
    return (output, last, last_cell) if mode == _CELL else (output, last)


def _lstm_cell(  # noqa: PLR0917  # the signature of torch's own
    value: Tensor,
    hidden: list[Tensor],
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    gates = linear(value, weight_ih), linear(hidden[0], weight_hh)
    state, cell, _ = _ATEN._thnn_fused_lstm_cell.default(*gates, hidden[1], bias_ih, bias_hh)
    return state, cell


def _gru_cell(  # noqa: PLR0917  # the signature of torch's own
    value: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
) -> Tensor:
    gates = linear(value, weight_ih), linear(hidden, weight_hh)
    state: Tensor = _ATEN._thnn_fused_gru_cell.default(*gates, hidden, bias_ih, bias_hh)[0]
    return state


# ---- what the kernels return, as torch's meta kernels say it of others


def _meta_forward(*args: Any) -> tuple[Tensor, ...]:
    """Results of `_cudnn_rnn`; time comes first in memory, whatever the order of the output's dimensions."""
    (
        value,
        _weights,
        _,
        _,
        state,
        cell,
        mode,
        units,
        projected,
        layers,
        batch_first,
        dropout,
        train,
        bidirectional,
        *_,
    ) = args
    directions = 2 if bidirectional else 1
    rows = (value.shape[1], value.shape[0]) if batch_first else value.shape[:-1]
    output = value.new_empty(*rows, directions * (projected or units))
    last_cell = value.new_empty(0) if cell is None else torch.empty_like(cell)
    of_layer = value.shape[:-1].numel() * units * directions * value.element_size()
    reserve = value.new_empty(_in_reserve(mode, layers, dropout) * of_layer if train else 0, dtype=torch.uint8)
    output = output.transpose(0, 1) if batch_first else output
    return output, torch.empty_like(state), last_cell, reserve, value.new_empty(0)


def _in_reserve(mode: int, layers: int, dropout: float) -> int:
    """How many times the output of a layer is as large as what all layers keep."""
    return _KEPT[mode] * layers + (layers - 1) * (2 if dropout else 1)


def _meta_backward(*args: Any) -> tuple[Any, ...]:
    """Gradients of the input, the states and every weight."""
    value, weights, _, _, state, cell = args[:6]
    batch_first, wanted = args[14], args[-1]
    gradient = value.new_empty(value.transpose(0, 1).shape).transpose(0, 1) if batch_first else torch.empty_like(value)
    of_cell = value.new_empty(0) if cell is None else torch.empty_like(cell)
    of_weights = [torch.empty_like(weight) for weight in weights] if wanted[3] else []
    return gradient, torch.empty_like(state), of_cell, of_weights


def _meta_gru_cell(gates: Tensor, _: Tensor, state: Tensor, *_biases: Any) -> tuple[Tensor, Tensor]:
    """The next state, and what RNN.cu keeps of every unit: three gates, the state and the new gate's hidden part."""
    return torch.empty_like(state), gates.new_empty(state.shape[0], 5 * state.shape[1])


def _meta_gru_cell_backward(grad: Tensor, kept: Tensor, has_bias: bool) -> tuple[Any, ...]:
    gates = [kept.new_empty(grad.shape[0], 3 * grad.shape[1]) for _ in range(2)]
    biases = [kept.new_empty(3 * grad.shape[1]) if has_bias else None for _ in range(2)]
    return (*gates, torch.empty_like(grad), *biases)


META_KERNELS: dict[Any, Kernel] = {
    _ATEN._cudnn_rnn.default: _meta_forward,
    _ATEN._cudnn_rnn_backward.default: _meta_backward,
    _ATEN._thnn_fused_gru_cell.default: _meta_gru_cell,
    _ATEN._thnn_fused_gru_cell_backward.default: _meta_gru_cell_backward,
}

# ---- what they cost beside their results


def forward_workspace(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    """Bytes that `_cudnn_rnn` holds while it runs: the input with time first, and cuDNN's workspace."""
    turned = _turned(args[0]) if args[10] else 0
    return [turned, _workspace_bytes(args[1], args[4], args[6], args[9], args[13])]


def backward_workspace(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    """Bytes that `_cudnn_rnn_backward` holds while it runs: input and gradient with time first, and its workspace."""
    value, weights, grad, batch_first = args[0], args[1], args[7], args[14]
    turned = [_turned(value), _turned(grad) if grad is not None else 0] if batch_first else []
    missing = args[6].numel() * args[6].element_size() if grad is None else 0
    return [*turned, missing, _workspace_bytes(weights, args[4], args[10], args[13], args[17])]


def _workspace_bytes(weights: list[Tensor], state: Tensor, mode: int, layers: int, bidirectional: bool) -> int:
    matrices = sum(weight.numel() for weight in weights if weight.dim() == 2)
    states = layers * (2 if bidirectional else 1) * prod(state.shape[1:]) * (3 * _GATES[mode] - 1)
    return (matrices + states) * state.element_size()


def _turned(tensor: Tensor) -> int:
    turned = tensor.transpose(0, 1)
    return 0 if turned.is_contiguous() else tensor.numel() * tensor.element_size()


def flops(value_shape: Any, weight_shapes: Any, *_: Any, **__: Any) -> int:
    """FLOP of the forward pass: a product of every step's input and state with the layers' matrices."""
    rows = prod(value_shape[:-1])
    return sum(2 * rows * prod(shape) for shape in weight_shapes if len(shape) == 2)


def flops_backward(value_shape: Any, weight_shapes: Any, *_: Any, **__: Any) -> int:
    """FLOP of the backward pass: twice the forward's."""
    return 2 * flops(value_shape, weight_shapes)
