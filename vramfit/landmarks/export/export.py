"""A trained network as a file for other programs: ONNX, torch.export's .pt2, or safetensors weights.

B batch, K landmarks, H W image pixels, h w heatmap pixels.
Whatever is written is first loaded again as its reader will load it, and compared with what `vramfit infer` computes;
only then does the file get its name.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from vramfit.errors import CannotWrite, UsageError, VramfitError
from vramfit.files import write_atomically
from vramfit.jobs.step import Step
from vramfit.landmarks.data.letterbox import Letterbox
from vramfit.landmarks.export.writers import WRITERS, Format, Run
from vramfit.landmarks.model.description import INSIDE, OUTSIDE, NetworkDescription, Normalisation
from vramfit.landmarks.model.job import landmark_job, plain_task, synthetic_batch
from vramfit.landmarks.model.network import full_name
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.landmarks.model.trained_network import CALIBRATION, Trained
from vramfit.landmarks.sample.make import sample_film

# The most by which a heatmap value may differ; a sure landmark's heatmap reaches 1.
TOLERANCE = 1e-4
BATCHES = (1, 3)


@dataclass(frozen=True)
class Exported:
    """What was written, and how the check of it went.

    `checked_by` is what ran it; `largest_difference` between its heatmaps and PyTorch's, whose highest value was
    `highest`, on `batches` of films.
    """

    path: Path
    size_bytes: int
    description: NetworkDescription
    checked_by: str
    largest_difference: float
    highest: float
    batches: tuple[int, ...] = BATCHES


def format_of(path: Path, wanted: Format | None = None) -> Format:
    """The format that is wanted, or that a file's suffix names.

    Raises:
        UsageError: the suffix names none that is known, or another than the one wanted.

    """
    named: Format | None = next((known for known in get_args(Format) if path.suffix.lower() == f".{known}"), None)
    if wanted and named and wanted != named:
        raise UsageError(f"{path}: the suffix says {named} and --to says {wanted}; change one of them.")
    if not (wanted or named):
        raise UsageError(f"{path}: the suffix names no format; use .onnx, .pt2 or .safetensors, or add --to.")
    return wanted or named  # type: ignore[return-value]  # one of the two is not None


def export_network(trained: Trained, path: Path, to: Format, *, force: bool = False) -> Exported:
    """Write a trained network for other programs, checked.

    Args:
        trained: on the CPU.
        path: the file.
        to: its format.
        force: overwrite a file that is there.

    Raises:
        CannotWrite: the file is there, or cannot be written.
        UsageError: a library that the format needs is not installed, or the file is the checkpoint itself.
        VramfitError: the file does not compute what PyTorch does; nothing was written.

    """
    if path.resolve() == trained.path.resolve():
        raise UsageError(f"{path} is what is to be exported, and would be overwritten; name another --output.")
    if path.exists() and not force:
        raise CannotWrite(f"{path} exists and was left as it is; give --force to overwrite it, or another name.")
    description = describe(trained, normalised_inside=to != "safetensors")
    step = _plain_step(trained)
    content = WRITERS[to].write(step, description)
    run, reader = WRITERS[to].reopen(content, step)
    difference, highest = _compare(run, step, trained.options)
    # Not `>`: a difference that is no number is none that is allowed.
    if not difference <= TOLERANCE:
        raise VramfitError(
            f"{path} was not written: in {reader} its heatmaps differ from PyTorch's by {difference:.2g}, and "
            f"{TOLERANCE:.0e} is allowed; try another format, or other versions of torch and {reader.split()[0]}."
        )
    write_atomically(path, content)
    return Exported(path, len(content), description, reader, difference, highest)


def describe(trained: Trained, *, normalised_inside: bool) -> NetworkDescription:
    """The document of a trained network; it names no folder or file of whoever trained it."""
    options = trained.options
    (height, width), stride = options.image_size, options.heatmap_stride
    calibration = {CALIBRATION: trained.calibration.model_dump_json()} if trained.calibration else {}
    return NetworkDescription(
        model=full_name(options.model),
        image_size=options.image_size,
        input=f"films: uint8 [batch, 1, {height}, {width}], grey 0 to 255, letterboxed",
        normalisation=Normalisation(where=INSIDE if normalised_inside else OUTSIDE),
        output=f"heatmaps: float32 [batch, {options.landmarks}, {height // stride}, {width // stride}]; "
        "a sure landmark is a Gaussian of height 1",
        heatmap_stride=stride,
        landmarks=tuple((landmark.symbol, landmark.title) for landmark in trained.landmarks),
        epoch=trained.epoch,
        mre_mm=trained.mre_mm,
        annotator=str(trained.config.get("annotator", "")),
        # Weights are passed on; the file that training started from is its owner's business.
        task={**plain_task(replace(options, weights="none"), trained.landmarks, trained.mean_shape), **calibration},
    )


def _plain_step(trained: Trained) -> Step:
    """The network in float32 on the CPU, without levers: they change memory and time, never what is meant."""
    options = replace(trained.options, amp=None, channels_last=False, levers=(), ema_decay=None)
    step = Step(landmark_job(options), torch.device("cpu"))
    step.model.load_state_dict(trained.step.model.state_dict())
    step.model.eval()
    return step


def _compare(run: Run, step: Step, options: LandmarkJobOptions) -> tuple[float, float]:
    """The largest difference from the step's own heatmaps, over batches of drawn films, and the highest of those."""
    differences, highest = [], []
    for films in BATCHES:
        batch = synthetic_batch(options, films)
        images = _drawn_films(options.image_size, films)
        batch[0]["films"] = torch.from_numpy(images)
        expected, _ = step.validate(batch)
        differences.append(np.abs(run(images) - expected.numpy()).max())
        highest.append(expected.max())
    return float(np.max(differences)), float(max(highest))


def _drawn_films(image_size: tuple[int, int], films: int) -> NDArray[np.uint8]:
    drawn = [sample_film(number) for number in range(films)]
    return np.stack([Letterbox.of(film.shape[::-1], image_size).apply(film)[None] for film in drawn])
