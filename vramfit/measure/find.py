"""`find_batch_size`: the search, for any training code.

The caller's function is the trial. Nothing of vramfit's own step is used, so it serves any framework that raises
when memory runs out, on any device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vramfit.errors import NothingFits, UsageError
from vramfit.jobs.ranks import Ranks
from vramfit.measure.preserve import preserved
from vramfit.oom import is_out_of_memory, release_memory
from vramfit.plan.search import CEILING, Search, Tried
from vramfit.records import Verdict

# What it returns counts only where there is a budget to compare it with: most steps return a loss.
TryBatch = Callable[[int], Any]
OnTrial = Callable[[Tried], object]


@dataclass(frozen=True)
class SearchResult:
    """What the search found: a batch size that was run and fitted, and everything that was tried, in order."""

    batch_size: int
    trials: tuple[Tried, ...]
    reason: str


def find_batch_size(
    try_batch: TryBatch,
    *,
    start: int | None = None,
    minimum: int = 1,
    maximum: int | None = None,
    multiple_of: int = 1,
    budget_bytes: int | None = None,
    reserve_bytes: int = 0,
    max_trials: int | None = None,
    on_trial: OnTrial = lambda _: None,
) -> SearchResult:
    """The largest batch size that runs, found with few trials and few errors.

    Args:
        try_batch: runs a real training step with that many samples, optimizer included. It raises when memory runs
            out, in any of the forms that torch, CUDA, cuBLAS and cuDNN have for it, or else returns None or the
            peak in bytes. Make it work on a copy if the model's weights must not move.
        start: a size that is believed in, such as a prediction; the first trial is a tenth below it, which a good one
            fits. One far above what fits costs four errors at most up to 528, and about as many above.
        minimum, maximum: the sizes allowed, both included; without a maximum the search ends at 65536. Give the
            number of samples in the data set, beyond which no batch is ever made.
        multiple_of: sizes to try are multiples of it.
        budget_bytes: what the peak that `try_batch` returns must not exceed; the search then fits a line. On a CUDA
            card without it the peak that torch reserves is read, and the line leads to what the card has free.
        reserve_bytes: what must stay free of the budget, or of the card, which is then read though no CUDA runs yet.
        max_trials: the most trials; then the largest size that fitted so far is the answer.
        on_trial: is told of each trial.

    A size that fails just above the answer is tried a second time, so that an error that has another cause (another
    program's memory for a moment, a library's handle) does not decide. Random states of python, numpy, torch and CUDA
    are the same after as before. Where torch.distributed is initialised every rank calls it with the same arguments:
    a size fits when it fits on all.

    Known limitations:
        It sees what `try_batch` does and no more: run a validation pass in it, and the largest sample that can come,
        if a run has them. What other programs hold of the card counts as it is now. A driver that moves memory to the
        system's RAM (Windows) raises nothing: return the peak and name `budget_bytes`. An error that breaks the CUDA
        context ends the process's use of the card; such steps are for `fit`, which tries each in a child process. A
        rank that fails within a collective leaves the others waiting in it: run backward passes under `no_sync()`.

    >>> import torch
    >>> def try_batch(n):  # in place of a training step: 40 samples fit
    ...     if n > 40:
    ...         raise torch.OutOfMemoryError("CUDA out of memory.")
    >>> result = vramfit.find_batch_size(try_batch, start=32)
    >>> result.batch_size, result.reason
    (40, 'batch 40: 41 runs out of memory.')

    Raises:
        NothingFits: `minimum` itself does not run, or nothing within `max_trials`.
        UsageError: sizes below 1, or in no order; a reserve of a card that cannot be read.
        Exception: whatever else `try_batch` raises.

    """
    bounds = Bounds(minimum, CEILING if maximum is None else maximum, multiple_of, max_trials)
    bounds.check(start)
    _check_bytes(budget_bytes, reserve_bytes)
    trials = Trials(try_batch, budget_bytes, reserve_bytes, on_trial)
    return search_sizes(trials, bounds, start)


@dataclass(frozen=True)
class Bounds:
    """The sizes that a search may try, all multiples of `multiple_of`, and how many trials."""

    minimum: int
    maximum: int
    multiple_of: int = 1
    max_trials: int | None = None

    @property
    def smallest(self) -> int:
        """The smallest multiple allowed."""
        return -(-self.minimum // self.multiple_of) * self.multiple_of

    @property
    def largest(self) -> int:
        """The largest multiple allowed."""
        return self.maximum // self.multiple_of * self.multiple_of

    def check(self, start: int | None) -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: sizes below 1, or in no order; no multiple between them.

        """
        for name, value in (("minimum", self.minimum), ("multiple_of", self.multiple_of)):
            if value < 1:
                raise UsageError(f"{name} is {value}; a batch has at least 1 sample.")
        if self.maximum < self.minimum:
            raise UsageError(f"maximum is {self.maximum}, below the minimum of {self.minimum}; swap them or raise it.")
        if self.largest < self.smallest:
            raise UsageError(f"no multiple of {self.multiple_of} is between {self.minimum} and {self.maximum}.")
        if start is not None and start < 1:
            raise UsageError(f"start is {start}; use a batch size of 1 or more, or None.")
        if self.max_trials is not None and self.max_trials < 1:
            raise UsageError(f"max_trials is {self.max_trials}; use 1 or more, or None.")


