"""The batch for a network that only looks: the fastest that fits, found on the card that is here.

Sizes double from 1 while that makes the card faster. A training run asks for the largest that fits, and pays for the
answer with trials that run out of memory; here a larger one than the fastest would gain nothing.
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter

from vramfit.measure.memory import CardMemory
from vramfit.measure.trial import judge
from vramfit.oom import is_out_of_memory, release_memory
from vramfit.plan.choose import choose_trial, reason_for
from vramfit.records import Budget, Trial, Verdict

# Beyond this no card of today is any faster, and the time until the first result grows.
MOST = 64
COUNTED_PASSES = 3
# What doubling must bring: a card that is busy gains no more than this.
WORTHWHILE = 1.02


def fastest_forward(
    run: Callable[[int], object],
    memory: CardMemory,
    budget: Budget,
    *,
    maximum: int = MOST,
    total_bytes: int | None = None,
) -> tuple[int, str]:
    """The smallest batch that is as fast as any that was tried, and one sentence why.

    Args:
        run: takes so many samples the whole way through the network, on the card; what is on the card already stays.
        memory: the card.
        budget: what may be used at device level.
        maximum: the most samples there are.
        total_bytes: the card's dedicated memory, where exceeding it spills instead of failing (Windows).

    Raises:
        NothingFits: not even one sample.
        Exception: whatever else than running out of memory `run` raises.

    """
    trials: list[Trial] = []
    size = 1
    while size <= min(maximum, MOST):
        trials.append(_tried(run, size, memory, budget, total_bytes))
        if not _pays(trials):
            break
        size *= 2
    chosen = choose_trial(trials, "fastest")
    return chosen.micro_batch, reason_for(chosen, trials, "fastest")


def _tried(
    run: Callable[[int], object], size: int, memory: CardMemory, budget: Budget, total_bytes: int | None
) -> Trial:
    memory.start(budget)
    try:
        times = _timed(run, size, memory)
        figures = memory.figures()
    finally:
        memory.stop()
    if not times:
        release_memory()
    return Trial(
        source="measured",
        micro_batch=size,
        verdict=judge(figures, budget, 0, total_bytes) if times else Verdict.OOM,
        budget_bytes=budget.budget_bytes,
        device_used_bytes=figures.device_used_bytes,
        step_time_s=median(times) if times else None,
    )


def _timed(run: Callable[[int], object], size: int, memory: CardMemory) -> list[float]:
    """Seconds of each pass that counts; none where memory ran out, whose error ends with this function."""
    times = []
    try:
        run(size)  # kernels load, and cuDNN makes its choice
        for _ in range(COUNTED_PASSES):
            memory.synchronize()
            begin = perf_counter()
            run(size)
            memory.synchronize()
            times.append(perf_counter() - begin)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return []
    return times


def _pays(trials: list[Trial]) -> bool:
    """Whether the last doubling fitted and made the card faster."""
    last = trials[-1]
    if last.verdict is not Verdict.FITS or len(trials) == 1:
        return last.verdict is Verdict.FITS
    before, now = (trial.throughput_images_per_s or 0.0 for trial in trials[-2:])
    return now >= WORTHWHILE * before
