"""Memory that spills into the system's RAM: Windows drivers from 536.40 on grow slow instead of failing.

Measured by users on an 8 GB laptop 3070: 7.4 GiB 25.8 s a step, 9.2 GiB 98.5 s, 11.8 GiB 309 s, all "fitting".
"""

from collections.abc import Iterable

from vramfit.records import Trial, Verdict

SPILL_ADVICE = (
    "in the NVIDIA Control Panel set 'CUDA - Sysmem Fallback Policy' to 'Prefer No Sysmem Fallback', "
    "so that the driver refuses memory instead of moving it"
)
# Larger micro-batches take less time an image, or as much; twice as much is no longer noise.
CLIFF = 2.0


def mark_spill(trial: Trial, others: Iterable[Trial]) -> Trial:
    """The trial as `spilled` where its time per image is off a cliff against a smaller micro-batch that fitted."""
    if trial.verdict is Verdict.SPILLED:
        return _say(trial, "more memory is reserved than the card has")
    times = [_time_per_image(other) for other in others if _is_smaller_fit(other, trial)]
    mine = _time_per_image(trial)
    if trial.verdict is not Verdict.FITS or mine is None or not times:
        return trial
    best = min(time for time in times if time is not None)
    if mine < CLIFF * best:
        return trial
    spilled = trial.model_copy(update={"verdict": Verdict.SPILLED})
    return _say(spilled, f"an image takes {mine / best:.1f} times as long as in a smaller batch")


def _is_smaller_fit(other: Trial, trial: Trial) -> bool:
    fits = other.verdict is Verdict.FITS and other.micro_batch < trial.micro_batch
    return fits and _time_per_image(other) is not None


def _time_per_image(trial: Trial) -> float | None:
    return trial.step_time_s / trial.micro_batch if trial.step_time_s else None


def _say(trial: Trial, sign: str) -> Trial:
    note = f"spills into system memory ({sign}): {SPILL_ADVICE}"
    return trial.model_copy(update={"note": "; ".join(part for part in (trial.note, note) if part)})