class Trials:
    """Runs sizes, on every rank, and tells what came of them."""

    def __init__(
        self, try_batch: TryBatch, budget_bytes: int | None, reserve_bytes: int = 0, on_trial: OnTrial = lambda _: None
    ) -> None:
        """Read the card, where there is one and no budget is given.

        Raises:
            UsageError: a reserve, and neither.

        """
        self._try_batch, self._on_trial = try_batch, on_trial
        self._reads_card = budget_bytes is None and (_uses_cuda() or (reserve_bytes > 0 and _has_cuda()))
        if reserve_bytes and budget_bytes is None and not self._reads_card:
            raise UsageError("reserve_bytes needs a CUDA card, or budget_bytes and a try_batch that returns its peak.")
        room = _card_room_bytes() if self._reads_card else budget_bytes
        self.budget_bytes = None if room is None else max(1, room - reserve_bytes)
        # Without a reserve the card itself says what fits: what it has free is the line's aim alone.
        self._is_bound = not self._reads_card or reserve_bytes > 0
        self._ranks = Ranks.here()

    def __call__(self, size: int) -> Tried:
        """What came of one size."""
        failed, other, returned = False, None, None
        if self._reads_card:
            _forget_card_peak()
        try:
            returned = self._try_batch(size)
        except Exception as error:
            failed = is_out_of_memory(error)
            other = None if failed else error
        used = None if failed or other is not None else self._used_bytes(returned)
        # Outside the except: the error's traceback kept the step's tensors alive.
        if failed or _uses_cuda():
            release_memory()
        tried = self._agreed(Tried(size, self._verdict(failed, used), used), other)
        self._on_trial(tried)
        return tried

    def _used_bytes(self, returned: Any) -> int | None:
        if self._reads_card:
            return _card_peak_bytes()
        return None if self.budget_bytes is None or returned is None else int(returned)

    def _verdict(self, failed: bool, used: int | None) -> Verdict:
        if failed:
            return Verdict.OOM
        over = used is not None and self._is_bound and self.budget_bytes is not None and used > self.budget_bytes
        return Verdict.OVER_BUDGET if over else Verdict.FITS

    def _agreed(self, mine: Tried, error: Exception | None) -> Tried:
        """The worst of the ranks' outcomes; an error of one ends the search on all."""
        ballot = (mine, None if error is None else type(error).__name__)
        everyones: list[tuple[Tried, str | None]] = self._ranks.gather(ballot)
        if error is not None:
            raise error
        broken = next((name for _, name in everyones if name is not None), None)
        if broken is not None:
            raise RuntimeError(f"another rank ended the search for the batch size with a {broken}.")
        outcomes = [one for one, _ in everyones]
        worst = max(outcomes, key=lambda one: (one.verdict is Verdict.OOM, one.used_bytes or 0))
        return replace(worst, micro_batch=mine.micro_batch)


