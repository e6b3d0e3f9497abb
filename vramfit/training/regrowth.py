"""Growing back: larger micro-batches again, once the card has been calm for a while.

A run that shrank because of something passing, such as a game beside it, would else stay small to its end. Sizes are
those that were in use before an OOM, one step up at a time and only between epochs, so that the order of samples and
the effective batch stay as they are. A try that fails is an OOM like any other: nothing is lost, and the next try waits
for twice as many epochs.
"""

from typing import Any

from vramfit.records import GrowBack
from vramfit.training.monitors import MemoryWatch
from vramfit.training.recovery import Recovery


class RegrowthPolicy:
    """When the next larger micro-batch is tried again; all ranks hold the same one."""

    def __init__(self, recovery: Recovery, memory: MemoryWatch) -> None:
        self._recovery = recovery
        self._memory = memory
        self._calm_epochs = 0
        self._wait_epochs = 1
        self._tried: int | None = None

    def after_epoch(self, epoch: int, *, calm: bool) -> GrowBack | None:
        """Grow where it is time to; every rank must call it after each epoch.

        Args:
            epoch: the one that has just ended, from 1.
            calm: whether it ran to its end without an OOM on this rank.

        """
        ranks, recovery = self._recovery.ranks, self._recovery
        self._learn(calm=not ranks.any(not calm))
        if not recovery.larger or self._calm_epochs < self._wait_epochs:
            return None
        before, after = recovery.micro_batch, recovery.larger[-1]
        if ranks.any(not self._memory.allows(after / before)):
            return None
        recovery.grow_back()
        self._tried, self._calm_epochs = after, 0
        return GrowBack(epoch=epoch + 1, micro_batch_before=before, micro_batch_after=after)

    def _learn(self, *, calm: bool) -> None:
        """Count calm epochs, and wait twice as long after a larger size that failed, until one has held."""
        self._calm_epochs = self._calm_epochs + 1 if calm else 0
        if self._tried is not None:
            self._wait_epochs = 1 if self._recovery.micro_batch >= self._tried else 2 * self._wait_epochs
        self._tried = None

    def plain(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, in types that load with `weights_only`."""
        return {
            "larger": list(self._recovery.larger),
            "calm_epochs": self._calm_epochs,
            "wait_epochs": self._wait_epochs,
            "tried": self._tried,
        }

    def load(self, plain: dict[str, Any], planned: int) -> None:
        """Take up what `plain` wrote; no size goes above `planned`, what the plan of this run allows."""
        sizes = dict.fromkeys(min(size, planned) for size in plain["larger"])
        self._recovery.larger = [size for size in sizes if size > self._recovery.micro_batch]
        self._calm_epochs = plain["calm_epochs"]
        self._wait_epochs = plain["wait_epochs"]
        self._tried = plain["tried"]
