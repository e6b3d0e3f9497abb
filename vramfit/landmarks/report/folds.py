"""Cross-validation in a few lines."""

from pathlib import Path

from vramfit.landmarks.training.cross_validation import RESULT, CrossValidation, FoldResult


def fold_lines(report: CrossValidation) -> list[str]:
    """A line a fold, and what they come to."""
    return [*map(_line, report.results), _total(report)]


def _folder(report: CrossValidation) -> Path:
    return Path(report.results[0].save_dir).parent


def _line(result: FoldResult) -> str:
    if result.mre is None:
        return f"Fold {result.fold}: no point of its films is known."
    unit = "mm" if result.mre_px is None else "px"
    return f"Fold {result.fold}: MRE {result.mre:.2f} {unit} in epoch {result.best_epoch} of {result.epochs}."


def _total(report: CrossValidation) -> str:
    in_mm, in_px = ("mm", report.mean_mre_mm, report.sd_mm), ("px", report.mean_mre_px, report.sd_px)
    unit, error, deviation = in_mm if report.mean_mre_px is None else in_px
    if error is None:
        return f"{report.folds} folds without an MRE."
    spread = f" +- {deviation:.2f}" if deviation is not None else ""
    return (
        f"{report.folds} folds: MRE {error:.2f}{spread} {unit} (mean and SD over folds, each at the epoch "
        f"that was best on its own films); written to {_folder(report) / RESULT}."
    )
