"""Checkpoints: everything a run carries from one step to the next, in one file that is whole or not there.

They hold tensors and plain types only, so that loading runs no code (`weights_only=True`).
"""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vramfit.errors import DataError
from vramfit.files import write_atomically

FORMAT = 1
BEST = "checkpoint_best.pth"
LATEST = "checkpoint_latest.pth"
_EPOCH = re.compile(r"checkpoint_epoch_(\d+)\.pth")
_KEYS = ("model", "optimizer", "scaler", "random", "position", "config", "task")

Content = dict[str, Any]


def save(content: Content, *paths: Path) -> None:
    """Write one checkpoint to each path; a reader finds the old file or the new one, never a part.

    Raises:
        CannotWrite: no space or permission; what was there is untouched.

    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    for path in paths:
        # Serialised first: a full disk is then an error of the file, and not of torch's writer.
        write_atomically(path, buffer.getvalue())


def load(path: str | Path) -> Content:
    """A checkpoint of `vramfit train`, on the CPU.

    Raises:
        DataError: no such file, not a checkpoint, or of another version.

    """
    path = Path(path)
    require_checkpoint(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds for a file that is not its own, and their texts are about torch
        raise DataError(f"{path}: no checkpoint of `vramfit train`, or a damaged one; use another one.") from None
    missing = [key for key in _KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise DataError(f"{path}: not a checkpoint of `vramfit train`, it has no '{missing[0]}'; use another one.")
    if content.get("format") != FORMAT:
        raise DataError(f"{path}: made by another version of vramfit (format {content.get('format')}).")
    return dict(content)


def require_checkpoint(path: Path) -> None:
    """Refuse a checkpoint that is not there, before anything else is done.

    Raises:
        DataError: no such file; names one that is there.

    """
    if path.is_file():
        return
    others = sorted(other.name for other in path.parent.glob("checkpoint_*.pth"))
    there = f", such as {others[0]}, which is there" if others else ""
    raise DataError(f"{path}: no such checkpoint; give the file that the command is to read{there}.")


def require_same_model(content: Mapping[str, Any], model: nn.Module, path: str | Path) -> None:
    """Refuse a checkpoint whose weights are not those of this network.

    Raises:
        DataError: names both models and the first weight that differs.

    """
    theirs = {name: tuple(value.shape) for name, value in content["model"].items()}
    mine = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if theirs == mine:
        return
    odd = next(name for name in [*mine, *theirs] if mine.get(name) != theirs.get(name))
    whose = content["config"].get("model", "another model")
    raise DataError(
        f"{path}: a checkpoint of another model ({whose}; '{odd}' is {_shape(theirs.get(odd))} there and "
        f"{_shape(mine.get(odd))} here); resume with the --model and data it was trained with."
    )


def epoch_file(folder: Path, epoch: int) -> Path:
    """The periodic checkpoint of an epoch, counted from 1."""
    return folder / f"checkpoint_epoch_{epoch:03d}.pth"


def periodic_files(folder: Path) -> list[Path]:
    """The periodic checkpoints of a folder, oldest epoch first."""
    found = {path: _EPOCH.fullmatch(path.name) for path in folder.glob("checkpoint_epoch_*.pth")}
    return sorted((path for path, match in found.items() if match), key=lambda path: int(path.stem.rpartition("_")[2]))


def remove_oldest(folder: Path, keep: int) -> None:
    """Keep the newest periodic checkpoints alone."""
    for path in periodic_files(folder)[: -keep or None]:
        path.unlink(missing_ok=True)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "a number"
