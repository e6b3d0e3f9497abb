"""Reading film files: grey pixels, and the size from the header alone."""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# Start-of-frame markers of JPEG; C4, C8 and CC mean other things.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HEADER_BYTES = 256 * 1024
_TAIL_BYTES = 1024


def read_film(path: Path) -> NDArray[np.uint8]:
    """The grey pixels of a film, uint8 HxW; more than 8 bits are scaled to their brightest.

    OpenCV's own reader fails on non-ASCII paths on Windows, so Python reads the bytes.

    Raises:
        DataError: the file cannot be read or is no image.

    """
    import cv2

    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: the film cannot be read ({error.strerror}).") from None
    # An orientation tag would turn the pixels away from the points that were marked on them.
    how = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(content, how) if content.size else None
    if pixels is None:
        raise DataError(f"{path}: the film is damaged or no image; replace the file or use --skip-bad.")
    return _to_bytes(pixels)


def film_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels, from the header; looks at the end too, for a file cut short.

    Raises:
        DataError: the file cannot be read, is no image, or ends too early.

    """
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


def _to_bytes(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    wide = pixels.astype(np.float32)
    return (wide * (255 / max(float(wide.max()), 1.0))).astype(np.uint8)
