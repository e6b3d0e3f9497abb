"""What each part of finding landmarks gains: ablations on validation films, and one look at test films by what won.

    python benchmarks/landmark_accuracy.py --dataset-path PATH --first FILE --second FILE --train-minutes X [--test]

`--first` and `--second` are the checkpoints of the two stages that `vramfit train` made, with `--ema-decay`; what they
cost is stated in minutes of the processor (user and system, of all threads). Each row judges one way of using them on
the films of `valid`: MRE and SDR@2 mm, or px where films have no pixel size. With `--test` the row of the smallest MRE
that `vramfit evaluate` can use is calibrated on `valid`, which the second checkpoint then keeps, and judged on `test`:
with the coverage of its regions, and the cephalometric measures by each rater. Writes
benchmarks/results/landmark_accuracy.json, the rows and how often test was looked at.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ending import keep

from vramfit.jobs.step import Step
from vramfit.landmarks.data.cache import FilmCache
from vramfit.landmarks.data.formats import load_films
from vramfit.landmarks.evaluation.evaluate import EvaluationOptions, evaluate_checkpoint
from vramfit.landmarks.evaluation.metrics import evaluate_points, limits, sdr_at
from vramfit.landmarks.evaluation.predict_points import predict_points
from vramfit.landmarks.model.job import landmark_job
from vramfit.landmarks.model.trained_network import load_trained
from vramfit.training.checkpoint import load

# Stage, whether the weights are the averaged ones, decoding, views, side of the crops (0 as trained).
Row = tuple[str, bool, str, int, int]
ROWS: dict[str, Row] = {
    "first stage, last weights": ("first", False, "dark", 1, 0),
    "first stage": ("first", True, "dark", 1, 0),
    "first stage, 5 views": ("first", True, "dark", 5, 0),
    "two stages, last weights": ("second", False, "dark", 1, 0),
    "two stages, argmax": ("second", True, "argmax", 1, 0),
    "two stages, soft": ("second", True, "soft", 1, 0),
    "two stages": ("second", True, "dark", 1, 0),
    "two stages, 5 views": ("second", True, "dark", 5, 0),
    "two stages, crops of 128": ("second", True, "dark", 1, 128),
    "two stages, crops of 160": ("second", True, "dark", 1, 160),
}


def main() -> None:
    """Judge every row on `valid`, and the best on `test` where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset-path", type=Path, required=True)
    parser.add_argument("--first", type=Path, required=True)
    parser.add_argument("--second", type=Path, required=True)
    parser.add_argument("--train-minutes", type=float, required=True)
    parser.add_argument("--test", action="store_true")
    given = parser.parse_args()
    rows = {name: judged(given, row) for name, row in ROWS.items()}
    # `vramfit evaluate` takes the averaged weights and the crops that were trained.
    usable = [name for name, (stage, averaged, *_, crop) in ROWS.items() if stage == "second" and averaged and not crop]
    best = min(usable, key=lambda name: rows[name]["mre"])
    result: dict[str, Any] = {
        "processor_minutes_of_training": given.train_minutes,
        "valid": rows,
        "chosen": best,
        "times_test_was_looked_at": int(given.test),
    }
    if given.test:
        result["test"] = tested(given, method=ROWS[best][2], views=ROWS[best][3])
    keep("landmark_accuracy", result)


def judged(given: argparse.Namespace, row: Row) -> dict[str, Any]:
    """One row on the validation films."""
    stage, averaged, method, views, crop = row
    began = time.process_time()
    trained = load_trained(getattr(given, stage), "cpu")
    content = load(trained.path)
    options = replace(trained.options, ema_decay=None, crop_size=crop or trained.options.crop_size)
    step = Step(landmark_job(options), "cpu")
    step.model.load_state_dict(content["average" if averaged else "model"])
    films = load_films(given.dataset_path, "valid", landmarks=trained.landmarks)
    cache = FilmCache.open(films, trained.options.image_size)
    found = predict_points(
        step.validate, cache, batch_size=3, stride=options.heatmap_stride, method=method, views=views
    )
    overall = evaluate_points(found.points, films).overall
    seconds = round(time.process_time() - began, 1)
    limit = limits(films.unit)[0]
    return {
        "mre": overall.mre,
        "sdr": sdr_at(overall, limit, films.unit),
        "unit": films.unit,
        "processor_s": seconds,
    }


def tested(given: argparse.Namespace, **how: Any) -> dict[str, Any]:
    """The report of the second checkpoint on `test`, once it is calibrated on `valid`, without what is by film."""
    options = EvaluationOptions(dataset_path=given.dataset_path, split="valid", device="cpu", **how)
    evaluate_checkpoint(given.second, replace(options, calibrate=True))
    report = evaluate_checkpoint(given.second, replace(options, split="test"))
    by_film = {"film_mre_mm", "film_mre_px", "errors_mm", "errors_px", "checkpoint", "dataset"}
    return report.model_dump(mode="json", exclude=by_film)


if __name__ == "__main__":
    main()
