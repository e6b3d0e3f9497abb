"""The frontier: what levers make of one job on one card, the pick, and why the others were not picked.

Sizes in bytes, times in seconds; every row is predicted.
"""

import math
from collections.abc import Sequence

from vramfit.choices import Objective
from vramfit.errors import NothingFits
from vramfit.jobs.levers.recompute import Recompute
from vramfit.jobs.levers.registry import kind_of
from vramfit.jobs.levers.text import describe_levers
from vramfit.plan.choose import choose_trial, excess_of
from vramfit.prediction.lever_search import Fitted, LeverSearch
from vramfit.records import Lever, Record, Trial, Verdict
from vramfit.units import format_gib, format_size

_SIDE_MULTIPLE = 32
_SMALLER_MODEL = "use a smaller model"
_EVERYWHERE = ("selective", "block", "module")
_STEPS_BETWEEN = 4  # rows between the largest batch without and with recomputation
CEILING = 1024


class FrontierRow(Record):
    """One choice of levers: its label and levers, its trial, and why it was picked or not."""

    label: str
    levers: tuple[Lever, ...]
    trial: Trial
    accumulation_steps: int = 1
    reason: str = ""
    chosen: bool = False


class Frontier(Record):
    """All rows, in the order in which levers cost; exactly one is chosen."""

    rows: tuple[FrontierRow, ...]

    @property
    def choice(self) -> FrontierRow:
        """The row to train with."""
        return next(row for row in self.rows if row.chosen)


def find_frontier(
    search: LeverSearch, *, batch_size: int | None = None, objective: Objective = "fastest", maximum: int = CEILING
) -> Frontier:
    """The rows and the pick.

    Args:
        search: the job on its card.
        batch_size: the micro-batch that is wanted; None for the one that the objective prefers.
        objective: `fastest` or `largest`, where no batch is wanted.
        maximum: the largest micro-batch worth trying.

    Raises:
        NothingFits: no levers make even one sample fit; names the shortfall and the cheapest change that would do.

    """
    if batch_size is None:
        return _over_batches(search, objective, maximum)
    return _at_batch(search, batch_size)


def _at_batch(search: LeverSearch, batch_size: int) -> Frontier:
    rows = [_row("as it is", _as_it_is(search, batch_size)), _row("free levers", search.without(batch_size))]
    rows += [_row(f"{setting}, everywhere", search.uniform(batch_size, setting)) for setting in _EVERYWHERE]
    cheapest = search.cheapest(batch_size)
    if cheapest is not None and rows[1].trial.verdict is not Verdict.FITS:
        rows.append(_row("planned recomputation", cheapest))
    if rows[1].trial.verdict is not Verdict.FITS:
        rows += [_row(_beside(fitted.levers, search.plain.job.levers), fitted) for fitted in search.saving(batch_size)]
    divided = _accumulated(search, batch_size)
    rows += [divided] if divided is not None else []
    picked = _pick(rows, cheapest, divided, search, batch_size)
    rows += [] if picked in rows else [picked]
    return Frontier(rows=tuple(_reasoned(row, picked, search) for row in _unlike(rows)))


def _pick(
    rows: Sequence[FrontierRow],
    cheapest: Fitted | None,
    divided: FrontierRow | None,
    search: LeverSearch,
    batch_size: int,
) -> FrontierRow:
    """The plainest row that fits; else the fastest with one lever, or all; else the batch in parts."""
    plain = next((row for row in rows[:2] if row.trial.verdict is Verdict.FITS), None)
    if plain is not None:
        return plain
    planned = [row for row in rows if cheapest is not None and row.trial is cheapest.trial]
    fitting = [row for row in rows if row.trial.verdict is Verdict.FITS]
    saving = [row for row in fitting if _saves(row, search) and not _is_suggestion(row)]
    if planned or saving:
        return min((*planned, *saving), key=lambda row: row.trial.step_time_s or 0.0)
    together = search.together(batch_size)
    if together is not None:
        return _row("levers together", together)
    if divided is not None:
        return divided
    raise _nothing_fits(search, batch_size)


