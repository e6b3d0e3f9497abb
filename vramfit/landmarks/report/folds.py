"""Cross-validation in a few lines."""

from pathlib import Path

from vramfit.landmarks.training.cross_validation import RESULT, CrossValidation, FoldResult


def fold_lines(report: CrossValidation) -> list[str]:
    """A line a fold, and what they come to."""
    return [*map(_line, report.results), _total(report)]


def _folder(report: CrossValidation) -> Path:
    return Path(report.results[0].save_dir).parent


def _line(result: FoldResult) -> str:
    if result.mre_mm is None:
        return f"Fold {result.fold}: no point of its films is known."
    return f"Fold {result.fold}: MRE {result.mre_mm:.2f} mm in epoch {result.best_epoch} of {result.epochs}."


def _total(report: CrossValidation) -> str:
    if report.mean_mre_mm is None:
        return f"{report.folds} folds without an MRE."
    spread = f" +- {report.sd_mm:.2f}" if report.sd_mm is not None else ""
    return (
        f"{report.folds} folds: MRE {report.mean_mre_mm:.2f}{spread} mm (mean and SD over folds, each at the epoch "
        f"that was best on its own films); written to {_folder(report) / RESULT}."
    )
