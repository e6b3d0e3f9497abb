"""How cards compare for one job: a table, the picks in sentences, and a page with pictures of time against memory."""

import sys
from collections.abc import Sequence
from html import escape
from typing import Any, TextIO

from rich.table import Table

from vramfit.jobs.levers.text import levers_sentence, short_levers
from vramfit.probe.which_card import CardChoice, WhichCard
from vramfit.records import Lever
from vramfit.report.page import figure, page, paragraphs, table
from vramfit.report.plot import Chart
from vramfit.report.table import device_cell, gib, step_cell
from vramfit.report.terminal import make_table, say, show
from vramfit.units import format_duration, format_duration_range

_COLUMNS = ("card", "why", "kind", "sold\nGB", "batch", "device\nGiB", "headroom\nGiB", "step\ntime", "total")
_OF_MONEY = ("price\nan hour", "cost of\nthe run")
_WORDS = {"fastest": "The fastest", "cheapest": "The cheapest", "smallest": "The smallest"}
_HOUR_S = 3600
_NAMED = 6
_ASSUMED = " (assumed: --images and --epochs say how long yours is)"


def choices_table(answer: WhichCard) -> Table:
    """One row a card that holds the job, the quickest first; picks are marked. Money only where prices are known."""
    money = any(choice.price_per_hour is not None for choice in answer.holds)
    more = [_more_levers(choice, answer) for choice in answer.holds]
    drawn = make_table((*_COLUMNS, *(_OF_MONEY if money else ()), *(("levers",) if any(more) else ())))
    for choice, levers in zip(answer.holds, more, strict=True):
        why = ", ".join(name for name, pick in answer.picks.items() if pick.card == choice.card)
        paid = (price_cell(choice.price_per_hour), cost_cell(choice)) if money else ()
        last = (short_levers(levers) if levers else "",) if any(more) else ()
        drawn.add_row(choice.card.name, why, *_cells(choice), *paid, *last, style="bold" if why else None)
    return drawn


def _more_levers(choice: CardChoice, answer: WhichCard) -> tuple[Lever, ...]:
    """The levers of a card's plan that not every card's has."""
    return tuple(lever for lever in choice.levers if lever not in answer.levers)


def pick_sentences(answer: WhichCard) -> list[str]:
    """The picks, and the cards that do not hold the job, one sentence each."""
    said = [f"{_WORDS[name]} that holds it: {_in_words(choice)}." for name, choice in answer.picks.items()]
    said += _price_sentences(answer)
    if "cheapest" not in answer.picks:
        said.append("The cheapest is not known without prices: give --price FILE or --price-per-hour.")
    if answer.too_small:
        largest = max(answer.too_small, key=lambda card: card.memory_bytes)
        count = len(answer.too_small)
        cards = "1 card does" if count == 1 else f"{count} cards do"
        said.append(
            f"{cards} not hold it, the largest of them the {largest.name} with {gib(largest.memory_bytes)} GiB."
        )
    return said


def _price_sentences(answer: WhichCard) -> list[str]:
    """Cards without a price, and prices without a card."""
    unpriced = [choice.card.name for choice in answer.holds if choice.price_per_hour is None]
    said = []
    if unpriced and len(unpriced) < len(answer.holds):
        said.append(f"No price is given for {_few(unpriced)}, so the cheapest is of the others.")
    if answer.unused_prices:
        said.append(f"Prices of cards that were not asked about: {_few(answer.unused_prices)}; name them with --gpu.")
    return said


