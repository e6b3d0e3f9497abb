"""Films that lie within other files, one subject of an image or one picture of a stack, as files of their own.

They are written as PNG into the user's folder of caches, never into a film set; the name holds a digest of the file
they come from, its size and time of change, so that a changed file makes others.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vramfit.files import user_cache_folder, write_atomically


def unpacked(source: Path, part: str, pixels: Callable[[], NDArray[np.uint8]]) -> Path:
    """The PNG of one part of a file, written if it is not there yet.

    Args:
        source: the file.
        part: what of it, in a few words that tell parts apart.
        pixels: gives the grey pixels, uint8 HxW; called only where the PNG is to be written.

    Raises:
        CannotWrite: no space or permission for it.
        DataError: what `pixels` raises.

    """
    import cv2

    state = source.stat()
    key = repr((str(source.resolve()), state.st_size, state.st_mtime_ns, part))
    name = f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:20]}.png"
    path = user_cache_folder() / "unpacked" / name
    if not path.is_file():
        write_atomically(path, cv2.imencode(".png", pixels())[1].tobytes())
    return path