def search_sizes(trials: Trials, bounds: Bounds, start: int | None, known: Sequence[Tried] = ()) -> SearchResult:
    """The largest size within bounds that `trials` finds to fit, where some may be known already.

    Raises:
        NothingFits: no size does.

    """
    unit = bounds.multiple_of
    search = Search(
        minimum=bounds.smallest // unit,
        maximum=bounds.largest // unit,
        guess=None if start is None else max(1, start // unit),
        budget_bytes=trials.budget_bytes,
    )
    believed = [replace(one, micro_batch=one.micro_batch // unit) for one in known]
    tried: list[Tried] = []
    with preserved():
        while bounds.max_trials is None or len(known) + len(tried) < bounds.max_trials:
            size = search.next_size(believed) or _doubtful_size(search, believed, [*known, *tried], unit)
            if size is None:
                break
            tried.append(trials(size * unit))
            believed = [one for one in believed if one.micro_batch != size]
            believed.append(replace(tried[-1], micro_batch=size))
    answer = search.answer(believed)
    if answer is None:
        raise NothingFits(_nothing(bounds, [*known, *tried]))
    return SearchResult(answer * unit, tuple(tried), _reason(answer * unit, [*known, *tried], bounds))


def _doubtful_size(search: Search, believed: Sequence[Tried], tried: Sequence[Tried], unit: int) -> int | None:
    """The size just above the answer, if it failed once and nothing that was read says that it must."""
    answer = search.answer(believed) or search.minimum - 1
    runs = [one.verdict for one in tried if one.micro_batch == (answer + 1) * unit]
    if runs != [Verdict.OOM]:
        return None
    read = next((one.used_bytes for one in believed if one.micro_batch == answer), None)
    # A line through the origin never falls short of what the next size takes.
    if search.budget_bytes and read and read * (answer + 1) > search.budget_bytes * answer:
        return None
    return answer + 1


def _reason(answer: int, tried: Sequence[Tried], bounds: Bounds) -> str:
    if answer == bounds.largest:
        words = "the largest allowed" if bounds.maximum < CEILING else "where a search without a maximum ends"
        return f"batch {answer}: {words}, and it fits."
    words_of = {Verdict.OOM: "runs out of memory", Verdict.OVER_BUDGET: "exceeds the budget"}
    above = min((one for one in tried if not one.fits), key=lambda one: one.micro_batch, default=None)
    if above is None or above.micro_batch > answer + bounds.multiple_of:
        return f"batch {answer}: the largest that fitted in {len(tried)} trials."
    return f"batch {answer}: {above.micro_batch} {words_of[above.verdict]}."


def _nothing(bounds: Bounds, tried: Sequence[Tried]) -> str:
    least = min((one.micro_batch for one in tried), default=bounds.smallest)
    if least > bounds.smallest:
        return f"No batch size fits in {len(tried)} trials, the smallest of {least}; allow more trials or start lower."
    return f"Batch size {least} does not fit, and smaller is not allowed; free memory or shrink the job."


def _check_bytes(budget_bytes: int | None, reserve_bytes: int) -> None:
    if budget_bytes is not None and budget_bytes <= 0:
        raise UsageError(f"budget_bytes is {budget_bytes}; use a positive number of bytes, or None.")
    if reserve_bytes < 0:
        raise UsageError(f"reserve_bytes is {reserve_bytes}; use a number of bytes from 0.")


def _uses_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_initialized())


def _has_cuda() -> bool:
    """Whether there is a card, in use by this process or not yet."""
    import torch

    return bool(torch.cuda.is_available())


def _card_room_bytes() -> int:
    """What torch may hold of the current card, in bytes: what it holds and what is free."""
    import torch

    from vramfit.measure.memory import room_bytes

    release_memory()
    device = torch.device("cuda", torch.cuda.current_device())
    return torch.cuda.memory_reserved(device) + room_bytes(device)


def _forget_card_peak() -> None:
    import torch

    torch.cuda.reset_peak_memory_stats()


def _card_peak_bytes() -> int:
    import torch

    return torch.cuda.max_memory_reserved()
