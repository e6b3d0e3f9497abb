"""Is the prediction right on a card? Jobs of many kinds, measured on the card here, and predicted for it anywhere.

    python benchmarks/gpu_jobs.py measure [--set full|small|all] [--workers N] [--truth FILE] [--snapshots DIR]
                                          [--limit SECONDS] [NAME ...]
    python benchmarks/gpu_jobs.py compare [--half first|second|both] [--workers N] [--truth FILE] [--results FILE]
                                          [NAME ...]

`full` are jobs of the size that people train (`reach_jobs/full_size.py`), `small` those beside it, in float32 and again
in half precision. `measure` needs the card: each job runs in a process of its own, as a probe measures it, under no
cap; the truth is what torch's allocator says of itself. Several run at once, so neither times nor the card's total are
kept. With `--snapshots` each job leaves a memory snapshot of two steps.

`compare` needs no card: it predicts the jobs that were measured, and should be run with the versions of torch and of
the libraries that the truth names. `--half` takes every second job, so that one half can be kept back from whoever
mends the prediction.
"""

import argparse
import gc
import gzip
import importlib
import json
import multiprocessing
import os
import random
import statistics
import sys
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.pool import AsyncResult, Pool
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from ending import versions

from vramfit.errors import VramfitError
from vramfit.files import write_atomically
from vramfit.jobs.batch import sample_batch
from vramfit.jobs.job import Job
from vramfit.jobs.step import Step
from vramfit.measure.budget import read_budget
from vramfit.measure.device import local_device
from vramfit.measure.memory import CudaMemory
from vramfit.measure.trial import run_trial
from vramfit.oom import release_memory
from vramfit.prediction.predict import predict
from vramfit.units import MIB

RESULTS = Path(__file__).parent / "results"
FAMILIES = ("language", "multimodal", "vision", "schemes", "structures")
MEASURING_LIMIT_S, PREDICTING_LIMIT_S = 90, 600
Made = Callable[[], Job]
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A job by name: how it is made and with how many samples."""

    name: str
    make: Made
    samples: int
    kind: str


@dataclass(frozen=True)
class _Half:
    """A job's half-precision twin."""

    make: Made
    amp: Any

    def __call__(self) -> Job:
        return replace(self.make(), amp=self.amp)


def main() -> None:
    """Measure or compare, print a line a job, and write the rows."""
    chosen = _options()
    warnings.simplefilter("ignore")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    chosen.run(chosen)


def measure(chosen: argparse.Namespace) -> None:
    """What every job takes of the card here."""
    with mock.patch.multiple(torch.cuda, is_available=lambda: True, device_count=lambda: 1):
        # A library that asks the driver while it is imported would keep child processes from using the card.
        known = cases("all")
    names = chosen.names or [name for name, case in known.items() if chosen.set in ("all", case.kind)]
    rows = []
    for row in _each(_Measured(chosen.snapshots), names, chosen.workers, chosen.limit, MEASURING_LIMIT_S):
        print(f"{row['job']}: {_measured_line(row)}", flush=True)
        rows.append(row)
        if len(rows) % 20 == 0:
            _write_truth(chosen.truth, rows)
    _write_truth(chosen.truth, rows)


def _write_truth(path: Path, rows: list[Row]) -> None:
    document = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": next((row["card"] for row in rows if "card" in row), ""),
        "versions": versions(),
        "rows": sorted(rows, key=lambda row: str(row["job"])),
    }
    write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())


@dataclass(frozen=True)
class _Measured:
    """Measures one job."""

    snapshots: Path | None

    def __call__(self, name: str) -> Row:
        case = cases("all")[name]
        row: Row = {"job": name, "kind": case.kind, "samples": case.samples}
        random.seed(0)
        torch.manual_seed(0)
        try:
            device = local_device()
            made = run_trial(case.make(), case.samples, read_budget(device), CudaMemory(device))
        except Exception as error:
            return row | {
                "failed": f"{type(error).__name__}: {error}"[:300],
                "at": traceback.format_exc().splitlines()[-4:],
            }
        row |= {
            "card": device.name,
            "allocated": made.peak_allocated_bytes,
            "reserved": made.peak_reserved_bytes,
            "context": made.context_bytes,
            "step_s_beside_others": made.step_time_s,
            "verdict": str(made.verdict),
            "note": made.note,
        }
        if self.snapshots:
            row["snapshot"] = record(case, self.snapshots)
        return row