def _saves(row: FrontierRow, search: LeverSearch) -> bool:
    """Whether a row has a lever that saves memory at some cost, beside the job's own and recomputation."""
    names = {lever.name for lever in row.levers} - {lever.name for lever in search.plain.job.levers}
    return bool(names - {Recompute.name})


def _is_suggestion(row: FrontierRow) -> bool:
    return any(kind_of(lever.name).is_suggestion for lever in row.levers)


def _beside(levers: Sequence[Lever], usual: Sequence[Lever]) -> str:
    """What a row has beside the usual levers: `offload_activations`, `lora=16`."""
    return describe_levers(lever for lever in levers if lever not in usual)


def _over_batches(search: LeverSearch, objective: Objective, maximum: int) -> Frontier:
    plain = search.plain.largest_that_fits(maximum)
    largest = search.largest(maximum)
    if largest == 0:
        return _at_batch(search, 1)
    as_it_is = search.as_it_is.largest_that_fits(maximum)
    rows = [_row("as it is", _as_it_is(search, as_it_is))] if as_it_is else []
    rows += [_row("free levers", search.without(plain))] if plain else []
    for size in _between(plain, largest):
        cheapest = search.cheapest(size)
        rows += [_row("planned recomputation", cheapest)] if cheapest is not None else []
    rows = _unlike(rows)
    trial = choose_trial([row.trial for row in rows], objective, batch_norm=search.batch_norm)
    picked = next(row for row in rows if row.trial is trial)
    return Frontier(rows=tuple(_reasoned(row, picked, search) for row in rows))


def _between(plain: int, largest: int) -> list[int]:
    """A few sizes above the largest plain one, up to the largest of all."""
    step = max(1, math.ceil((largest - plain) / _STEPS_BETWEEN))
    return sorted({*range(plain + step, largest, step), largest} - {plain})


def _accumulated(search: LeverSearch, batch_size: int) -> FrontierRow | None:
    """The batch in micro-batches that fit, with free levers if they do, else with recomputation."""
    largest = search.plain.largest_that_fits(batch_size - 1) if batch_size > 1 else 0
    fitted = None
    if largest:
        fitted = search.without(math.ceil(batch_size / math.ceil(batch_size / largest)))
    elif batch_size > 1 and search.cheapest(batch_size) is None:
        largest = search.largest(batch_size - 1)
        fitted = search.cheapest(largest) if largest else None
    if fitted is None:
        return None
    steps = math.ceil(batch_size / fitted.trial.micro_batch)
    return _row("accumulation", fitted).model_copy(update={"accumulation_steps": steps})


def _as_it_is(search: LeverSearch, micro_batch: int) -> Fitted:
    return Fitted(search.as_it_is.job.levers, search.as_it_is.trial(micro_batch))


def _row(label: str, fitted: Fitted) -> FrontierRow:
    return FrontierRow(label=label, levers=fitted.levers, trial=fitted.trial)


def _unlike(rows: Sequence[FrontierRow]) -> list[FrontierRow]:
    """Rows without those that say again what an earlier one says."""
    kept: dict[tuple[str, int], FrontierRow] = {}
    for row in rows:
        kept.setdefault((describe_levers(row.levers), row.trial.micro_batch), row)
    return list(kept.values())


def _reasoned(row: FrontierRow, picked: FrontierRow, search: LeverSearch) -> FrontierRow:
    chosen = row.trial is picked.trial
    reason = _for(row, search) if chosen else _against(row, picked, search)
    return row.model_copy(update={"chosen": chosen, "reason": reason})


