"""Quantized weights: quantized on their way to the card, and dequantized for every product."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vramfit import Job
from vramfit.prediction.tracing.quantized import WITHOUT_OUTLIERS, WORKSPACES, flops_of_product
from vramfit.prediction.tracing.trace import trace_step

M, K, N = 64, 512, 256  # rows, inputs, outputs


class Bytes(nn.Parameter):
    """A weight that becomes bytes where it is moved to, as those of bitsandbytes do."""

    def to(self, device, *_args, **_kwargs):
        self.data = self.data.to(device).to(torch.uint8)
        return self


class Layer(nn.Module):
    """A product with a weight of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = Bytes(torch.empty(N, K), requires_grad=False)
        self.head = nn.Linear(K, K)

    def forward(self, x):
        return F.linear(self.head(x), self.weight.data.to(x.dtype))


def job(model):
    def batch(n):
        return torch.randn(n, K), torch.randint(N, (n,))

    return Job(model=model, batch=batch, loss=F.cross_entropy, optimizer=torch.optim.AdamW, amp=None)


def test_a_weight_that_quantizes_itself_when_it_moves_holds_its_bytes_alone() -> None:
    trace = trace_step(job(Layer), M, validation=False)
    held = {number for number, storage in enumerate(trace.storages) if storage.kind == "parameter"}
    for event in trace.events[: trace.marks["step 1"]]:
        if event < 0:
            held.discard(~event)
    assert sorted(trace.storages[number].size_bytes for number in held) == [K * 4, N * K, K * K * 4]


def test_a_four_bit_product_dequantizes_the_weight_unless_there_are_few_rows() -> None:
    weight, scales = (
        torch.empty(N * K // 2, 1, dtype=torch.uint8, device="meta"),
        torch.empty(N * K // 64, device="meta"),
    )
    for rows, expected in ((M, [N * K * 2, N * K // 64 * 4]), (8, [])):
        value = torch.empty(rows, K, dtype=torch.bfloat16, device="meta")
        args = (value, weight, [N, K], scales, 64, "nf4")
        assert WORKSPACES["bitsandbytes::gemm_4bit"](args) == expected
        assert flops_of_product("bitsandbytes::gemm_4bit", args) == 2 * rows * N * K


def test_an_eight_bit_product_is_summed_in_int32() -> None:
    value, weight = (torch.empty(shape, dtype=torch.int8, device="meta") for shape in ((M, K), (N, K)))
    assert WORKSPACES["bitsandbytes::int8_scaled_mm"]((value, weight)) == [M * N * 4]
    assert flops_of_product("bitsandbytes::int8_scaled_mm", (value, weight)) == 2 * M * N * K
    assert flops_of_product("mm", (value, weight)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_layers_of_bitsandbytes(bits) -> None:
    library = pytest.importorskip("bitsandbytes")

    def model():
        four = library.nn.Linear4bit(K, N, bias=False, compute_dtype=torch.bfloat16)
        eight = library.nn.Linear8bitLt(K, N, bias=False, has_fp16_weights=False)
        return nn.Sequential(nn.Linear(K, K), (four if bits == 4 else eight).requires_grad_(False))

    trace = trace_step(job(model), M, validation=False)
    made = {(one.op, one.size_bytes) for one in trace.storages}
    quantize = ("bitsandbytes::quantize_4bit", N * K // 2), ("bitsandbytes::int8_vectorwise_quant", N * K)
    assert quantize[bits // 8] in made
    product = ("bitsandbytes::gemm_4bit", N * K * 2), ("bitsandbytes::int8_scaled_mm", M * N * 4)
    assert product[bits // 8] in made


def test_an_eight_bit_product_of_unknown_values_is_taken_to_have_no_outliers() -> None:
    value, weight = (torch.empty(size, dtype=torch.half, device="meta") for size in ((M, K), (N, K)))
    quantized, scales, columns = WITHOUT_OUTLIERS["bitsandbytes::int8_vectorwise_quant"]((value, 6.0))
    assert (quantized.shape, quantized.dtype, scales.shape, columns.shape) == ((M, K), torch.int8, (M,), (0,))
    assert WITHOUT_OUTLIERS["bitsandbytes::int8_vectorwise_quant"]((value,))[2] is None
    product, _ = WITHOUT_OUTLIERS["bitsandbytes::int8_mixed_scaled_mm"]((value, quantized, weight, scales))
    assert (product.shape, product.dtype) == ((M, N), torch.half)
