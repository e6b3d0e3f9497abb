"""The formats that a network can leave in: how each is written, and how its reader opens and runs it.

B batch, K landmarks, H W image pixels, h w heatmap pixels.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vramfit.errors import UsageError
from vramfit.jobs.step import Step
from vramfit.landmarks.loading.photometric import normalise
from vramfit.landmarks.model.description import FILE, KEY, NetworkDescription
from vramfit.landmarks.model.weights_file import weights_file

Format = Literal["onnx", "pt2", "safetensors"]
# uint8 B1HW in, float32 BxKxhxw out: an exported file as its reader runs it.
Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Writer:
    """One format: `write` makes the content of a step on the CPU, `reopen` runs a content and names its reader."""

    write: Callable[[Step, NetworkDescription], bytes]
    reopen: Callable[[bytes, Step], tuple[Run, str]]


class FilmsToHeatmaps(nn.Module):
    """The network with the normalisation before it, so that nobody can get that wrong: uint8 B1HW -> BxKxhxw."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, films: Tensor) -> Tensor:
        """Heatmaps of the bytes of films."""
        heatmaps: Tensor = self.network(normalise(films))
        return heatmaps


def _program(step: Step) -> torch.export.ExportedProgram:
    assert step.job.image_size is not None
    # Two films: the batch of an example of one is taken for a size that never changes.
    example = torch.zeros(2, 1, *step.job.image_size, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(FilmsToHeatmaps(step.model).eval(), (example,), dynamic_shapes={"films": {0: batch}})


def _write_onnx(step: Step, description: NetworkDescription) -> bytes:
    _require_onnx()
    program = torch.onnx.export(
        _program(step),
        dynamo=True,
        input_names=["films"],
        output_names=["heatmaps"],
        dynamic_shapes={"films": {0: "batch"}},
        verbose=False,
    )
    assert program is not None  # only the old exporter returns nothing
    program.model.metadata_props[KEY] = description.model_dump_json()
    return bytes(program.model_proto.SerializeToString())


def _reopen_onnx(content: bytes, _: Step) -> tuple[Run, str]:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(films: NDArray[np.uint8]) -> NDArray[np.float32]:
        heatmaps: NDArray[np.float32] = session.run(["heatmaps"], {"films": films})[0]
        return heatmaps

    return run, f"onnxruntime {onnxruntime.__version__}"


def _write_pt2(step: Step, description: NetworkDescription) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(_program(step), buffer, extra_files={FILE: description.model_dump_json(indent=2)})
    return buffer.getvalue()


def _reopen_pt2(content: bytes, _: Step) -> tuple[Run, str]:
    with warnings.catch_warnings():
        # torch tells of tensors that it stores by parts, and puts them together again.
        warnings.filterwarnings("ignore", message="No complete tensor found in the group")
        module = torch.export.load(io.BytesIO(content)).module()
    return _running(module), f"torch.export {torch.__version__}"


def _write_safetensors(step: Step, description: NetworkDescription) -> bytes:
    return weights_file(step.model.state_dict(), description)


def _reopen_safetensors(content: bytes, step: Step) -> tuple[Run, str]:
    import safetensors
    from safetensors.torch import load

    network = step.job.model()
    network.load_state_dict(load(content))
    return _running(FilmsToHeatmaps(network.eval())), f"safetensors {safetensors.__version__}"


def _running(module: nn.Module) -> Run:
    @torch.no_grad()
    def run(films: NDArray[np.uint8]) -> NDArray[np.float32]:
        heatmaps: NDArray[np.float32] = module(torch.from_numpy(films)).numpy()
        return heatmaps

    return run


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"ONNX needs {error.name}, which is not installed; run: pip install onnx onnxscript onnxruntime"
        ) from None


WRITERS: dict[Format, Writer] = {
    "onnx": Writer(_write_onnx, _reopen_onnx),
    "pt2": Writer(_write_pt2, _reopen_pt2),
    "safetensors": Writer(_write_safetensors, _reopen_safetensors),
}
