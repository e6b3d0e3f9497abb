"""The errors that reach a user of vramfit, and the exit code of each.

VramfitError                exit 1  something vramfit did not expect
├── UsageError              exit 2  an option or argument that makes no sense
│   └── UnknownCard         exit 2  a GPU name that no card has
├── NothingFits             exit 3  not even the smallest batch fits the budget
├── NoUsableGpu             exit 4  a GPU was asked for and none can be used
├── ProfileError            exit 5  a profile that is damaged, stale or of another job
├── OutOfMemory             exit 6  out of memory, and no smaller batch is left
├── DataError               exit 7  a film, annotation, checkpoint or snapshot that cannot be used
│   └── NotTraceable        exit 7  a step that cannot run on storage-less tensors
├── AllocatorOom            exit 1  a replayed request that the limit refuses (prediction alone)
├── ScriptFailed            its own   a user's script that failed by itself
├── CannotWrite             exit 8  a file could not be written; what was there is untouched
└── NotFinite               exit 1  the loss became NaN or infinite

A message is one sentence: what is wrong, where, and what to do. Only cli/ prints it.
"""


class VramfitError(Exception):
    """Base of the tree; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(VramfitError):
    """An option or argument that makes no sense."""

    exit_code = 2


class UnknownCard(UsageError):
    """A GPU name that no card in the table has."""


class NothingFits(VramfitError):
    """Not even the smallest batch allowed fits the budget."""

    exit_code = 3


class NoUsableGpu(VramfitError):
    """A GPU was asked for, and none can be used."""

    exit_code = 4


class ProfileError(VramfitError):
    """A profile that is damaged, stale, or made for another job or card."""

    exit_code = 5


class OutOfMemory(VramfitError):
    """Out of memory with no smaller micro-batch left to try."""

    exit_code = 6


class DataError(VramfitError):
    """A film, annotation, checkpoint or snapshot that cannot be used as it is."""

    exit_code = 7


class NotTraceable(DataError):
    """A step that cannot run on storage-less tensors; names the operation and the line."""


class CannotWrite(VramfitError):
    """A file could not be written; what was there before is untouched."""

    exit_code = 8


class NotFinite(VramfitError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""


class ScriptFailed(VramfitError):
    """A user's script failed by itself; `exit_code` is the script's own."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
