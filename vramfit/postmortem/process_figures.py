"""What this process holds of the host, read in microseconds: memory and open files. Linux alone; None elsewhere."""

import os
import sys
from collections import Counter
from pathlib import Path

_FILES = Path("/proc/self/fd")
_PAGE_BYTES = 4096 if sys.platform == "win32" else os.sysconf("SC_PAGE_SIZE")


class ResidentMemory:
    """Main memory of this process; its file stays open, so that a reading takes a few microseconds."""

    def __init__(self) -> None:
        try:
            self._file: int | None = os.open("/proc/self/statm", os.O_RDONLY)
        except OSError:
            self._file = None

    def read(self) -> int | None:
        """Bytes now; None where the system does not tell."""
        if self._file is None:
            return None
        return int(os.pread(self._file, 64, 0).split()[1]) * _PAGE_BYTES

    def __del__(self) -> None:
        if self._file is not None:
            os.close(self._file)


def open_files() -> int | None:
    """How many files, sockets and pipes this process has open."""
    try:
        return len(os.listdir(_FILES))  # noqa: PTH208  # a Path for each would cost a hundred times as much
    except OSError:
        return None


def usual_file() -> str | None:
    """The file, or kind of it, that is open most often."""
    try:
        targets = [str(entry.readlink()) for entry in _FILES.iterdir() if entry.is_symlink()]
    except OSError:
        return None
    names = Counter(target.split(":[")[0] for target in targets)
    return names.most_common(1)[0][0] if names else None
