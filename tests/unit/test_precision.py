"""What cards without bf16, TF32 or tensor cores make of a job: its time, the notes of its tables, and a refusal."""

from dataclasses import replace

import pytest

from vramfit.cards import CARDS, find_card, precision_note, require_bf16
from vramfit.errors import UsageError
from vramfit.prediction.roofline import operation_s, rate
from vramfit.prediction.trace_records import Convolution, OperationRecord

PRODUCT = OperationRecord("mm", "", "forward", "bfloat16", 10**12, 10**6, 10**6, 0)
CONVOLUTION = Convolution((8, 64, 56, 56), (64, 64, 3, 3), (8, 64, 56, 56), 1, transposed=False, channels_last=True)
WITHOUT_BF16 = ("t4", "v100 16gb", "rtx2080ti", "gtx1080", "gtx1660")


@pytest.mark.parametrize("card", WITHOUT_BF16)
def test_bf16_takes_float32s_time_on_a_card_without_it(card):
    card = find_card(card)
    assert rate(PRODUCT, card) == card.fp32_flops
    assert operation_s(PRODUCT, card) == operation_s(replace(PRODUCT, dtype="float32"), card)
    assert operation_s(PRODUCT, card) >= operation_s(replace(PRODUCT, dtype="float16"), card)


@pytest.mark.parametrize("card", ["rtx3070ti", "a100 40gb", "l4", "h100", "rtx5090"])
def test_bf16_is_as_fast_as_fp16_since_ampere(card):
    card = find_card(card)
    assert rate(PRODUCT, card) == rate(replace(PRODUCT, dtype="float16"), card) == card.fp16_flops
    assert precision_note(card, "bf16") is None
    require_bf16(card.name, card.compute_capability, "bf16", insisted=False)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_fp8_is_never_assumed(card):
    assert rate(replace(PRODUCT, dtype="float8_e4m3fn"), card) == card.fp32_flops


@pytest.mark.parametrize(
    ("card", "dtype", "gains"),
    [
        ("t4", "float16", True),
        ("t4", "bfloat16", False),
        ("t4", "float32", False),  # TF32 came with Ampere
        ("gtx1660ti", "float16", False),  # Turing without tensor cores
        ("gtx1080ti", "float16", False),
        ("rtx3070ti", "float32", True),
        ("rtx3070ti", "bfloat16", True),
    ],
)
def test_nhwc_order_gains_time_on_tensor_cores_alone(card, dtype, gains):
    card = find_card(card)
    nhwc = OperationRecord("convolution", "", "forward", dtype, 10**12, 10**9, 10**9, 0, 1, CONVOLUTION)
    nchw = replace(nhwc, convolution=replace(CONVOLUTION, channels_last=False))
    assert (operation_s(nhwc, card) < operation_s(nchw, card)) is gains


@pytest.mark.parametrize("card", WITHOUT_BF16)
def test_training_in_emulated_bf16_is_refused_unless_insisted_on(card):
    card = find_card(card)
    with pytest.raises(UsageError, match="--emulated-bf16"):
        require_bf16(card.name, card.compute_capability, "bf16", insisted=False)
    require_bf16(card.name, card.compute_capability, "bf16", insisted=True)
    require_bf16(card.name, card.compute_capability, "fp16", insisted=False)
    assert "float32" in (precision_note(card, "bf16") or "")


def test_a_card_without_tensor_cores_says_that_fp16_saves_no_time():
    assert "no tensor cores" in (precision_note(find_card("gtx1660"), "fp16") or "")
    assert precision_note(find_card("t4"), "fp16") is None
    assert precision_note(find_card("gtx1660"), None) is None
