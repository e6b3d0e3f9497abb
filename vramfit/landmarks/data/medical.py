"""Films in the formats of medicine: DICOM by pydicom, MetaImage (.mha, .mhd) by SimpleITK; both come with an extra.

They alone carry a pixel size with their pixels: DICOM's PixelSpacing, which is calibrated, or else its
ImagerPixelSpacing, that of the detector (DICOM PS3.3, 10.7.1.1 and C.8.11.3).
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import DataError

_DICOM = (".dcm", ".dicom")
_META = (".mha", ".mhd")
SUFFIXES = (*_DICOM, *_META)
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


def is_medical(path: Path) -> bool:
    """Whether a file's name says that it is in such a format."""
    return path.suffix.lower() in SUFFIXES


def pixels(path: Path) -> NDArray[np.generic]:
    """The grey values of a film, HxW, as large as they are stored; white is bone.

    Raises:
        DataError: the file or the library that reads it is not there, or it holds no single film.

    """
    try:
        values = _dicom_pixels(path) if _is_dicom(path) else _meta_pixels(path)
    except (OSError, RuntimeError, ValueError, AttributeError, NotImplementedError) as error:
        raise _unreadable(path, error) from None
    if values.ndim == 3 and values.shape[-1] in (3, 4):
        values = values[..., :3].mean(axis=-1)
    if values.ndim != 2:
        shape = "x".join(map(str, values.shape))
        raise DataError(f"{path}: a stack of {shape} values where one film is wanted; save each film as a file.")
    return values


def size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels, from the header.

    Raises:
        DataError: as for `pixels`.

    """
    try:
        if _is_dicom(path):
            header = _dicom(path, pixels=False)
            return int(header.Columns), int(header.Rows)
        width, height, *_ = _meta_header(path).GetSize()
    except (OSError, RuntimeError, ValueError, AttributeError) as error:
        raise _unreadable(path, error) from None
    return int(width), int(height)


def pixel_size_mm(path: Path) -> tuple[float, float] | None:
    """The width and height of a pixel in mm as the file says, None where it does not.

    Raises:
        DataError: as for `pixels`.

    """
    try:
        if _is_dicom(path):
            header = _dicom(path, pixels=False)
            # DICOM names the distance between rows, which is the height of a pixel, first.
            found = next((header.get(name) for name in _SPACINGS if header.get(name)), None)
            across, down = (float(found[1]), float(found[0])) if found else (0.0, 0.0)
        else:
            across, down, *_ = _meta_header(path).GetSpacing()
            # Without one written, MetaImage reports 1, and no film has pixels of exactly a millimetre.
            across, down = (0.0, 0.0) if (across, down) == (1.0, 1.0) else (across, down)
    except (OSError, RuntimeError, ValueError, AttributeError, TypeError, IndexError) as error:
        raise _unreadable(path, error) from None
    return (across, down) if 0 < across < np.inf and 0 < down < np.inf else None


def stack_size(path: Path) -> int:
    """How many films a MetaImage holds; 1 for a single one."""
    depth = _meta_header(path).GetSize()[2:]
    return int(np.prod(depth, dtype=np.int64))


def from_stack(path: Path, number: int) -> NDArray[np.generic]:
    """The grey values of one film of a stack, HxW; the others are not kept in memory.

    Args:
        path: a MetaImage of three dimensions.
        number: from 0.

    Raises:
        DataError: as for `pixels`.

    """
    reader = _meta_header(path)
    try:
        width, height, *_ = reader.GetSize()
        reader.SetExtractIndex([0, 0, number])
        reader.SetExtractSize([width, height, 0])
        values: NDArray[np.generic] = _library("SimpleITK", "mha", path).GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise _unreadable(path, error) from None
    return values[..., :3].mean(axis=-1) if values.ndim == 3 else values


def _is_dicom(path: Path) -> bool:
    return path.suffix.lower() in _DICOM


def _dicom(path: Path, *, pixels: bool) -> Any:
    reader = _library("pydicom", "dicom", path)
    try:
        return reader.dcmread(path, stop_before_pixels=not pixels)
    except reader.errors.InvalidDicomError as error:
        raise ValueError(str(error).split(".", 1)[0]) from None


def _dicom_pixels(path: Path) -> NDArray[np.generic]:
    film = _dicom(path, pixels=True)
    values = np.asarray(film.pixel_array)
    if film.get("PhotometricInterpretation") == "MONOCHROME1":
        return np.asarray(values.max() - values)
    return values


def _meta_header(path: Path) -> Any:
    reader = _library("SimpleITK", "mha", path).ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def _meta_pixels(path: Path) -> NDArray[np.generic]:
    library = _library("SimpleITK", "mha", path)
    values: NDArray[np.generic] = library.GetArrayFromImage(library.ReadImage(str(path)))
    return values[0] if values.ndim > 2 and len(values) == 1 else values


def _library(name: str, extra: str, path: Path) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise DataError(f"{path}: reading it needs {name}; pip install 'vramfit-trainer[{extra}]'.") from None


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path}: the film is damaged or cannot be decoded ({reason}); replace it or use --skip-bad.")
