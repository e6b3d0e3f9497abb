"""One self-contained page of a probe: memory and time against the batch, the table, the reason, and the machine."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from vramfit.prediction.frontier import Frontier, FrontierRow
from vramfit.records import Profile, Trial, Verdict
from vramfit.report.frontier import choice_sentence, frontier_table, legend
from vramfit.report.page import facts, figure, page, paragraphs, table
from vramfit.report.plot import Chart, along
from vramfit.report.table import (
    RISKS,
    budget_sentence,
    device_cell,
    headline,
    origin_sentence,
    plan_sentence,
    plan_table,
    precision_and_order,
    remarks,
    step_cell,
    trial_table,
)
from vramfit.units import GIB, format_size

_ROOM = 1.08  # of an axis, above the highest value
_SMALL: dict[str, Any] = {"width": 400, "height": 280, "left": 40}


def probe_page(profile: Profile, frontier: Frontier | None = None) -> str:
    """The page of one probe as HTML text, with that of the levers where they were chosen; it loads nothing."""
    title = headline(profile)
    sections = [f"<h1>{escape(title)}</h1>", *_findings(profile)]
    if frontier is not None:
        sections += _levers(frontier, profile)
    return page(title, [*sections, *_circumstances(profile)])


def cases_page(label: str, results: Sequence[tuple[str, Profile | None]]) -> str:
    """The page of several image sizes or cards: one table over all, and each by itself; None where nothing fits."""
    title = f"Probe by {label}: {', '.join(case for case, _ in results)}"
    sections = [f"<h1>{escape(title)}</h1>", table(plan_table(label, results))]
    for case, profile in results:
        sections.append(f"<h2>{escape(case)}</h2>")
        if profile is None:
            sections.append(paragraphs(["Nothing fits."]))
        else:
            sections += [paragraphs([headline(profile)]), *_findings(profile), *_circumstances(profile)]
    return page(title, sections)


def _findings(profile: Profile) -> Iterator[str]:
    yield f"<p class='lead'>{escape(plan_sentence(profile))}</p>"
    yield paragraphs([budget_sentence(profile.budget)])
    trials = sorted(profile.trials, key=lambda trial: trial.micro_batch)
    if len(trials) > 1:
        yield f"<div class='trio'>{_memory(trials, profile)}{_time(trials, profile)}{_rate(trials, profile)}</div>"
    yield table(trial_table(profile.trials, profile.plan.micro_batch, profile.schedule))
    yield paragraphs(remarks(profile))


def _memory(trials: Sequence[Trial], profile: Profile) -> str:
    """Device memory against the batch with its range, and the budget."""
    budget = profile.budget.budget_bytes / GIB
    known = [(trial, trial.device_used_bytes / GIB) for trial in trials if trial.device_used_bytes is not None]
    bands = [(t.micro_batch, *_gib_band(t, value)) for t, value in known if t.device_used_band_bytes]
    highest = max([budget, *(value for _, value in known), *(high for _, _, high in bands)])
    chart = Chart(_batches(trials), (0, _ROOM * highest), "batch", "device, GiB", **_SMALL)
    layers = [chart.band(bands, "first"), chart.level(budget, f"budget {budget:.2f} GiB")]
    layers.append(chart.line([(trial.micro_batch, value) for trial, value in known], "first"))
    layers += [_dot(chart, trial, value, profile) for trial, value in known]
    at = {trial.micro_batch: value for trial, value in known}
    named = _plan_name(at, profile)
    named += [((t.micro_batch, budget), RISKS[t.verdict]) for t in trials if t.device_used_bytes is None]
    lines = [*along([*at.items()]), *along([(chart.x[0], budget), (chart.x[1], budget)], parts=24)]
    layers.append(chart.names(named, lines, [chart.level_box(budget, f"budget {budget:.2f} GiB")]))
    names = [("first", "what the card shows for the process"), *_band_legend("first", bool(bands))]
    caption = "Reserved memory and CUDA context. Filled: fits the budget."
    return figure(chart.drawing(layers, "Memory against batch", whole_x=True), caption, names)


def _time(trials: Sequence[Trial], profile: Profile) -> str:
    """Milliseconds of a step against the batch, with their range."""
    known = [(trial, 1000 * trial.step_time_s) for trial in trials if trial.step_time_s is not None]
    bands = [
        (t.micro_batch, 1000 * t.step_time_band_s[0], 1000 * t.step_time_band_s[1])
        for t, _ in known
        if t.step_time_band_s
    ]
    highest = max([*(value for _, value in known), *(high for _, _, high in bands)], default=1.0)
    chart = Chart(_batches(trials), (0, _ROOM * highest), "batch", "step, ms", **_SMALL)
    layers = [chart.band(bands, "second"), chart.line([(trial.micro_batch, ms) for trial, ms in known], "second")]
    layers += [_dot(chart, trial, ms, profile, "second") for trial, ms in known]
    at = {trial.micro_batch: ms for trial, ms in known}
    layers.append(chart.names(_plan_name(at, profile), along([*at.items()])))
    names = [("second", "median of a step"), *_band_legend("second", bool(bands))]
    return figure(
        chart.drawing(layers, "Step time against batch", whole_x=True), "One optimizer step of one micro-batch.", names
    )


def _rate(trials: Sequence[Trial], profile: Profile) -> str:
    """Images a second against the batch, and what loading allows, where that is near."""
    known = [(t, t.throughput_images_per_s) for t in trials if t.throughput_images_per_s is not None]
    highest = max((rate for _, rate in known), default=1.0)
    loading = profile.schedule.loading
    near = loading is not None and loading.images_per_s < 2 * highest
    top = max(highest, loading.images_per_s) if loading is not None and near else highest
    chart = Chart(_batches(trials), (0, _ROOM * top), "batch", "images/s", **_SMALL)
    layers = [chart.line([(trial.micro_batch, rate) for trial, rate in known], "third")]
    layers += [_dot(chart, trial, rate, profile, "third") for trial, rate in known]
    said = [(loading.images_per_s, f"loading {loading.images_per_s:.0f} images/s")] if loading and near else []
    layers += [chart.level(*level) for level in said]
    at = {trial.micro_batch: rate for trial, rate in known}
    layers.append(
        chart.names(_plan_name(at, profile), along([*at.items()]), [chart.level_box(*level) for level in said])
    )
    caption = "How much a larger batch gains: where the line is flat, nothing."
    return figure(chart.drawing(layers, "Images a second", whole_x=True), caption, [("third", "training steps alone")])


def _dot(chart: Chart, trial: Trial, value: float, profile: Profile, mark: str = "first") -> str:
    """A trial: filled where it fits, larger where it was chosen, and with its figures when pointed at."""
    told = f"batch {trial.micro_batch}: {device_cell(trial)} GiB, {step_cell(trial)} a step"
    chosen = trial.micro_batch == profile.plan.micro_batch
    title = f"{told}, {RISKS[trial.verdict]}{', chosen' if chosen else ''}"
    hollow = trial.verdict != Verdict.FITS
    return chart.dot(trial.micro_batch, value, mark, title, hollow=hollow, size=6.5 if chosen else 4)


def _plan_name(at: Mapping[int, float], profile: Profile) -> list[tuple[tuple[float, float], str]]:
    """The batch that was chosen, at its value."""
    batch = profile.plan.micro_batch
    return [((batch, at[batch]), "plan")] if batch in at else []


def _band_legend(mark: str, there: bool) -> list[tuple[str, str]]:
    return [(f"area {mark}", "holds the true figure 9 times in 10")] if there else []


def _levers(frontier: Frontier, profile: Profile) -> Iterator[str]:
    yield "<h2>Levers</h2>"
    yield f"<p class='lead'>{escape(choice_sentence(frontier))}</p>"
    yield _frontier_plot(frontier)
    yield table(frontier_table(frontier, profile.schedule), numbered=True)
    yield paragraphs(legend(frontier))


def _frontier_plot(frontier: Frontier) -> str:
    """Memory against time an image, one dot a row of the table: what each choice of levers costs, and what it saves."""
    rows = [(number, row, *both) for number, row in enumerate(frontier.rows, 1) if (both := _both(row.trial))]
    budget = frontier.choice.trial.budget_bytes / GIB
    times = [ms for _, _, ms, _ in rows]
    sizes = [budget, *(side for _, row, _, gib in rows for side in _gib_band(row.trial, gib))]
    chart = Chart(_around(times), _around(sizes), "time an image, ms", "device, GiB", height=320)
    level = budget, f"budget {budget:.2f} GiB"
    layers = [chart.level(*level)]
    for _, row, ms, gib in rows:
        layers += _choice(chart, row, ms, gib)
    at = [(ms, gib) for _, _, ms, gib in rows]
    layers.append(
        chart.names(
            [(place, str(number)) for place, (number, *_) in zip(at, rows, strict=True)], at, [chart.level_box(*level)]
        )
    )
    names = [("first", "chosen"), ("fourth", "not chosen")]
    caption = (
        "Memory and time of each choice, numbered as in the table, with the range that holds the true memory 9 times "
        "in 10. Filled: fits the budget. Farther left is faster, lower takes less memory."
    )
    return figure(chart.drawing(layers, "Memory against time of each choice of levers"), caption, names)


def _around(values: Sequence[float]) -> tuple[float, float]:
    """A range with some room on both sides."""
    room = 0.12 * (max(values) - min(values)) or 0.1 * max(values)
    return max(0.0, min(values) - room), max(values) + room


def _choice(chart: Chart, row: FrontierRow, ms: float, gib: float) -> Iterator[str]:
    mark, trial = "first" if row.chosen else "fourth", row.trial
    low, high = _gib_band(trial, gib)
    title = f"{row.label}, batch {trial.micro_batch}: {device_cell(trial)} GiB, {ms:.1f} ms an image"
    yield chart.rise(ms, low, high, mark)
    yield chart.dot(ms, gib, mark, title, hollow=trial.verdict != Verdict.FITS, size=6 if row.chosen else 4.5)


def _both(trial: Trial) -> tuple[float, float] | None:
    """Milliseconds an image and GiB, where both are known."""
    if trial.step_time_s is None or trial.device_used_bytes is None:
        return None
    return 1000 * trial.step_time_s / trial.micro_batch, trial.device_used_bytes / GIB


def _gib_band(trial: Trial, gib: float) -> tuple[float, float]:
    """The range of a trial's device memory in GiB; its one figure where it has none."""
    band = trial.device_used_band_bytes
    return (gib, gib) if band is None else (band[0] / GIB, band[1] / GIB)


