"""The options of a run, written into its folder so that the run can be repeated."""

from pathlib import Path

from vramfit.files import write_atomically
from vramfit.training.listeners import Listener, RunStart
from vramfit.training.run_folders import RUN_FILE


class RunFile(Listener):
    """Writes `run.yaml` beside the checkpoints when a run begins."""

    def __init__(self, folder: Path, text: str) -> None:
        self._file = folder / RUN_FILE
        self._text = text

    def on_start(self, start: RunStart) -> None:  # noqa: ARG002  # the listener's signature
        """Write the options; those of a run that is gone on with take the place of its earlier ones."""
        write_atomically(self._file, self._text)
