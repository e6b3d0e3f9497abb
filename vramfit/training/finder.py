"""A trained network that finds landmarks, taken from a checkpoint.

B batch, K landmarks, H W image pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vramfit.errors import DataError, NoUsableGpu
from vramfit.jobs.landmark import landmark_job
from vramfit.jobs.step import Step
from vramfit.landmarks.decode import decode
from vramfit.landmarks.letterbox import Letterbox
from vramfit.training import checkpoint
from vramfit.training.films import empty_photometric, options_of
from vramfit.training.options import DeviceChoice
from vramfit.training.recovery import Recovery

Array = NDArray[np.float64]


class Finder:
    """The averaged weights of a checkpoint, or its network's own where there are none, with the job's own step.

    `symbols` name the K points; `mean_shape` is the mean training position, Kx2 in image pixels; `epoch` counts from 1.
    """

    def __init__(self, path: Path, device: torch.device, *, batch_size: int = 8) -> None:
        """Read a checkpoint of `vramfit train`.

        Raises:
            DataError: no such checkpoint, or one of another kind of job.

        """
        content = checkpoint.load(path)
        description = content["task"]
        if description.get("kind") != "landmark":
            raise DataError(f"{path}: not a checkpoint of the landmark job; use one made by `vramfit train`.")
        self.path = path
        options, self.landmarks = options_of(description)
        self.options = replace(options, ema_decay=None, levers=())
        self.mean_shape: Array = np.array(description["mean_shape"], dtype=np.float64)
        self.epoch = int(content["position"]["epoch"])
        step = Step(landmark_job(self.options), device)
        step.model.load_state_dict(content["average"] or content["model"])
        self._recovery = Recovery(step, batch_size)
        self.batch_size = batch_size

    @property
    def symbols(self) -> tuple[str, ...]:
        """The landmarks' symbols, in the order of the points."""
        return tuple(landmark.symbol for landmark in self.landmarks)

    def find(self, images: NDArray[np.uint8], letterboxes: Sequence[Letterbox]) -> Iterator[tuple[Array, Array]]:
        """Points of letterboxed images uint8 BxHxW.

        Yields:
            for each image its points, Kx2 in native film pixels, and confidences, K, 0 to 1.

        """
        size = len(images)
        films = torch.from_numpy(np.ascontiguousarray(images)).unsqueeze(1)
        nowhere = torch.full((size, self.options.landmarks, 2), float("nan"))
        batch = {"films": films, "photometric": empty_photometric(size)}, nowhere
        for heatmaps, _, place in self._recovery.validate(batch):
            points, confidence = decode(heatmaps, self.options.heatmap_stride)
            found = zip(letterboxes[place], points.cpu().numpy(), confidence.cpu().numpy(), strict=True)
            for letterbox, mine, sure in found:
                yield letterbox.to_film(mine.astype(np.float64)), sure.astype(np.float64)


def usable_device(choice: DeviceChoice) -> torch.device:
    """The device for a network that only looks.

    Raises:
        NoUsableGpu: `cuda` without a GPU.

    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise NoUsableGpu("--device cuda: there is no usable GPU here; `vramfit doctor` says why, or use --device cpu.")
    return torch.device("cpu" if choice == "cpu" or not torch.cuda.is_available() else "cuda")
