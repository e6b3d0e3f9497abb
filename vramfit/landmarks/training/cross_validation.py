"""Cross-validation: a run for each fold, and what they come to."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Literal

from vramfit._version import __version__
from vramfit.errors import UsageError, VramfitError
from vramfit.files import write_atomically
from vramfit.landmarks.training.options import LandmarkOptions
from vramfit.records import Record
from vramfit.training.listeners import RunSummary
from vramfit.training.run_folders import resume_file

RESULT = "folds.json"
Run = Callable[[LandmarkOptions], RunSummary]


class FoldResult(Record):
    """One fold's run: the MRE of its best epoch on the films that it did not learn from, in the unit there is."""

    fold: int
    epochs: int
    best_epoch: int | None
    mre_mm: float | None
    mre_px: float | None = None
    save_dir: str

    @property
    def mre(self) -> float | None:
        """The MRE in whichever unit there is."""
        return self.mre_mm if self.mre_px is None else self.mre_px


class CrossValidation(Record):
    """All folds: mean and standard deviation (of a sample) of their MREs.

    Each fold's best epoch was chosen by the films that judge it, so the mean is a little too good; films of `test` are
    in no fold.
    """

    schema_version: Literal[1] = 1
    vramfit_version: str = __version__
    dataset: str
    model: str
    folds: int
    seed: int
    results: tuple[FoldResult, ...]
    mean_mre_mm: float | None
    sd_mm: float | None
    mean_mre_px: float | None = None
    sd_px: float | None = None


def in_child(run: Run, options: LandmarkOptions) -> RunSummary:
    """Run in a process of its own: the next fold's probe then finds the card as empty as this one did.

    Raises:
        VramfitError: what the run raised, or that its process was ended from outside.

    """
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(run, options).result()
    except BrokenProcessPool:
        raise VramfitError(
            f"the process of fold {options.fold} was ended from outside, as where host memory is out; the folds before "
            "it are kept, go on with --resume."
        ) from None


def cross_validate(
    options: LandmarkOptions, run: Run, *, execute: Callable[[Run, LandmarkOptions], RunSummary] = in_child
) -> CrossValidation:
    """Train every fold into `fold_1`, `fold_2` ... of the save and log folders, and write `folds.json` beside them.

    Args:
        options: with `folds`, without `fold`; `resume` may be `latest`: folds that are done stay as they are.
        run: trains one fold; pickles.
        execute: how it is run.

    Raises:
        UsageError: options that name one run of several, or several processes.
        VramfitError: what a fold's run raises; the folds before it are kept.

    """
    if options.resume not in (None, "latest"):
        raise UsageError("--resume FILE goes on with one run; with --folds name its --fold, or use a bare --resume.")
    if "WORLD_SIZE" in os.environ:
        raise UsageError("Under torchrun --folds needs --fold: start the folds one after the other.")
    results = [_result(number, execute(run, _of_fold(options, number))) for number in _numbers(options)]
    report = _report(options, results)
    write_atomically(options.save_dir / RESULT, report.model_dump_json(indent=2) + "\n")
    return report


def _numbers(options: LandmarkOptions) -> range:
    return range(1, (options.folds or 0) + 1)


def _of_fold(options: LandmarkOptions, number: int) -> LandmarkOptions:
    folder = f"fold_{number}"
    mine = replace(options, fold=number, save_dir=options.save_dir / folder, log_dir=options.log_dir / folder)
    latest = resume_file(options.resume, mine.save_dir)
    return mine if latest is None or latest.is_file() else replace(mine, resume=None)


def _result(number: int, summary: RunSummary) -> FoldResult:
    return FoldResult(
        fold=number,
        epochs=summary.epochs,
        best_epoch=summary.best_epoch,
        mre_mm=summary.best_metrics.get("mre_mm"),
        mre_px=summary.best_metrics.get("mre_px"),
        save_dir=str(Path(summary.save_dir)),
    )


def _report(options: LandmarkOptions, results: list[FoldResult]) -> CrossValidation:
    in_mm, in_px = (
        [error for result in results if (error := getattr(result, name)) is not None] for name in ("mre_mm", "mre_px")
    )
    return CrossValidation(
        dataset=str(options.dataset_path),
        model=options.model,
        folds=len(results),
        seed=options.seed,
        results=tuple(results),
        mean_mre_mm=mean(in_mm) if in_mm else None,
        sd_mm=stdev(in_mm) if len(in_mm) > 1 else None,
        mean_mre_px=mean(in_px) if in_px else None,
        sd_px=stdev(in_px) if len(in_px) > 1 else None,
    )
