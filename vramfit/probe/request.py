"""What a probe is asked, in one record. Loads nothing heavy: the command line takes its defaults from here."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vramfit.choices import Mode, Objective, ValuePolicy
from vramfit.errors import UsageError
from vramfit.units import NO_LIMITS, MemoryLimits

if TYPE_CHECKING:
    from vramfit.records import Schedule

__all__ = ["MemoryLimits", "ProbeRequest"]

# Where a search ends that knows no data set: a batch beyond it is hardly meant, and its samples may fill the host.
MOST_UNASKED = 4096


def _usual_schedule() -> "Schedule":
    from vramfit.records import Schedule

    return Schedule()


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """One question to a probe; what makes no sense together is refused as it is made.

    >>> ProbeRequest(limits=MemoryLimits.parse(vram="8GB"), gpu="rtx3090", effective_batch=32).maximum
    32

    Raises:
        UsageError: names the option, with the command line's spelling where that differs, and what to do.

    """

    limits: MemoryLimits = NO_LIMITS
    """What the job may use of the card, and what stays free of it."""

    gpu: str | None = None
    """A card that need not be here, such as `rtx3090`: always predicts. None for the card that is here."""

    mode: Mode = "auto"
    """`auto` measures where there is a usable GPU and no `gpu`, else predicts."""

    batch_sizes: tuple[int, ...] | None = None
    """Micro-batches to try, in this order; the first that fits is taken. None searches for the best."""

    objective: Objective = "fastest"
    """`fastest` is the smallest micro-batch within 2 % of the best throughput, `largest` the largest."""

    effective_batch: int | None = None
    """Samples an optimizer step is to see, split into micro-batches that fit. None for one micro-batch."""

    schedule: "Schedule" = field(default_factory=_usual_schedule)
    """Images an epoch, beyond which no micro-batch is tried, and epochs; those of an assumed one limit nothing."""

    choose_levers: bool = False
    """Choose the cheapest levers that make the batch fit, beside the job's own; else the job's own alone."""

    free_levers: bool = False
    """Use the levers that cost this job no time, beside its own."""

    strict: bool = False
    """Refuse to predict a step that reads values which only a card has, in place of assuming them."""

    real_values: bool = False
    """Compute such values on the CPU as the step is traced: right for small models, slow for others."""

    fresh: bool = False
    """Probe anew, whatever an earlier probe of this job on this card found."""

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "measure", "predict"):
            raise UsageError(f"mode is '{self.mode}'; use auto, measure or predict.")
        if self.mode == "measure" and self.gpu is not None:
            raise UsageError(
                f"mode 'measure' tries the card that is here, and gpu (--gpu) '{self.gpu}' is always predicted; "
                "leave one of them out."
            )
        if self.batch_sizes is not None:
            self._check_batch_sizes(self.batch_sizes)
        if self.effective_batch is not None and self.effective_batch < 1:
            raise UsageError(f"effective_batch is {self.effective_batch}; use 1 or more.")

    def _check_batch_sizes(self, sizes: tuple[int, ...]) -> None:
        if not sizes or min(sizes) < 1:
            raise UsageError("batch_sizes needs at least one size, each 1 or more, such as 6,5,4.")
        if self.choose_levers and len(sizes) > 1:
            raise UsageError("--levers auto makes one batch fit; name it with --batch-size in place of --batch-sizes.")
        if self.effective_batch and min(sizes) > self.effective_batch:
            raise UsageError(
                f"effective_batch is {self.effective_batch}, and the smallest micro-batch to try is {min(sizes)}; "
                f"name one of {self.effective_batch} or less."
            )

    @property
    def policy(self) -> ValuePolicy:
        """What a prediction does about values that only a card has."""
        return ValuePolicy(strict=self.strict, real=self.real_values)

    @property
    def maximum(self) -> int:
        """The largest micro-batch of use: the effective batch, or all samples of an epoch where that is known."""
        most = MOST_UNASKED if self.schedule.assumed else self.schedule.images
        return min(most, self.effective_batch or most)