def record(case: Case, folder: Path) -> str:
    """A memory snapshot of two steps, compressed."""
    gc.collect()
    release_memory()
    torch.cuda.memory._record_memory_history(max_entries=400_000, stacks="python", context="alloc")
    torch.manual_seed(0)
    job = case.make()
    step, batch = Step(job, torch.device("cuda")), sample_batch(job, case.samples)
    for _ in range(2):
        step.train(batch, case.samples)
    torch.cuda.synchronize()
    path = folder / f"{case.name.replace(' ', '-')}.pickle"
    folder.mkdir(parents=True, exist_ok=True)
    torch.cuda.memory._dump_snapshot(str(path))
    packed = path.with_suffix(".pickle.gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), 5))
    path.unlink()
    return packed.name


def compare(chosen: argparse.Namespace) -> None:
    """What is predicted for the card of the truth, beside the truth."""
    truth = json.loads(chosen.truth.read_text())
    measured = {row["job"]: row for row in truth["rows"] if "failed" not in row}
    names = chosen.names or [name for name in measured if in_half(name, chosen.half)]
    rows = []
    for row in _each(_Predicted(truth["hardware"]), names, chosen.workers, float("inf"), PREDICTING_LIMIT_S):
        rows.append(beside(row, measured[row["job"]]))
        print(_line(rows[-1]), flush=True)
    document = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "truth": {key: truth[key] for key in ("date", "hardware", "versions")},
        "versions": versions(),
        "half": chosen.half,
        "not_measured": sum("failed" in row for row in truth["rows"]),
        "summary": {
            f"{kind}, {half} half": summary([row for row in rows if row["kind"] == kind and in_half(row["job"], half)])
            for kind in ("full", "small")
            for half in ("first", "second")
        },
        "rows": sorted(rows, key=lambda row: str(row["job"])),
    }
    print(json.dumps(document["summary"], indent=1))
    if not chosen.names:
        write_atomically(chosen.results, (json.dumps(document, indent=1) + "\n").encode())


@dataclass(frozen=True)
class _Predicted:
    """Predicts one job for a card."""

    card: str

    def __call__(self, name: str) -> Row:
        case = cases("all")[name]
        row: Row = {"job": name, "kind": case.kind, "samples": case.samples}
        random.seed(0)
        torch.manual_seed(0)
        start = time.monotonic()
        try:
            trial = predict(case.make(), micro_batch=case.samples, gpu=self.card)
        except VramfitError as error:
            return row | {"refused": str(error)[:300]}
        return row | {
            "predicted": {
                "allocated": trial.peak_allocated_bytes,
                "reserved": trial.peak_reserved_bytes,
                "context": trial.context_bytes,
                "band": trial.device_used_band_bytes,
                "assumptions": len(trial.assumptions),
            },
            "predict_s": round(time.monotonic() - start, 1),
        }


def beside(row: Row, truth: Row) -> Row:
    """A predicted row with what was measured, and how they differ."""
    row = row | {"measured": {key: truth[key] for key in ("allocated", "reserved", "context")}}
    if "predicted" not in row:
        return row
    for what in ("allocated", "reserved"):
        row[f"{what}_error"] = round(row["predicted"][what] / max(1, row["measured"][what]) - 1, 4)
    used = row["measured"]["reserved"] + row["measured"]["context"]
    low, high = row["predicted"]["band"]
    return row | {"above_band": used > high, "below_band": used < low}


def cases(which: str) -> dict[str, Case]:
    """Every job whose library is here, by name; those of full size first."""
    found: dict[str, Case] = {}
    if which in ("full", "all"):
        for name, (make, samples) in importlib.import_module("reach_jobs.full_size").JOBS.items():
            found[name] = Case(name, make, samples, "full")
    if which in ("small", "all"):
        for family in FAMILIES:
            try:
                importlib.import_module(f"reach_jobs.{family}")
            except ImportError as error:
                print(f"left out: {family} ({error})", file=sys.stderr)
        for number, (name, (make, samples)) in enumerate(importlib.import_module("reach_jobs.styles").JOBS.items()):
            found[name] = Case(name, make, samples, "small")
            half = ("bf16", "fp16")[number % 2]
            found[f"{name} {half}"] = Case(f"{name} {half}", _Half(make, half), samples, "small")
    return found


