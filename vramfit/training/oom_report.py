"""Why the first OOM of a run came: told while its tensors are alive, written next to the run, and never in its way."""

import logging
from collections.abc import Callable
from pathlib import Path

from torch import nn

from vramfit.postmortem.out_of_memory import OomReport, report_out_of_memory
from vramfit.training.rollback import Recordable

_LOG = logging.getLogger("vramfit")


class FirstOom:
    """Call it with an OOM inside its `except`; all but the first are left alone.

    `folder` is where the report goes, None for nowhere; `tell` is given its first sentence, by default the logger
    `vramfit` as a warning.
    """

    def __init__(
        self, step: Recordable, folder: str | Path | None = None, tell: Callable[[str], None] = _LOG.warning
    ) -> None:
        self._step, self._folder, self._tell = step, folder, tell
        self._seen = False

    def __call__(self, error: BaseException) -> None:
        """Explain an OOM; whatever goes wrong with that is no reason to end a run that can go on."""
        if self._seen:
            return
        self._seen = True
        try:
            report = self._report(error)
        except Exception as failure:  # memory is short, and the disk may be full
            _LOG.debug("no report of the OOM: %s", failure)
            return
        if report is not None:
            self._tell(report.sentence)

    def _report(self, error: BaseException) -> OomReport | None:
        step = self._step
        average: nn.Module | None = step.average.model if step.average is not None else None
        return report_out_of_memory(
            error, model=step.model, optimizers=(step.optimizer,), average=average, folder=self._folder
        )
