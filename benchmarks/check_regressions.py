"""Does `vramfit check` find what takes more memory and name it, and does it leave alone what changes nothing?

Two training files (`regressions/`) are locked; then each change of `regressions/changes.py` is made to a copy, and the
copy is checked at the tolerance that is the default. A regression is found if a peak grew, and named if the first
sentence has one of the words that a reviewer would look for: the module or the kind of tensor. A refactoring passes if
no peak grew. Run times are of one trace each, of HRNet-W32 at 768x768 and of GPT-2 where transformers is installed.

    python benchmarks/check_regressions.py
"""

import importlib.util
import tempfile
import time
from pathlib import Path
from typing import Any

from ending import end
from regressions.changes import REFACTORINGS, REGRESSIONS, Change

from vramfit.cli.models import named_job
from vramfit.jobs.job import Job
from vramfit.lock.ask import locked, trace_of_job
from vramfit.lock.growth import growths
from vramfit.lock.lock_file import LockedJob, Question

FOLDER = Path(__file__).parent / "regressions"
GPU = "rtx3060"
BATCH = 16
TOLERANCE = 0.05


def main() -> None:
    began = time.perf_counter()
    before = {name: _locked(_source(name)).rolled_up() for name in ("segmenter", "language_model")}
    planted = [_found(change, before[change.file]) for change in REGRESSIONS]
    harmless = [_found(change, before[change.file]) for change in REFACTORINGS]
    result = {
        "regressions": len(planted),
        "found": sum(one["said"] != "" for one in planted),
        "named": sum(one["named"] for one in planted),
        "refactorings": len(harmless),
        "passed": sum(one["said"] == "" for one in harmless),
        "seconds_hrnet_w32": _seconds("hrnet_w32"),
        "not_as_wanted": [one for one in planted if not one["named"]] + [one for one in harmless if one["said"]],
    }
    end("check_regressions", result, began, sound=not result["not_as_wanted"])


def _source(name: str) -> str:
    return (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def _found(change: Change, before: LockedJob) -> dict[str, Any]:
    grown = growths(change.file, before, _locked(change.applied(_source(change.file))), TOLERANCE)
    said = str(grown[0]) if grown else ""
    return {"what": change.what, "said": said, "named": any(name in said for name in change.names)}


def _locked(source: str) -> LockedJob:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "training.py"
        path.write_text(source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location("training", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        job: Job = module.job()
        return locked(Question(model="training", gpu=GPU, batch_size=BATCH), trace_of_job(job, GPU, BATCH))


def _seconds(model: str) -> float:
    start = time.perf_counter()
    trace_of_job(named_job(model), GPU, 6)
    return round(time.perf_counter() - start, 1)


if __name__ == "__main__":
    main()
