"""`vramfit probe --gpu all`: which card for a job."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vramfit.cli.probe_request import Case
from vramfit.cli.progress import working
from vramfit.cli.results import print_json, require_free, tell, write_result
from vramfit.cli.slurm import slurm_sentences
from vramfit.errors import UsageError

if TYPE_CHECKING:
    from vramfit.cards import Card
    from vramfit.jobs.job import Job


def asks_which_card(gpus: list[str], price: Path | None, price_per_hour: float | None) -> bool:
    """Whether several cards are to be weighed: a selection, a list of names, or prices."""
    from vramfit.cards import select_cards

    return bool(price or price_per_hour) or any("," in gpu or select_cards(gpu) is not None for gpu in gpus)


def answer_which_card(
    case: Case,
    gpus: list[str],
    *,
    price: Path | None,
    price_per_hour: float | None,
    html: Path | None,
    force: bool,
    slurm: bool,
    as_json: bool,
) -> None:
    """Weigh the cards that are named, or those that prices are known of, and print how they compare."""
    require_free(html, force=force)
    cards, prices = _asked(gpus, price, price_per_hour)
    from vramfit.probe.which_card import which_card
    from vramfit.report.which_card import choices_document, choices_page, show_choices

    job = case.job()
    with working(f"comparing {len(cards)} cards", shown=not as_json) as told:
        answer = which_card(job, replace(case.request, gpu=None), cards, prices, lambda card: told(card.name))
    title = f"{_job_words(job)}: {len(cards)} cards compared (predicted)"
    written = [write_result(html, choices_page(answer, title), "Report")] if html is not None else []
    if as_json:
        print_json(choices_document(answer))
    else:
        show_choices(answer, title)
    if slurm:
        picked = [(job, pick.card.name, pick.trial) for pick in answer.picks.values()]
        written += slurm_sentences(picked, answer.schedule)
    tell(written, as_json=as_json)


def _asked(gpus: list[str], price: Path | None, price_per_hour: float | None) -> tuple[list["Card"], dict[str, float]]:
    from vramfit.cards import cards_of, find_card
    from vramfit.probe.prices import read_prices

    if price is not None and price_per_hour is not None:
        raise UsageError("--price names the price of each card and --price-per-hour one of all; give one of them.")
    prices = read_prices(price) if price is not None else {}
    if price_per_hour is not None and not gpus:
        raise UsageError("--price-per-hour is of the cards that are named; give --gpu too.")
    named = [card for gpu in gpus for card in cards_of(gpu)] or [find_card(name) for name in prices]
    cards = list({card.name: card for card in named}.values())
    if price_per_hour is not None:
        prices = dict.fromkeys((card.name for card in cards), price_per_hour)
    return cards, prices


def _job_words(job: "Job") -> str:
    from vramfit.jobs.job import job_key

    size = " {}x{}".format(*job.image_size) if job.image_size else ""
    return f"{job_key(job).model}{size} {job.amp or 'fp32'}"
