"""Tables of trials and of plans, for a terminal, a pipe and a bug report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TextIO

from rich.table import Table
from rich.text import Text

from vramfit.cards import CARDS, find_card
from vramfit.errors import UnknownCard
from vramfit.jobs.levers.apply import settled_key
from vramfit.jobs.levers.text import levers_sentence
from vramfit.records import Budget, Profile, Schedule, Trial, Verdict
from vramfit.report.terminal import make_table, say, show, with_columns
from vramfit.units import GIB, format_duration, format_duration_range, format_gib, format_size

MARK = "> "
RISKS: dict[Verdict, str] = {
    Verdict.FITS: "fits",
    Verdict.RISKY: "risky",
    Verdict.OVER_BUDGET: "over budget",
    Verdict.OOM: "out of memory",
    Verdict.SPILLED: "spills to RAM",
    Verdict.FAILED: "failed",
}
# The words stay for who sees no colours, or wants none (NO_COLOR).
_COLOURS = {Verdict.FITS: "green", Verdict.RISKY: "yellow"}
_PLAN_COLUMNS = ("device\nGiB", "headroom\nGiB", "risk", "step\ntime", "time per\nepoch", "total", "source")
_OF_SCHEDULE = ("time per\nepoch", "total")
_TRIAL_COLUMNS = ("batch", "allocated\nGiB", "reserved\nGiB", *_PLAN_COLUMNS)


def trial_table(trials: Sequence[Trial], chosen: int | None, schedule: Schedule | None) -> Table:
    """One row a trial, in the order given; the row whose micro-batch is `chosen` is marked.

    A predicted device figure carries its 90 % band. Time per epoch is that of steps or of loading, the longer; without
    a schedule, or of one that nobody named, there are no such columns.
    """
    table = make_table(_TRIAL_COLUMNS)
    for trial in trials:
        marked = trial.micro_batch == chosen
        cells = _trial_cells(trial, schedule or Schedule(), marked)
        table.add_row(*cells, style="bold" if marked else None)
    return table if schedule and not schedule.assumed else _without_epochs(table)


def plan_table(label: str, plans: Sequence[tuple[str, Profile | None]]) -> Table:
    """One row a case, such as an image size or a card, each with the plan chosen for it; None where nothing fits."""
    table = make_table((label, "batch", *_PLAN_COLUMNS))
    for case, profile in plans:
        table.add_row(case, *_plan_cells(profile))
    return _without_epochs(table) if any(one.schedule.assumed for _, one in plans if one) else table


def _without_epochs(table: Table) -> Table:
    return with_columns(table, [one for one in table.columns if one.header not in _OF_SCHEDULE])


def profile_list(profiles: Mapping[str, Profile]) -> Table:
    """One row a profile: its name, the job, the plan, and how it was obtained."""
    table = make_table(("name", "card", "model", "image", "batch", "source", "torch", "made"))
    for name, profile in profiles.items():
        size = "x".join(map(str, profile.job.image_size or ()))
        what = (profile.machine.card or "-", profile.job.model, size or "-", str(profile.plan.micro_batch))
        table.add_row(name, *what, profile.source, profile.machine.torch, f"{profile.created:%Y-%m-%d}")
    return table


def epoch_time_s(trial: Trial, schedule: Schedule) -> float | None:
    """Seconds of one epoch, of steps and loading the longer; None where no step was timed."""
    rate = trial.throughput_images_per_s
    return None if rate is None else schedule.epoch_time_s(rate)


def step_cell(trial: Trial, steps: int = 1) -> str:
    """The time of an optimizer step of so many passes, and the range of a predicted one."""
    return _with_range(trial.step_time_s, trial.step_time_band_s, lambda seconds: seconds * steps)


def epoch_cell(trial: Trial, schedule: Schedule, epochs: int = 1) -> str:
    """The time of so many epochs, of steps and loading the longer, and the range of a predicted one."""

    def all_epochs(step_s: float) -> float:
        return epochs * schedule.epoch_time_s(trial.micro_batch / step_s)

    return _with_range(trial.step_time_s, trial.step_time_band_s, all_epochs)


def _with_range(middle_s: float | None, band_s: tuple[float, float] | None, take: Callable[[float], float]) -> str:
    if middle_s is None:
        return "-"
    middle = format_duration(take(middle_s))
    return middle if band_s is None else f"{middle} ({format_duration_range(*map(take, band_s))})"


def headline(profile: Profile) -> str:
    """What was probed, on what: `hrnet_w32 768x768 fp16 on RTX 3070 Ti (predicted)`."""
    job = profile.job
    size = "{}x{}".format(*job.image_size) if job.image_size else ""
    words = (job.model, size, *precision_and_order(profile), job.optimizer)
    what = " ".join(word for word in words if word)
    return f"{what} on {profile.machine.card or 'this machine'} ({profile.source})"


def precision_and_order(profile: Profile) -> tuple[str, str]:
    """`fp16`, `bf16` or `fp32`, and `channels_last` or nothing: the job's own, or what the plan's levers make of it."""
    job = settled_key(profile.job, profile.plan.levers)
    return job.amp or "fp32", "channels_last" if job.channels_last else ""


def budget_sentence(budget: Budget) -> str:
    """The budget and every part that led to it."""
    parts = (
        ("driver", budget.driver_bytes),
        ("other processes", budget.other_processes_bytes),
        ("reserve", budget.reserve_bytes),
    )
    taken = "".join(f" - {format_size(size)} {name}" for name, size in parts if size)
    asked = f"; {format_size(budget.requested_bytes)} asked" if budget.requested_bytes else ""
    context = f" (CUDA context {format_size(budget.context_bytes)} included)" if budget.context_bytes else ""
    said = f"Budget {format_size(budget.budget_bytes)}{context}: card {format_size(budget.total_bytes)}{taken}{asked}"
    return f"{said}{_of_a_smaller_card(budget)}."


def _of_a_smaller_card(budget: Budget) -> str:
    """That a card sold with as much as was asked for has less for a job; nothing where the card here is no larger."""
    asked = budget.requested_bytes or 0
    usable = [card.memory_bytes for card in CARDS if card.sold_gib * GIB == asked]
    if asked >= budget.total_bytes or not usable:
        return ""
    low, high = format_gib(min(usable)), format_gib(max(usable))
    has = high if low == high else f"{low.removesuffix(' GiB')} to {high}"
    return f", and a card sold with {asked // GIB} GB has {has} for it: name one with --gpu"


def plan_sentence(profile: Profile) -> str:
    """The batch that was chosen and why, in one sentence."""
    plan = profile.plan
    last = f" (the last of {plan.last_micro_batch})" if plan.last_micro_batch else ""
    split = f" x {plan.accumulation_steps} accumulation steps{last}" if plan.accumulation_steps > 1 else ""
    cards = f" x {plan.world_size} cards" if plan.world_size > 1 else ""
    product = f" = effective batch {plan.effective_batch}" if split or cards else ""
    batch = f"batch {plan.micro_batch}"
    if not product and plan.reason.startswith(batch):
        return f"Plan: {plan.reason}"
    return f"Plan: {batch}{split}{cards}{product}. {plan.reason}".rstrip()


def show_profile(profile: Profile, file: TextIO | None = None) -> None:
    """Print a whole profile: what was probed, the budget, the trials, the plan and why, and what to keep in mind."""
    say(headline(profile), budget_sentence(profile.budget), "", file=file)
    show(trial_table(profile.trials, profile.plan.micro_batch, profile.schedule), file)
    say("", plan_sentence(profile), *remarks(profile), file=file)


def origin_sentence(profile: Profile) -> str:
    """When and with what a profile was obtained."""
    driver = f", driver {profile.machine.driver}" if profile.machine.driver else ""
    return (
        f"{profile.source.capitalize()} on {profile.created:%Y-%m-%d} by vramfit {profile.vramfit_version}"
        f" with torch {profile.machine.torch}{driver}."
    )


def remarks(profile: Profile) -> list[str]:
    """What a reader of the figures must know, and every note of the plan, the budget and the profile."""
    remarks = [levers_sentence(profile.plan.levers)] if profile.plan.levers else []
    remarks.append(_time_sentence(profile))
    if any(trial.device_used_band_bytes for trial in profile.trials):
        remarks.append(
            f"Predicted: in parentheses the range that holds the true figure 9 times in 10.{_counted(profile)}"
        )
    remarks += host_bound_sentences(profile.trials)
    if any(trial.emulated for trial in profile.trials):
        remarks.append("Emulated: a larger card capped to this budget; another chip may pick other kernels.")
    tried = [f"Batch {trial.micro_batch}: {trial.note}" for trial in profile.trials if trial.note]
    assumed = assumptions_of(profile.trials)
    last = [f"Assumed of values that only a card has: {assumed}."] if assumed else []
    return list(dict.fromkeys([*remarks, *tried, *profile.plan.notes, *profile.budget.notes, *profile.notes, *last]))


def host_bound_sentences(trials: Sequence[Trial]) -> list[str]:
    """That the times of small steps are lower bounds; nothing where the card is what a step waits for."""
    waiting = [trial.micro_batch for trial in trials if trial.host_bound]
    if not waiting:
        return []
    below = " and below" if len(waiting) > 1 else ""
    return [
        f"At batch {max(waiting)}{below} the card waits for the host: the time is that of launching each operation, a "
        "lower bound, for Python's own time is not in it, nor in the range."
    ]


def _counted(profile: Profile) -> str:
    """Which memory a predicted figure counts, and how much more NVML shows; nothing of a card that is not known."""
    try:
        card = find_card(profile.machine.card or "", total_bytes=profile.budget.total_bytes)
    except UnknownCard:
        return ""
    more = card.driver_reserve_bytes
    besides = f"; NVML shows {format_size(more)} more as used, which the driver keeps" if more else ""
    return f" Device counts what the job takes of the {format_size(card.memory_bytes)} that CUDA sees{besides}."


def assumptions_of(trials: Iterable[Trial]) -> str:
    """What predictions took for granted, each once with every line that relies on it; empty for nothing."""
    places: dict[str, list[str]] = {}
    for said in dict.fromkeys(one for trial in trials for one in trial.assumptions):
        place, _, what = said.partition(": ")
        places.setdefault(what, []).append(place)
    return "; ".join(f"{what} ({_few(lines)})" for what, lines in places.items())


def _few(lines: list[str]) -> str:
    return ", ".join(lines[:3]) + (f" and {len(lines) - 3} more" if len(lines) > 3 else "")


def _time_sentence(profile: Profile) -> str:
    """What the times count, and whether the GPU or data loading limits them."""
    schedule = profile.schedule
    length = f"{schedule.images} images an epoch, {schedule.epochs} epoch{'' if schedule.epochs == 1 else 's'}"
    loading = schedule.loading
    if schedule.assumed:
        return "Times: training steps alone; --images and --epochs say how long an epoch and the run take."
    if loading is None:
        return f"Times: training steps alone, {length}."
    timed = [trial for trial in profile.trials if trial.throughput_images_per_s]
    waiting = [str(trial.micro_batch) for trial in timed if schedule.waits(trial.throughput_images_per_s or 0.0)]
    workers = "1 worker" if loading.workers == 1 else f"{loading.workers} workers"
    gpu = "limited by the GPU, not by data loading"
    limit = f"batch {', '.join(waiting)} is limited by data loading" if waiting else gpu
    rate = f"{workers} of this machine, measured, would load {loading.images_per_s:.0f} images/s"
    return f"Times: {length}, the longer of steps and loading; {rate}: {limit}."


def _trial_cells(trial: Trial, schedule: Schedule, marked: bool) -> tuple[str | Text, ...]:
    return (
        f"{MARK if marked else ''}{trial.micro_batch}",
        gib(trial.peak_allocated_bytes),
        gib(trial.peak_reserved_bytes),
        *_figures(trial, schedule),
    )


def _plan_cells(profile: Profile | None) -> tuple[str | Text, ...]:
    trial = profile.trial(profile.plan.micro_batch) if profile else None
    if profile is None or trial is None:
        return ("-", "-", "-", "nothing fits", "-", "-", "-", "")
    return (str(profile.plan.micro_batch), *_figures(trial, profile.schedule))


def risk_cell(trial: Trial) -> Text:
    """The verdict in a word, coloured on a terminal."""
    return Text(RISKS[trial.verdict], _COLOURS.get(trial.verdict, "red"))


def _figures(trial: Trial, schedule: Schedule) -> tuple[str | Text, ...]:
    return (
        device_cell(trial),
        gib(trial.headroom_bytes, signed=True),
        risk_cell(trial),
        step_cell(trial),
        epoch_cell(trial, schedule),
        epoch_cell(trial, schedule, schedule.epochs),
        f"{trial.source}, emulated" if trial.emulated else trial.source,
    )


def device_cell(trial: Trial) -> str:
    """What a trial takes of the card in GiB, and the range of a predicted one."""
    middle = gib(trial.device_used_bytes)
    if trial.device_used_band_bytes is None:
        return middle
    low, high = trial.device_used_band_bytes
    return f"{middle} ({gib(low)}-{gib(high)})"


def gib(size_bytes: int | None, *, signed: bool = False) -> str:
    """A size in GiB with two decimals; `-` for None."""
    if size_bytes is None:
        return "-"
    return f"{size_bytes / GIB:+.2f}" if signed else f"{size_bytes / GIB:.2f}"
