"""What each option of a landmark network gains and costs, one at a time, judged on validation films alone.

    python benchmarks/landmark_ablations.py --dataset-path PATH --folder FOLDER

Trains every run of RUNS with the options of COMMON into FOLDER, and judges each row of ROWS on `valid` as the films
are; rows of other training also with an artefact of each kind planted on every other film (`ARTEFACTS`; points that
they cover count). Test films are not opened. A row has the MRE with its 95 % interval over films, SDR@2 mm, the
difference of the MRE from the first row's, paired by film, the minutes of the processor that its training took (user
and system, of all threads; with its first stage or its other seed), and what a card of 8 GB is predicted to have in use
at the batch trained, in fp16. What is in FOLDER already is neither trained nor judged again: the script can be broken
off. Short runs: what needs long ones to pay, such as augmentation, is shown too small. Writes
benchmarks/results/landmark_ablations.json.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
from ending import keep

from vramfit import predict
from vramfit.files import write_atomically
from vramfit.landmarks.data.formats import load_films
from vramfit.landmarks.data.image import read_film
from vramfit.landmarks.evaluation.compare import compare
from vramfit.landmarks.evaluation.evaluate import EvaluationOptions, evaluate_checkpoint
from vramfit.landmarks.evaluation.report import EvaluationReport
from vramfit.landmarks.loading.augment import Augmentation, draw
from vramfit.landmarks.model.job import landmark_job
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.landmarks.model.trained_network import load_trained
from vramfit.training.checkpoint import load, save

COMMON = (
    *("--model", "hrnet_w18_small_v2", "--image-size", "320x256", "--batch-size", "5", "--epochs", "9"),
    *("--lr", "1e-3", "--warmup-epochs", "1", "--weights", "none", "--augmentation", "light", "--ema-decay", "0.98"),
    *("--amp", "bf16", "--channels-last", "--device", "cpu", "--num-workers", "0"),
)
SECOND_STAGE = (
    *("--coarse-size", "320x256", "--image-size", "800x640", "--heatmap-stride", "2", "--batch-size", "3"),
    *("--weights", "{FOLDER}/base/checkpoint_best.pth"),
)
# What each run has beyond COMMON; {FOLDER} is where the runs lie.
RUNS: dict[str, tuple[str, ...]] = {
    "base": (),
    "seed_1": ("--seed", "1"),
    "artefacts": ("--artefacts", "0.1"),
    "second_stage": (*SECOND_STAGE, "--epochs", "4"),
    "second_stage_11": (*SECOND_STAGE, "--epochs", "11"),
    "stride_2": ("--heatmap-stride", "2"),
    "standard": ("--augmentation", "standard"),
    "longer": ("--epochs", "16"),
    "stride_1": ("--heatmap-stride", "1"),
}
CARD = "rtx3070"
ARTEFACTS = Augmentation(artefacts=0.5)


@dataclass(frozen=True)
class Row:
    """A way to use what was trained: the run, others that the points are averaged with, weights and decoding.

    `planted`: it is judged on films with planted artefacts too.
    """

    run: str
    others: tuple[str, ...] = ()
    first_stage: str = ""
    averaged: bool = True
    decode: str = "dark"
    views: int = 1
    planted: bool = False

    @property
    def trained(self) -> tuple[str, ...]:
        """Every run that it needs."""
        return tuple(filter(None, (self.run, *self.others, self.first_stage)))


ROWS = {
    "one stage": Row("base", planted=True),
    "one stage, last weights in place of averaged ones": Row("base", averaged=False),
    "one stage, highest pixel in place of DARK": Row("base", decode="argmax"),
    "one stage, 5 views": Row("base", views=5),
    "one stage, 2 seeds averaged": Row("base", others=("seed_1",)),
    "one stage, the other seed alone": Row("seed_1"),
    "one stage, heatmaps of stride 2": Row("stride_2"),
    "one stage, heatmaps of stride 1": Row("stride_1"),
    "one stage, artefacts on 10 % of the films each": Row("artefacts", planted=True),
    "one stage, standard augmentation in place of light": Row("standard", planted=True),
    "one stage, 16 epochs in place of 9": Row("longer"),
    "two stages, 4 epochs of the second": Row("second_stage", first_stage="base", planted=True),
    "two stages, 11 epochs of the second": Row("second_stage_11", first_stage="base", planted=True),
}


def main() -> None:
    """Train what is not there, judge every row whose runs are, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset-path", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--runs", default=",".join(RUNS), help="Those to train, by name; rows without theirs are left.")
    given = parser.parse_args()
    names = [name for name in given.runs.split(",") if name]
    for name in names:
        train(name, given.dataset_path, given.folder)
    planted = plant(given.dataset_path, given.folder / "planted")
    rows = {
        name: row for name, row in ROWS.items() if all(minutes_file(given.folder, one).is_file() for one in row.trained)
    }
    plain = {name: judged(name, given.folder, given.dataset_path, "as_they_are") for name in rows}
    with_artefacts = {name: judged(name, given.folder, planted, "planted") for name, row in rows.items() if row.planted}
    table = {
        name: {
            **figures(plain, name),
            "with_artefacts": figures(with_artefacts, name) if row.planted else None,
            "processor_minutes": round(sum(minutes(given.folder, run) for run in row.trained), 2),
            "predicted_gib_in_use": in_use(given.folder, row),
        }
        for name, row in rows.items()
    }
    runs = {name: words for name, words in RUNS.items() if minutes_file(given.folder, name).is_file()}
    keep("landmark_ablations", {"options": COMMON, "runs": runs, "card": CARD, "valid": table})


