"""What the values of a searched option did: how many samples the data gave them, and whether they changed anything."""

from collections.abc import Mapping

from vramfit.errors import UsageError
from vramfit.records import Trial
from vramfit.script.command import Command
from vramfit.script.outcome import Outcome
from vramfit.units import format_size

# Runs of as many samples whose peaks differ by less than this share took the same: lengths of texts may vary a little.
_SAME_PEAK = 0.05


def most_samples(outcomes: Mapping[int, Outcome]) -> int | None:
    """The largest batch that a script's data makes, where larger values were tried; None where they were not."""
    seen = {value: outcome.batch_size for value, outcome in outcomes.items()}
    short = [batch for value, batch in seen.items() if batch < value]
    is_batch = any(batch == value for value, batch in seen.items())
    return max(short) if short and is_batch else None


def within_data(trial: Trial, outcomes: Mapping[int, Outcome]) -> Trial:
    """The trial of a value, which says so in its note where the script's data makes no batch as large."""
    most = most_samples(outcomes)
    if most is None or trial.micro_batch <= most:
        return trial
    return trial.model_copy(update={"note": f"the data makes batches of {most} at most"})


def require_effect(option: str, outcomes: Mapping[int, Outcome], peaks: Mapping[int, int]) -> None:
    """Refuse a search whose values made no difference: every run had as many samples, and took as much memory.

    `peaks` are the most bytes of tensors by value.

    Raises:
        UsageError: the script ignores the option.

    """
    counts = {outcomes[value].batch_size for value in peaks}
    if len(peaks) < 2 or len(counts) > 1 or counts == {min(peaks)}:
        return
    (samples,), highest = counts, max(peaks.values())
    if highest - min(peaks.values()) > (_SAME_PEAK * highest if samples else 0):
        return
    had = f"had {samples} samples and " if samples else ""
    raise UsageError(
        f"--find {option} changes nothing: every run {had}took {format_size(highest)} of tensors, with values of "
        f"{min(peaks)} to {max(peaks)}; name one that the script's memory depends on."
    )


def share_of_rank(effective_batch: int, command: Command) -> int:
    """Samples of an optimizer step on one rank.

    Raises:
        UsageError: they cannot be shared out evenly.

    """
    if effective_batch % command.world_size:
        raise UsageError(f"--effective-batch {effective_batch} cannot be shared by {command.world_size} ranks evenly.")
    return effective_batch // command.world_size


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of a number up to a limit: a script's accumulation steps are all of one size."""
    return next(size for size in range(min(limit, number), 0, -1) if number % size == 0)
