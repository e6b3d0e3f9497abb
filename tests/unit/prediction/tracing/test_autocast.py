import importlib.util
from pathlib import Path

import pytest
import torch

from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing import autocast
from vramfit.prediction.tracing.cuda_emulation import cuda_everywhere
from vramfit.prediction.tracing.recorder import Recorder

BENCHMARK = Path(__file__).parents[4] / "benchmarks" / "autocast_against_cuda.py"


@pytest.fixture(scope="module")
def against_cuda():
    if torch.version.cuda is None:
        pytest.skip("only a CUDA build of torch knows CUDA's autocast")
    spec = importlib.util.spec_from_file_location("autocast_against_cuda", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result_dtype(name: str, *arguments, dtype=torch.float16) -> torch.dtype:
    recorder = Recorder(Trace(1))
    with cuda_everywhere():
        moved = [recorder.move(value, "input") if isinstance(value, torch.Tensor) else value for value in arguments]
        with recorder, torch.autocast("cpu", dtype=dtype):
            return autocast.operation(name)(*moved).dtype


HALF, FULL = torch.zeros(4, 4, dtype=torch.float16), torch.zeros(4, 4)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("matmul", (FULL, FULL), torch.float16),
        ("mv", (FULL, FULL[0]), torch.float16),
        ("softmax.int", (HALF, 0), torch.float32),
        ("sum", (HALF,), torch.float32),
        ("exp", (HALF,), torch.float32),
        ("pow.Tensor_Scalar", (HALF, 2), torch.float32),
        ("relu", (HALF,), torch.float16),
        ("addcmul", (HALF, FULL, HALF), torch.float32),
        ("addcmul", (HALF, HALF, HALF), torch.float16),
        ("norm.Scalar", (HALF,), torch.float32),
        ("cat", ([HALF, FULL],), torch.float32),
        ("exp", (FULL.double(),), torch.float64),
    ],
)
def test_casts_as_cuda_does(name, arguments, expected) -> None:
    assert result_dtype(name, *arguments) == expected


def test_lists_name_every_operation_that_cuda_casts() -> None:
    on_cuda = autocast.registered("AutocastCUDA")
    if not on_cuda:
        pytest.skip("only a CUDA build of torch knows CUDA's autocast")
    listed = {
        *autocast.HALF,
        *autocast.FLOAT,
        *autocast.FLOAT_RESULT,
        *autocast.WIDEST,
        *autocast.FLOAT_OVERLOAD,
    }
    # Those that CPU and CUDA cast alike keep torch's own kernel; binary_cross_entropy is refused by both.
    alike = autocast.registered("AutocastCPU")
    known = {name for name in listed if autocast.exists(name)}
    # Overloads for named dimensions, which older versions of torch still had, are met in no training step.
    named = {name for name in on_cuda if "dimname" in name.lower() or ".names" in name}
    assert on_cuda - known - alike - named - {"_cudnn_rnn", "linalg_matrix_sqrth"} == set()


def test_nothing_stays_behind() -> None:
    with autocast.cuda_autocast():
        pass
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.ones(2, dtype=torch.bfloat16).exp().dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["convnext_atto", "levit_128s", "mobilenetv3_small_050", "resnet10t", "vit_tiny_patch16_224"]
)
def test_forward_passes_equal_cudas_own(against_cuda, model) -> None:
    import timm

    timm.layers.set_fused_attn(False)
    try:
        assert against_cuda.difference(model) is None
    finally:
        timm.layers.set_fused_attn(True)


def test_an_older_list_leaves_operations_as_they_are() -> None:
    image = torch.ones(1, 1, 2, 2, dtype=torch.bfloat16)

    def upsampled() -> torch.dtype:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return torch.nn.functional.interpolate(image, scale_factor=2.0).dtype

    with autocast.cuda_autocast():
        assert upsampled() == torch.float32
    with autocast.cuda_autocast(uncast=["upsample_nearest2d"]):
        assert upsampled() == torch.bfloat16