def in_half(name: str, half: str) -> bool:
    """Whether a job is in a half of the list; which half is drawn by its name, and is the same on every machine."""
    return half == "both" or (random.Random(name).random() < 0.5) == (half == "first")


def _each(
    work: Callable[[str], Row], names: list[str], workers: int, limit_s: float, job_limit_s: float
) -> Iterator[Row]:
    """A row for each job, as they come: a process for each, so that what one breaks costs its own row alone."""
    cases("all")  # loads once what every process needs
    context, stop = multiprocessing.get_context("fork"), time.monotonic() + limit_s
    left, under_way = deque(names), list[tuple[str, float, Pool, AsyncResult[Row]]]()
    while under_way or left:
        while left and len(under_way) < workers:
            pool = context.Pool(1)
            under_way.append((left[0], time.monotonic(), pool, pool.apply_async(work, (left.popleft(),))))
        for entry in list(under_way):
            name, began, pool, answer = entry
            if answer.ready() or time.monotonic() - began > job_limit_s:
                under_way.remove(entry)
                yield _answer(name, answer)
                pool.terminate()
        if left and time.monotonic() > stop:
            print(f"out of time with {len(left)} jobs left", flush=True)
            left.clear()
        time.sleep(0.02)


def _answer(name: str, answer: "AsyncResult[Row]") -> Row:
    try:
        return answer.get(0)
    except Exception as error:  # a process that died is a result, too
        return {"job": name, "kind": cases("all")[name].kind, "failed": f"{type(error).__name__}: {error}"[:300]}


def _measured_line(row: Row) -> str:
    if "failed" in row:
        return str(row["failed"])[:150]
    return " ".join(f"{what} {row[what] / MIB:.1f}" for what in ("allocated", "reserved", "context"))


def _line(row: Row) -> str:
    said = row.get("failed") or row.get("refused")
    if said:
        return f"{row['job']}: {said[:150]}"
    sizes = " ".join(
        f"{what} {row['predicted'][what] / MIB:.1f}/{row['measured'][what] / MIB:.1f} {row[what + '_error']:+.1%}"
        for what in ("allocated", "reserved")
    )
    context = f"context {row['predicted']['context'] / MIB:.0f}/{row['measured']['context'] / MIB:.0f}"
    beyond = " ABOVE" if row["above_band"] else " below" if row["below_band"] else ""
    return f"{row['job']}: {sizes} {context}{beyond} {row['predict_s']} s"


def summary(rows: list[Row]) -> Row:
    """How many were predicted, how near, and how many lie beyond the band."""
    told = [row for row in rows if "allocated_error" in row]
    found: Row = {
        "jobs": len(rows),
        "refused": sum("refused" in row for row in rows),
        "failed": sum("failed" in row for row in rows),
        "compared": len(told),
        "above_band": sum(row["above_band"] for row in told),
        "below_band": sum(row["below_band"] for row in told),
    }
    for what in ("allocated", "reserved"):
        errors = sorted(abs(row[f"{what}_error"]) for row in told)
        if errors:
            found[what] = {
                "median": statistics.median(errors),
                "p90": errors[int(0.9 * (len(errors) - 1))],
                "within_5_percent": sum(error <= 0.05 for error in errors),
                "more_than_5_percent_below": sum(row[f"{what}_error"] < -0.05 for row in told),
            }
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", choices=("measure", "compare"))
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--set", choices=("full", "small", "all"), default="all")
    parser.add_argument("--half", choices=("first", "second", "both"), default="both")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--truth", type=Path, default=RESULTS / "gpu_jobs_truth.json")
    parser.add_argument("--results", type=Path, default=RESULTS / "gpu_jobs.json")
    parser.add_argument("--snapshots", type=Path)
    parser.add_argument("--limit", type=float, default=300, metavar="SECONDS")
    chosen = parser.parse_intermixed_args()
    chosen.run = {"measure": measure, "compare": compare}[chosen.run]
    return chosen


if __name__ == "__main__":
    main()
