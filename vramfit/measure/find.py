"""`find_batch_size`: the search, for any training code.

The caller's function is the trial. Nothing of vramfit's own step is used, so it serves any framework that raises
when memory runs out, on any device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vramfit.errors import NothingFits, UsageError
from vramfit.measure.preserve import preserved
from vramfit.oom import is_out_of_memory, release_memory
from vramfit.plan.search import CEILING, Search, Tried
from vramfit.records import Verdict

# What it returns counts only where there is a budget to compare it with: most steps return a loss.
TryBatch = Callable[[int], Any]


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
    budget_bytes: int | None = None,
) -> SearchResult:
    """The largest batch size that runs, found with few trials and few errors.

    Args:
        try_batch: runs a real training step with that many samples, optimizer included. It raises when memory runs
            out, in any of the forms that torch, CUDA, cuBLAS and cuDNN have for it, or else returns None or the
            peak in bytes. Make it work on a copy if the model's weights must not move.
        start: the size to begin with, such as a prediction.
        minimum, maximum: the sizes allowed, both included; without a maximum the search ends at 65536. Give the
            number of samples in the data set, beyond which no batch is ever made.
        budget_bytes: what the peak that `try_batch` returns must not exceed; the search then fits a line.

    Random states of python, numpy, torch and CUDA are the same after as before.

    Known limitations:
        It sees what `try_batch` does and no more: run a validation pass in it, and the largest sample that can come,
        if a run has them. What other programs hold of the card counts as it is now. A driver that moves memory to the
        system's RAM (Windows) raises nothing: return the peak and name `budget_bytes`. An error that breaks the CUDA
        context ends the process's use of the card; such steps are for `fit`, which tries each in a child process.

    >>> import torch
    >>> def try_batch(n):  # in place of a training step: 40 samples fit
    ...     if n > 40:
    ...         raise torch.OutOfMemoryError("CUDA out of memory.")
    >>> result = vramfit.find_batch_size(try_batch, start=32)
    >>> result.batch_size, result.reason
    (40, 'batch 40: 41 runs out of memory.')

    Raises:
        NothingFits: `minimum` itself does not run.
        UsageError: sizes below 1, or in no order.
        Exception: whatever else `try_batch` raises.

    """
    _check(start, minimum, maximum, budget_bytes)
    search = Search(minimum=minimum, maximum=maximum or CEILING, guess=start, budget_bytes=budget_bytes)
    tried: list[Tried] = []
    with preserved():
        while (size := search.next_size(tried)) is not None:
            tried.append(_try(try_batch, size, budget_bytes))
    answer = search.answer(tried)
    if answer is None:
        raise NothingFits(
            f"Batch size {minimum} does not fit, and smaller is not allowed; free memory or shrink the job."
        )
    return SearchResult(answer, tuple(tried), _reason(answer, tried, search))


def _try(try_batch: TryBatch, size: int, budget_bytes: int | None) -> Tried:
    failed, returned = False, None
    try:
        returned = try_batch(size)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        failed = True
    # Outside the except: the error's traceback kept the step's tensors alive.
    if failed or _uses_cuda():
        release_memory()
    if failed:
        return Tried(size, Verdict.OOM)
    if budget_bytes is None or returned is None:
        return Tried(size, Verdict.FITS)
    used = int(returned)
    return Tried(size, Verdict.OVER_BUDGET if used > budget_bytes else Verdict.FITS, used)


def _uses_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_initialized())


def _reason(answer: int, tried: list[Tried], search: Search) -> str:
    if answer == search.maximum:
        return f"batch {answer}: the largest allowed, and it fits."
    words = {Verdict.OOM: "runs out of memory", Verdict.OVER_BUDGET: "exceeds the budget"}
    above = next(one for one in tried if one.micro_batch == answer + 1)
    return f"batch {answer}: {answer + 1} {words[above.verdict]}."


def _check(start: int | None, minimum: int, maximum: int | None, budget_bytes: int | None) -> None:
    if minimum < 1:
        raise UsageError(f"minimum is {minimum}; a batch has at least 1 sample.")
    if maximum is not None and maximum < minimum:
        raise UsageError(f"maximum is {maximum}, below the minimum of {minimum}; swap them or raise it.")
    if start is not None and start < 1:
        raise UsageError(f"start is {start}; use a batch size of 1 or more, or None.")
    if budget_bytes is not None and budget_bytes <= 0:
        raise UsageError(f"budget_bytes is {budget_bytes}; use a positive number of bytes, or None.")
