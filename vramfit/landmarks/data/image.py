"""Reading film files: grey pixels, and the size, orientation and pixel size from the header alone.

OpenCV reads what it knows; DICOM and MetaImage are read by the libraries of the extras `dicom` and `mha`.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import DataError
from vramfit.landmarks.data import medical
from vramfit.landmarks.data.grey import to_bytes

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".pgm", *medical.SUFFIXES)

if TYPE_CHECKING:
    from PIL.Image import Image

# What a program that obeys EXIF's tag does to the stored pixels before it shows them.
ORIENTATIONS = {
    1: "upright",
    2: "mirrored",
    3: "turned by 180 degrees",
    4: "mirrored and turned by 180 degrees",
    5: "mirrored and turned by 90 degrees to the left",
    6: "turned by 90 degrees to the right",
    7: "mirrored and turned by 90 degrees to the right",
    8: "turned by 90 degrees to the left",
}
_ORIENTATION = 0x0112
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# Start-of-frame markers of JPEG; C4, C8 and CC mean other things.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HEADER_BYTES = 256 * 1024
_TAIL_BYTES = 1024


def read_film(path: Path) -> NDArray[np.uint8]:
    """The grey pixels of a film, uint8 HxW; dark ones and those of more than 8 bits are spread, as `grey` says.

    Raises:
        DataError: the file cannot be read or is no image.

    """
    return to_bytes(stored_film(path))


def stored_film(path: Path) -> NDArray[np.generic]:
    """The grey values of a film as they are stored, HxW.

    OpenCV's own reader fails on non-ASCII paths on Windows, so Python reads the bytes.

    Raises:
        DataError: the file cannot be read or is no image.

    """
    if medical.is_medical(path):
        return medical.pixels(path)
    import cv2

    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: the film cannot be read ({error.strerror}).") from None
    # An orientation tag would turn the pixels away from the points that were marked on them.
    how = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    # What is wrong with a film is said in a sentence, not by warnings of cv2 too.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    pixels = cv2.imdecode(content, how) if content.size else None
    if pixels is None:
        raise DataError(f"{path}: the film is damaged or no image; replace the file or use --skip-bad.")
    return np.asarray(pixels)


def film_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels, from the header; looks at the end too, for a file cut short.

    Raises:
        DataError: the file cannot be read, is no image, or ends too early.

    """
    if medical.is_medical(path):
        return medical.size(path)
    try:
        head, tail = _ends(path)
    except OSError as error:
        raise DataError(f"{path}: the film cannot be read ({error.strerror}).") from None
    if head.startswith(_PNG) and len(head) >= 24:
        _require(b"IEND" in tail, path)
        width, height = struct.unpack(">II", head[16:24])
        return width, height
    if head.startswith(_JPEG):
        _require(b"\xff\xd9" in tail, path)
        found = _jpeg_size(head)
        if found:
            return found
    if head.startswith(b"BM") and len(head) >= 26:
        width, height = struct.unpack("<ii", head[18:26])
        return width, abs(height)
    rows, columns = read_film(path).shape
    return columns, rows


def pixel_size_mm(path: Path) -> tuple[float, float] | None:
    """The (width, height) of a pixel in mm as the film's own file says; None where it does not, or cannot be read.

    Only formats of medicine are believed: what others write for printers says nothing of the patient.
    """
    try:
        return medical.pixel_size_mm(path) if medical.is_medical(path) else None
    except DataError:
        return None  # for whoever reads the film to say


def orientation(path: Path) -> int:
    """The film's EXIF orientation, 1 to 8: 1 is upright, and what a film without the tag has.

    Pixels are read as they are stored; programs that obey the tag show them turned or mirrored.
    """
    from PIL import JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

    readers: dict[str, Callable[[Path], Image]] = {
        ".png": PngImagePlugin.PngImageFile,
        ".webp": WebPImagePlugin.WebPImageFile,
        **dict.fromkeys((".jpg", ".jpeg"), JpegImagePlugin.JpegImageFile),
        **dict.fromkeys((".tif", ".tiff"), TiffImagePlugin.TiffImageFile),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        return 1
    try:
        # Not by Image.open, which refuses films of more than 179 million pixels.
        with reader(path) as image:
            tag = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, struct.error):
        return 1  # damaged, or of another kind than its name says: for read_film to say
    return tag if isinstance(tag, int) and tag in range(1, 9) else 1


def _ends(path: Path) -> tuple[bytes, bytes]:
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
        file.seek(-min(_TAIL_BYTES, path.stat().st_size), 2)
        return head, file.read()


def _require(complete: bool, path: Path) -> None:
    if not complete:
        raise DataError(f"{path}: the film is cut short; copy the file again or use --skip-bad.")


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    position = 2
    while position + 9 <= len(head) and head[position] == 0xFF:
        marker, length = head[position + 1], int.from_bytes(head[position + 2 : position + 4], "big")
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", head[position + 5 : position + 9])
            return width, height
        position += 2 + length
    return None
