"""Is the prediction right on a card? Jobs of many kinds, predicted and then trained for a few steps on the card here.

    python benchmarks/gpu_jobs.py [--set full|small|all] [--half first|second|both] [--workers N] [--results FILE]
                                  [--snapshots DIR] [--limit SECONDS] [NAME ...]

`full` are jobs of the size that people train (`reach_jobs/full_size.py`), `small` those beside it, in float32 and
again in half precision. Each runs in a process of its own: predicted for this card, then measured as a probe measures,
under no cap; the truth is what torch's allocator says of itself. Several run at once, so neither times nor the card's
total are compared. `--half` takes every second job, so that one half can be kept back from whoever mends the
prediction.
With `--snapshots` a job that is off leaves a memory snapshot of two steps.
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
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from vramfit._version import __version__
from vramfit.cards import find_card
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
from vramfit.prediction.predict import Predictor
from vramfit.units import GIB, MIB

RESULTS = Path(__file__).parent / "results" / "gpu_jobs.json"
FAMILIES = ("language", "multimodal", "vision", "schemes", "structures")
LIBRARIES = ("torch", "torchvision", "timm", "transformers", "diffusers", "peft", "monai")
WORKERS = 12
# Off by more than this a job leaves a snapshot: a share, and bytes below which shares mean little.
OFF_SHARE, OFF_BYTES = 0.03, 8 * MIB
LARGEST_BYTES = 8 * GIB
Made = Callable[[], Job]


@dataclass(frozen=True)
class Case:
    """A job by name: how it is made and with how many samples."""

    name: str
    make: Made
    samples: int
    kind: str


def main() -> None:
    """Run the jobs, print a line each and the summary, and write both."""
    chosen = _options()
    warnings.simplefilter("ignore")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    names = chosen.names or [name for name, case in cases(chosen.set).items() if in_half(name, chosen.half)]
    names.sort(key=lambda name: cases("all")[name].kind)  # the long ones first
    rows = list(answers(names, chosen.workers, chosen.snapshots, chosen.limit))
    document = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": local_device().name,
        "versions": versions(),
        "half": chosen.half,
        "summary": {kind: summary([row for row in rows if row["kind"] == kind]) for kind in ("full", "small")},
        "rows": sorted(rows, key=lambda row: str(row["job"])),
    }
    print(json.dumps(document["summary"], indent=1))
    write_atomically(chosen.results, (json.dumps(document, indent=1) + "\n").encode())


def cases(which: str) -> dict[str, Case]:
    """Every job whose library is here, by name."""
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


@dataclass(frozen=True)
class _Half:
    """A job's half-precision twin."""

    make: Made
    amp: Any

    def __call__(self) -> Job:
        return replace(self.make(), amp=self.amp)


def in_half(name: str, half: str) -> bool:
    """Whether a job is in a half of the list; which half is drawn by its name, and is the same on every machine."""
    return half == "both" or (random.Random(name).random() < 0.5) == (half == "first")


def answers(names: list[str], workers: int, snapshots: Path | None, limit_s: float) -> Iterator[dict[str, Any]]:
    """A row for each job, as they come; those that had no turn within the limit are left out and counted."""
    # A process for each job: what one leaves on the card or breaks is not the next one's.
    context, stop = multiprocessing.get_context("fork"), time.monotonic() + limit_s
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=None) as pool:
        waiting: dict[Future[dict[str, Any]], str] = {}
        left = list(names)
        while waiting or left:
            while left and len(waiting) < workers and time.monotonic() < stop:
                name = left.pop(0)
                waiting[pool.submit(_isolated, name, snapshots)] = name
            if not waiting:
                break
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                row = {"job": waiting.pop(future), "kind": "small"}
                try:
                    row = future.result()
                except Exception as error:  # a process that died is a result, too
                    row["failed"] = f"{type(error).__name__}: {error}"[:300]
                print(_line(row), flush=True)
                yield row
        for name in left:
            print(f"no time left for {name}", flush=True)


def _isolated(name: str, snapshots: Path | None) -> dict[str, Any]:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        try:
            return pool.apply_async(compared, (name, snapshots)).get(120)
        except multiprocessing.TimeoutError:
            return {"job": name, "kind": cases("all")[name].kind, "failed": "no answer within 120 s"}