def _for(row: FrontierRow, search: LeverSearch) -> str:
    if row.accumulation_steps > 1:
        seen = f"; BatchNorm sees {row.trial.micro_batch} images at a time" if search.batch_norm else ""
        return f"the whole batch does not fit at once with any levers{seen}"
    if any(lever.name == Recompute.name for lever in row.levers) or _saves(row, search):
        plain = search.without(row.trial.micro_batch).trial
        slower = _per_image(row.trial) / _per_image(plain) - 1 if plain.step_time_s else 0.0
        without = "these levers" if _saves(row, search) else "recomputation"
        return f"fits at {slower:.1%} more time than the same batch without {without}"
    return "fits, and no lever that costs time is needed"


def _against(row: FrontierRow, picked: FrontierRow, search: LeverSearch) -> str:
    """What a row lacks, or how fast it is by the measure that the pick's own reason has."""
    if row.trial.verdict is not Verdict.FITS:
        return excess_of(row.trial)
    if _is_suggestion(row) and not _is_suggestion(picked):
        return "would fit, and changes what is learned: name it with --levers if that is meant"
    costs = any(kind_of(lever.name).cost == "time" for lever in set(picked.levers) - set(search.as_it_is.job.levers))
    measure, name = (
        (search.without(picked.trial.micro_batch).trial, "free levers alone") if costs else (picked.trial, "the plan")
    )
    slower = _per_image(row.trial) / _per_image(measure) - 1
    speed = f"as fast as {name}"
    if abs(slower) >= 0.0005:
        speed = f"{abs(slower):.1%} {'slower' if slower > 0 else 'faster'} per image than {name}"
    if row.accumulation_steps == 1:
        return speed
    images = f"BatchNorm sees {row.trial.micro_batch} images at a time"
    seen = images if search.batch_norm else "the batch is not processed at once"
    return f"{speed}, {'and' if slower >= 0.0005 else 'but'} {seen}"


def _per_image(trial: Trial) -> float:
    return (trial.step_time_s or 0.0) / trial.micro_batch


def _nothing_fits(search: LeverSearch, micro_batch: int) -> NothingFits:
    least = search.smallest(micro_batch)
    advice = _cheapest_change(search, least) + _suggested(search, micro_batch)
    return NothingFits(
        f"Batch {micro_batch} does not fit in {format_size(least.trial.budget_bytes)} with any levers: it "
        f"is {format_gib(least.trial.excess_bytes)} short even with as much recomputation as helps; {advice}."
    )


def _suggested(search: LeverSearch, micro_batch: int) -> str:
    """What would fit, of levers that change what is learned, in words to be added; empty for none."""
    rows = [_row(_beside(fitted.levers, search.plain.job.levers), fitted) for fitted in search.saving(micro_batch)]
    fitting = [row.label for row in rows if row.trial.verdict == "fits" and _is_suggestion(row)]
    return f", or, where another result is meant, --levers {' or '.join(fitting)}" if fitting else ""


def _cheapest_change(search: LeverSearch, least: Fitted) -> str:
    """The image size that would fit, where the job has one: activations grow with the area."""
    size = search.plain.job.image_size
    more = search.smallest(least.trial.micro_batch + 1)
    per_image = _high(more.trial) - _high(least.trial)
    fixed = _high(least.trial) - per_image * least.trial.micro_batch
    room = (least.trial.budget_bytes - fixed) / max(1, per_image * least.trial.micro_batch)
    if room <= 0:
        return _SMALLER_MODEL
    if size is None:
        return f"{room:.0%} of its activations would fit, so use smaller samples or a smaller model"
    shrunk = [int(side * math.sqrt(room)) // _SIDE_MULTIPLE * _SIDE_MULTIPLE for side in size]
    if min(shrunk) < _SIDE_MULTIPLE:
        return _SMALLER_MODEL
    return f"use images of {shrunk[0]}x{shrunk[1]}, or allow {format_size(_high(least.trial))}"


def _high(trial: Trial) -> int:
    return trial.device_used_band_bytes[1] if trial.device_used_band_bytes else trial.device_used_bytes or 0
