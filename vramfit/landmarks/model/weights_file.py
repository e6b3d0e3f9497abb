"""Weights as a safetensors file: tensors and a text, so that opening a stranger's file runs no code."""

from pathlib import Path
from typing import Any

from torch import Tensor

from vramfit.errors import DataError
from vramfit.landmarks.model.description import KEY, NetworkDescription
from vramfit.training.checkpoint import Content

SUFFIX = ".safetensors"


def weights_file(state: dict[str, Tensor], description: NetworkDescription) -> bytes:
    """The file of a network's state, its description in the header."""
    from safetensors.torch import save

    # The format stores plain row-major tensors, each with memory of its own.
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    return save(plain, {"format": "pt", KEY: description.model_dump_json()})


def require_weights(path: Path) -> None:
    """Refuse a weights file that is not there, before anything else is done.

    Raises:
        DataError: no such file.

    """
    if not path.is_file():
        raise DataError(f"{path}: no such weights file; give one that `vramfit export` wrote.")


def read_weights(path: Path) -> Content:
    """The file as the checkpoint that it stands for, less what only training needs.

    Raises:
        DataError: no such file, not safetensors, or without a description that vramfit can read.

    """
    from safetensors import SafetensorError, safe_open

    require_weights(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a readable safetensors file ({error}); use another one.") from None
    return _content(path, metadata, state)


def _content(path: Path, metadata: dict[str, str], state: dict[str, Tensor]) -> Content:
    if KEY not in metadata:
        raise DataError(f"{path}: its header does not describe a network; use a file that `vramfit export` wrote.")
    try:
        described = NetworkDescription.model_validate_json(metadata[KEY])
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: its header cannot be read ({reason}); is it of a newer vramfit?") from None
    position: dict[str, Any] = {"epoch": described.epoch, "history": [_record(described)]}
    config = {"model": described.task["options"]["model"], "annotator": described.annotator}
    return {"model": state, "average": None, "position": position, "config": config, "task": described.task}


def _record(described: NetworkDescription) -> dict[str, Any]:
    return {"epoch": described.epoch, "mre_mm": described.mre_mm}