def compared(name: str, snapshots: Path | None) -> dict[str, Any]:
    """One job: what is predicted for the card here, and what it took."""
    case, device = cases("all")[name], local_device()
    row: dict[str, Any] = {"job": name, "kind": case.kind, "samples": case.samples}
    random.seed(0)
    torch.manual_seed(0)
    start = time.monotonic()
    try:
        job = case.make()
        row["amp"] = job.amp
        card = find_card(device.name, total_bytes=device.total_bytes)
        trial = Predictor(job, card, read_budget(device)).trial(case.samples)
        row["predicted"] = {
            "allocated": trial.peak_allocated_bytes,
            "reserved": trial.peak_reserved_bytes,
            "context": trial.context_bytes,
            "band": trial.device_used_band_bytes,
            "assumptions": len(trial.assumptions),
        }
    except VramfitError as error:
        row["refused"] = str(error)[:300]
    row["predict_s"] = round(time.monotonic() - start, 2)
    try:
        row |= measured(case)
    except Exception as error:
        row["truth_failed"] = f"{type(error).__name__}: {error}"[:300]
        row["truth_at"] = traceback.format_exc().splitlines()[-4:]
    if "predicted" in row and "measured" in row:
        for what in ("allocated", "reserved"):
            row[f"{what}_error"] = round(row["predicted"][what] / max(1, row["measured"][what]) - 1, 4)
        used = row["measured"]["reserved"] + row["measured"]["context"]
        row["above_band"] = used > row["predicted"]["band"][1]
        row["below_band"] = used < row["predicted"]["band"][0]
        if snapshots and _is_off(row):
            row["snapshot"] = record(case, snapshots)
    return row


def measured(case: Case) -> dict[str, Any]:
    """What the job took of the card, as a probe measures it."""
    device = local_device()
    made = run_trial(case.make(), case.samples, read_budget(device), CudaMemory(device))
    release_memory()
    return {
        "measured": {
            "allocated": made.peak_allocated_bytes,
            "reserved": made.peak_reserved_bytes,
            "context": made.context_bytes,
        },
        "verdict": str(made.verdict),
        "note": made.note,
    }


def record(case: Case, folder: Path) -> str:
    """A memory snapshot of two steps, compressed."""
    gc.collect()
    release_memory()
    torch.cuda.memory._record_memory_history(max_entries=400_000, stacks="python", context="all")
    torch.manual_seed(0)
    job = case.make()
    step, batch = Step(job, torch.device("cuda")), sample_batch(job, case.samples)
    for _ in range(2):
        step.train(batch, case.samples)
    torch.cuda.synchronize()
    path = folder / f"{case.name.replace(' ', '-')}.pickle"
    folder.mkdir(parents=True, exist_ok=True)
    torch.cuda.memory._dump_snapshot(str(path))
    torch.cuda.memory._record_memory_history(enabled=None)
    packed = path.with_suffix(".pickle.gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), 6))
    path.unlink()
    return packed.name


def _is_off(row: dict[str, Any]) -> bool:
    apart = abs(row["predicted"]["allocated"] - row["measured"]["allocated"])
    return apart > OFF_BYTES / 8 and abs(row["allocated_error"]) > OFF_SHARE


def _line(row: dict[str, Any]) -> str:
    said = row.get("failed") or row.get("truth_failed") or row.get("refused")
    if said:
        return f"{row['job']}: {said[:150]}"
    sizes = " ".join(
        f"{what} {row['predicted'][what] / MIB:.1f}/{row['measured'][what] / MIB:.1f} {row[what + '_error']:+.1%}"
        for what in ("allocated", "reserved")
    )
    context = f"context {row['predicted']['context'] / MIB:.0f}/{row['measured']['context'] / MIB:.0f}"
    return (
        f"{row['job']}: {sizes} {context}{' ABOVE' if row['above_band'] else ''}{' below' if row['below_band'] else ''}"
    )


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many were predicted, how near, and how many lie beyond the band."""
    told = [row for row in rows if "allocated_error" in row]
    found: dict[str, Any] = {
        "jobs": len(rows),
        "refused": sum("refused" in row for row in rows),
        "failed": sum("failed" in row or "truth_failed" in row for row in rows),
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


def versions() -> dict[str, str]:
    """Of what the figures depend on."""
    found = {"vramfit": __version__}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--set", choices=("full", "small", "all"), default="all")
    parser.add_argument("--half", choices=("first", "second", "both"), default="both")
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--snapshots", type=Path)
    parser.add_argument("--limit", type=float, default=300, metavar="SECONDS")
    return parser.parse_args()


if __name__ == "__main__":
    main()