def _few(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def reading_sentences(answer: WhichCard) -> list[str]:
    """What the figures count, and how sure they are."""
    schedule = answer.schedule
    return [
        f"Total: training steps alone, {schedule.images} images an epoch, {schedule.epochs} epochs"
        f"{_ASSUMED if schedule.assumed else ''}; in parentheses the range that holds the true figure 9 times in 10.",
        _levers_sentence(answer),
        "Predicted, not verified on these cards: each as --gpu NAME alone would plan, but that cards of one generation "
        "share replays, which may move a batch at the edge; the picks are proven each on its own. Probe one with --gpu "
        "for its table.",
    ]


def _levers_sentence(answer: WhichCard) -> str:
    """The levers of all plans, and that some have more."""
    said = levers_sentence(answer.levers) if answer.levers else "Levers: none."
    differ = any(_more_levers(choice, answer) for choice in answer.holds)
    return f"{said} Others, on the cards where they are faster, are in the column of levers." if differ else said


def show_choices(answer: WhichCard, title: str, file: TextIO | None = None) -> None:
    """Print the comparison."""
    file = file or sys.stdout
    say(title, "", file=file)
    show(choices_table(answer), file)
    say("", *pick_sentences(answer), *reading_sentences(answer), file=file)


def choices_page(answer: WhichCard, title: str) -> str:
    """The comparison as one self-contained page: the picture, the picks and the table."""
    sections = [f"<h1>{escape(title)}</h1>", paragraphs(pick_sentences(answer)), _memory_picture(answer)]
    if any(choice.cost is not None for choice in answer.holds):
        sections.append(_money_picture(answer))
    return page(title, [*sections, table(choices_table(answer)), paragraphs(reading_sentences(answer))])


def choices_document(answer: WhichCard) -> dict[str, Any]:
    """The comparison as plain values."""
    return {
        "cards": [_plain(choice) for choice in answer.holds],
        "picks": {name: choice.card.name for name, choice in answer.picks.items()},
        "too_small": [card.name for card in answer.too_small],
        "unused_prices": list(answer.unused_prices),
        "schedule": answer.schedule.model_dump(mode="json"),
    }


def pareto(choices: Sequence[CardChoice], values: Sequence[float]) -> list[int]:
    """Places of the choices that none beats in both run time and value, the quickest first."""
    order = sorted(range(len(choices)), key=lambda place: (choices[place].run_time_s, values[place]))
    best, front = float("inf"), []
    for place in order:
        if values[place] < best:
            best = values[place]
            front.append(place)
    return front


def price_cell(price: float | None) -> str:
    """A price in the prices' own currency; `-` for None."""
    return "-" if price is None else f"{price:.2f}"


def cost_cell(choice: CardChoice) -> str:
    """What the run costs and may cost."""
    if choice.cost is None or choice.cost_band is None:
        return "-"
    return "{:.2f} ({:.2f}-{:.2f})".format(choice.cost, *choice.cost_band)


def _cells(choice: CardChoice) -> tuple[str, ...]:
    trial = choice.trial
    batch = str(trial.micro_batch) + (f" x {choice.accumulation_steps}" if choice.accumulation_steps > 1 else "")
    return (
        choice.card.kind,
        str(choice.card.sold_gib),
        batch,
        device_cell(trial),
        gib(trial.headroom_bytes, signed=True),
        step_cell(trial, choice.accumulation_steps),
        f"{format_duration(choice.run_time_s)} ({format_duration_range(*choice.run_time_band_s)})",
    )


def _in_words(choice: CardChoice) -> str:
    cost = f", for {cost_cell(choice)}" if choice.cost is not None else ""
    batch = f"batch {choice.trial.micro_batch}"
    if choice.accumulation_steps > 1:
        batch += f" x {choice.accumulation_steps} accumulation steps"
    total = f"{format_duration(choice.run_time_s)} ({format_duration_range(*choice.run_time_band_s)})"
    return f"{choice.card.name} ({choice.card.sold_gib} GB), {batch}, {total}{cost}"


def _plain(choice: CardChoice) -> dict[str, Any]:
    named = {"micro_batch", "device_used_bytes", "device_used_band_bytes", "step_time_s", "step_time_band_s", "verdict"}
    return {
        "card": choice.card.name,
        "kind": choice.card.kind,
        "sold_gib": choice.card.sold_gib,
        "compute_capability": list(choice.card.compute_capability),
        **choice.trial.model_dump(mode="json", include=named),
        "accumulation_steps": choice.accumulation_steps,
        "levers": [lever.model_dump(mode="json") for lever in choice.levers],
        "run_time_s": choice.run_time_s,
        "run_time_band_s": list(choice.run_time_band_s),
        "price_per_hour": choice.price_per_hour,
        "cost": choice.cost,
        "cost_band": None if choice.cost_band is None else list(choice.cost_band),
    }


def _memory_picture(answer: WhichCard) -> str:
    sizes = [float(choice.card.sold_gib) for choice in answer.holds]
    caption = (
        "Time of the run against the memory that a card is sold with. On the line: none is both quicker and smaller."
    )
    return _picture(answer.holds, sizes, "memory, GB", caption, answer)


def _money_picture(answer: WhichCard) -> str:
    priced = [choice for choice in answer.holds if choice.cost is not None]
    costs = [choice.cost or 0.0 for choice in priced]
    caption = "Time of the run against its cost. On the line: none is both quicker and cheaper."
    return _picture(priced, costs, "cost of the run", caption, answer)


def _picture(
    choices: Sequence[CardChoice], values: Sequence[float], label: str, caption: str, answer: WhichCard
) -> str:
    hours = [choice.run_time_s / _HOUR_S for choice in choices]
    wide = min(hours) / 2, max(hours) * 1.3  # room for a name at the left
    chart = Chart(wide, _around(values), "total, hours", label, width=820, height=460, logarithmic=True)
    front = pareto(choices, values)
    layers = [chart.line([(hours[place], values[place]) for place in front], "first")]
    for place, choice in sorted(enumerate(choices), key=lambda one: one[0] in front):
        layers.append(_dot(chart, choice, values[place], place in front, answer))
    layers.append(_names(chart, choices, values, front, answer))
    names = [("first", "none is better in both"), ("fourth", "the others")]
    return figure(chart.drawing(layers, caption), f"{caption} Both axes are logarithmic.", names)


def _around(values: Sequence[float]) -> tuple[float, float]:
    """A range of a logarithmic axis, with some room on both sides."""
    return min(values) / 1.3, max(values) * 1.3


def _dot(chart: Chart, choice: CardChoice, value: float, on_front: bool, answer: WhichCard) -> str:
    picked = choice in answer.picks.values()
    hours = choice.run_time_s / _HOUR_S
    return chart.dot(hours, value, "first" if on_front else "fourth", _in_words(choice), size=6 if picked else 4)


def _names(
    chart: Chart, choices: Sequence[CardChoice], values: Sequence[float], front: Sequence[int], answer: WhichCard
) -> str:
    """The picks by name, and of the others on the line those that have room for theirs."""
    picked = {choice.card.name: name for name, choice in answer.picks.items()}
    at = [(choice.run_time_s / _HOUR_S, value) for choice, value in zip(choices, values, strict=True)]
    chosen = [place for place, choice in enumerate(choices) if choice.card.name in picked]
    named = [*chosen, *(place for place in front if place not in chosen)]
    cards = [choices[place].card.name for place in named]
    words = [f"{card}: {picked[card]}" if card in picked else card for card in cards]
    return chart.names([(at[place], said) for place, said in zip(named, words, strict=True)], at)