def _batches(trials: Sequence[Trial]) -> tuple[float, float]:
    return trials[0].micro_batch - 0.5, trials[-1].micro_batch + 0.5


def _circumstances(profile: Profile) -> Iterator[str]:
    yield "<h2>Machine and budget</h2>"
    machine, budget, job = profile.machine, profile.budget, profile.job
    precision, _ = precision_and_order(profile)
    parts = {
        "card": format_size(budget.total_bytes),
        "driver": format_size(budget.driver_bytes),
        "other processes": format_size(budget.other_processes_bytes),
        "reserve": format_size(budget.reserve_bytes),
        "CUDA context": format_size(budget.context_bytes),
    }
    said: Mapping[str, str | None] = {
        "card": machine.card,
        "driver": machine.driver,
        "driver model": machine.driver_model,
        "CUDA": machine.cuda,
        "cuDNN": machine.cudnn,
        "torch": machine.torch,
        "Python": machine.python,
        "platform": machine.platform,
        "allocator": machine.allocator_settings,
        "memory": ", ".join(f"{name} {size}" for name, size in parts.items()),
        "job": f"{job.name}: {job.model}, {precision}, {job.optimizer}, fingerprint {job.fingerprint or '-'}",
        "obtained": origin_sentence(profile),
    }
    yield facts((name, text) for name, text in said.items() if text)
