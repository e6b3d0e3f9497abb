"""What an export says on the console."""

from typing import Any

from vramfit.landmarks.export.export import TOLERANCE, Exported
from vramfit.units import format_size


def export_lines(exported: Exported) -> list[str]:
    """Where the file is, how it was checked, and what goes in and comes out."""
    films = " and ".join(map(str, exported.batches))
    described = exported.description
    return [
        f"{exported.path} written, {format_size(exported.size_bytes)}.",
        f"Checked in {exported.checked_by} against PyTorch on {films} drawn films: heatmap values differ by at most "
        f"{_small(exported.largest_difference)} (allowed {_small(TOLERANCE)}; the highest is {exported.highest:.2f}).",
        f"In: {described.input}; normalisation is {described.normalisation.where}.",
        f"Out: {described.output}.",
    ]


def export_document(exported: Exported) -> dict[str, Any]:
    """The same as plain values: the file, its check, and how to feed it."""
    return {
        "path": str(exported.path),
        "size_bytes": exported.size_bytes,
        "checked_by": exported.checked_by,
        "largest_difference": exported.largest_difference,
        "tolerance": TOLERANCE,
        "description": exported.description.model_dump(mode="json"),
    }


def _small(value: float) -> str:
    return f"{value:.1e}" if value else "0"