def train(name: str, films: Path, folder: Path) -> None:
    """One run of `vramfit train`, if it is not there, and the processor's minutes beside it."""
    if minutes_file(folder, name).is_file():
        return
    shutil.rmtree(folder / name, ignore_errors=True)
    words = [word.replace("{FOLDER}", str(folder)) for word in RUNS[name]]
    where = ("--dataset-path", str(films), "--save-dir", str(folder / name), "--log-dir", str(folder / "logs"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "vramfit", "train", *where, *COMMON, *words], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    minutes_file(folder, name).write_text(json.dumps(spent / 60))


def minutes_file(folder: Path, name: str) -> Path:
    """Where the processor's minutes of a run are kept, once it has ended."""
    return folder / name / "processor_minutes.json"


def minutes(folder: Path, name: str) -> float:
    """The processor's minutes of a run."""
    return float(json.loads(minutes_file(folder, name).read_text()))


def plant(films: Path, folder: Path) -> Path:
    """A copy of the film set, an 'Aariz folder, whose validation films have artefacts; the others are as they were."""
    if folder.is_dir():
        return folder
    half = folder.with_name(f".{folder.name}")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(films, half, ignore=lambda _, names: ["test"] if "test" in names else [])
    for film in load_films(half, "valid").films:
        artefacts = draw(ARTEFACTS, (64, 64), 0, 0, film.id).artefacts
        image = read_film(film.path)
        film.path.write_bytes(cv2.imencode(".png", artefacts.of(image) if artefacts else image)[1].tobytes())
    half.rename(folder)
    return folder


def judged(name: str, folder: Path, films: Path, kind: str) -> EvaluationReport:
    """The report of a row on validation films, kept in the folder."""
    kept, row = folder / "judged" / kind / f"{name}.json", ROWS[name]
    if kept.is_file():
        return EvaluationReport.model_validate_json(kept.read_text())
    checkpoint = folder / row.run / "checkpoint_best.pth"
    if not row.averaged:
        checkpoint = last_weights(checkpoint)
    options = EvaluationOptions(
        dataset_path=films,
        split="valid",
        device="cpu",
        method=row.decode,  # type: ignore[arg-type]  # one of ours
        views=row.views,
        ensemble=tuple(folder / other / "checkpoint_best.pth" for other in row.others),
    )
    report = evaluate_checkpoint(checkpoint, options)
    write_atomically(kept, report.model_dump_json())
    return report


def last_weights(checkpoint: Path) -> Path:
    """A copy of a checkpoint whose averaged weights are the last ones."""
    content = load(checkpoint)
    content["average"] = content["model"]
    path = checkpoint.with_name("last_weights.pth")
    save(content, path)
    return path


def figures(reports: dict[str, EvaluationReport], name: str) -> dict[str, Any]:
    """MRE, interval and SDR of a row's report, and its difference from the first row's."""
    report, first = reports[name], reports[next(iter(ROWS))]
    overall, difference = report.evaluation.overall, compare(report, first).overall
    return {
        "mre": overall.mre,
        "interval": overall.interval,
        "sdr": next(iter(overall.sdr.values())),
        "unit": report.unit,
        "difference": difference.mean,
        "difference_interval": difference.interval,
        "p_value": difference.p_value,
    }


def in_use(folder: Path, row: Row) -> float:
    """What the card is predicted to have in use in training, GiB, at the batch trained."""
    trained = load_trained(folder / row.run / "checkpoint_best.pth", "cpu")
    options = replace(trained.options, amp="fp16", weights="none")
    options = options if row.averaged else replace(options, ema_decay=None)
    return predicted_gib(options, int(trained.config["batch_size"]))


@cache
def predicted_gib(options: LandmarkJobOptions, batch: int) -> float:
    """What the card is predicted to have in use in training, GiB."""
    trial = predict(landmark_job(options), micro_batch=batch, gpu=CARD)
    assert trial.device_used_bytes is not None
    return round(trial.device_used_bytes / 2**30, 2)


if __name__ == "__main__":
    main()
