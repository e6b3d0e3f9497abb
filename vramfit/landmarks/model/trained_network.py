"""A trained network as its checkpoint holds it, ready to judge or to use."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vramfit.errors import DataError, NoUsableGpu, UsageError
from vramfit.jobs.step import Step
from vramfit.landmarks.data.films import Landmark
from vramfit.landmarks.model.calibration import Calibration
from vramfit.landmarks.model.job import landmark_job, read_plain_task
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.landmarks.model.weights_file import SUFFIX, read_weights, require_weights
from vramfit.training.checkpoint import load, require_checkpoint, require_same_model, save
from vramfit.training.run_options import DeviceChoice

# Where a checkpoint's description of its task keeps it.
CALIBRATION = "calibration"


@dataclass(frozen=True)
class Trained:
    """A network and what it was trained for.

    `step` holds the weights to judge: the averaged ones where training kept them. `mean_shape` is the mean training
    position of each landmark, float64 Kx2 in image pixels. `epoch` is how many it was trained for, `mre_mm` its error
    on the validation films after that epoch, where it is known. `seen` are the ids of its training films and their
    thumbnails, uint8 NxSxS; None where the file does not know them. `calibration` is what its errors on other films
    told, where it was calibrated.
    """

    path: Path
    step: Step
    options: LandmarkJobOptions
    landmarks: tuple[Landmark, ...]
    mean_shape: NDArray[np.float64]
    epoch: int
    config: dict[str, Any]
    seen: tuple[tuple[str, ...], NDArray[np.uint8]] | None = None
    mre_mm: float | None = None
    calibration: Calibration | None = None


def require_network_files(*paths: Path) -> None:
    """Refuse files of networks that are not there, before anything else is done.

    Raises:
        DataError: the first that is missing.

    """
    for path in paths:
        (require_weights if path.suffix.lower() == SUFFIX else require_checkpoint)(path)


def load_trained(path: str | Path, device: DeviceChoice = "auto") -> Trained:
    """The network of a checkpoint of `vramfit train`, or of a safetensors file of `vramfit export`.

    Raises:
        DataError: neither, not of a landmark network, or damaged.
        NoUsableGpu: `cuda` was asked for and cannot be used.

    """
    path = Path(path)
    content = read_weights(path) if path.suffix.lower() == SUFFIX else load(path)
    try:
        options, landmarks = read_plain_task(content["task"])
        mean_shape = np.array(content["task"]["mean_shape"], dtype=np.float64)
        epoch = int(content["position"]["epoch"])
        seen = _seen(content["task"].get("films"))
        calibration = _calibration(content["task"].get(CALIBRATION))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a checkpoint of a landmark network ({error}); use another one.") from None
    step = _step(content, options, device_of(device), path)
    config, mre_mm = dict(content["config"]), _mre_mm(content, epoch)
    return Trained(path, step, options, landmarks, mean_shape, epoch, config, seen, mre_mm, calibration)


def device_of(choice: DeviceChoice) -> torch.device:
    """The device of a choice; `auto` is the card where there is one.

    Raises:
        NoUsableGpu: `cuda` was asked for and torch has no card.

    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise NoUsableGpu("--device cuda: torch finds no usable GPU here; see `vramfit doctor`, or use --device cpu.")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


def keep_calibration(trained: Trained, calibration: Calibration) -> None:
    """Write a calibration into the network's checkpoint, beside what is there.

    Raises:
        UsageError: the file is not a checkpoint of `vramfit train`.
        CannotWrite: no space or permission; the file is as it was.

    """
    if trained.path.suffix.lower() == SUFFIX:
        raise UsageError(f"{trained.path} is an exported file; calibrate the checkpoint, then export it again.")
    content = load(trained.path)
    content["task"][CALIBRATION] = calibration.model_dump_json()
    save(content, trained.path)


def _calibration(document: str | None) -> Calibration | None:
    return None if document is None else Calibration.model_validate_json(document)


def _seen(films: Mapping[str, Any] | None) -> tuple[tuple[str, ...], NDArray[np.uint8]] | None:
    return None if films is None else (tuple(films["ids"]), films["thumbnails"].numpy())


def _mre_mm(content: dict[str, Any], epoch: int) -> float | None:
    history = content["position"].get("history", [])
    # In checkpoints of 0.1.0 the error stands in the record itself.
    return next((one.get("metrics", one).get("mre_mm") for one in history if one["epoch"] == epoch), None)


def _step(content: dict[str, Any], options: LandmarkJobOptions, device: torch.device, path: Path) -> Step:
    # One set of weights is enough to judge: the averaged one takes the network's own place.
    step = Step(landmark_job(replace(options, ema_decay=None)), device)
    weights = content.get("average") or content["model"]
    require_same_model({**content, "model": weights}, step.model, path)
    step.model.load_state_dict(weights)
    return step
