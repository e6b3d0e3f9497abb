"""DeepLabCut's labels in HDF5, CollectedData_<scorer>.h5, as the lines of the CSV that lies beside it.

A frame of pandas in PyTables' fixed format, read by h5py of the extra `h5` without either: an axis of one level is the
dataset `axis1`, one of several has its names in `axis0_level0` ... and their places in `axis0_label0` ...; the values
are blocks, each with the columns that `block0_items` names. Predictions of a network (likelihoods) are not labels.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from vramfit.errors import DataError

_GROUP = "df_with_missing"
_HEADERS = {3: ("scorer", "bodyparts", "coords"), 4: ("scorer", "individuals", "bodyparts", "coords")}


def looks_right(path: Path) -> bool:
    """Whether a file may be of this kind; its content is looked at only where h5py is there."""
    if path.suffix.lower() not in (".h5", ".hdf5") or not path.is_file():
        return False
    try:
        library = import_module("h5py")
    except ImportError:
        return path.name.startswith("CollectedData")
    try:
        with library.File(path, "r") as content:
            return _GROUP in content and "axis0_nlevels" in content[_GROUP].attrs
    except OSError:
        return False


def read_h5_rows(path: Path) -> list[list[str]]:
    """The lines of names, then a line an image: the parts of its path, and x and y, empty where missing.

    Raises:
        DataError: h5py is not installed, or the file is not of this kind.

    """
    try:
        library = import_module("h5py")
    except ImportError:
        raise DataError(f"{path}: reading it needs h5py; pip install 'vramfit-trainer[h5]', or give the CSV.") from None
    try:
        with library.File(path, "r") as content:
            return _rows(content[_GROUP])
    except (OSError, KeyError, ValueError, IndexError, TypeError) as error:
        raise DataError(f"{path}: no labels of DeepLabCut can be read from it ({error}); give the CSV.") from None


def _rows(group: Any) -> list[list[str]]:
    columns, images = _entries(group, "axis0"), _entries(group, "axis1")
    values = {
        column: numbers
        for block in range(int(group.attrs["nblocks"]))
        for column, numbers in zip(
            _entries(group, f"block{block}_items"), group[f"block{block}_values"][()].T, strict=True
        )
    }
    parts = len(images[0]) if images else 1
    names = zip(_HEADERS[len(columns[0])], zip(*columns, strict=True), strict=True)
    headers = [[name, *[""] * (parts - 1), *cells] for name, cells in names]
    table = np.stack([values[column] for column in columns], axis=1)
    return [*headers, *([*image, *map(_cell, row)] for image, row in zip(images, table.tolist(), strict=True))]


def _entries(group: Any, axis: str) -> list[tuple[str, ...]]:
    """Each entry of an axis, as many names as it has levels."""
    if f"{axis}_nlevels" not in group.attrs:
        return [(name,) for name in _texts(group[axis][()])]
    levels = [
        [names[place] if place >= 0 else "" for place in group[f"{axis}_label{level}"][()].tolist()]
        for level in range(int(group.attrs[f"{axis}_nlevels"]))
        for names in (_texts(group[f"{axis}_level{level}"][()]),)
    ]
    return list(zip(*levels, strict=True))


def _texts(values: Sequence[Any]) -> list[str]:
    return [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values]


def _cell(value: float) -> str:
    return "" if np.isnan(value) else repr(value)
