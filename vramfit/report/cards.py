"""The table of cards that are known."""

import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import TextIO

from rich.table import Table

from vramfit.cards import Card
from vramfit.report.table import gib
from vramfit.report.terminal import make_table, say, show

_COLUMNS = (
    "card",
    "kind",
    "sold\nGB",
    "CUDA\nsees\nGiB",
    "compute\ncap.",
    "SMs",
    "memory\nGB/s",
    "fp16\nTFLOP/s",
    "fp32\nTFLOP/s",
)
_SOURCES = "sources"


def cards_table(cards: Sequence[Card], *, sources: bool) -> Table:
    """One row a card: what it is, its memory, how fast it is at its peak and, with `sources`, where that is from."""
    table = make_table((*_COLUMNS, *((_SOURCES,) if sources else ())))
    for card in cards:
        table.add_row(*_cells(card), *((card.source,) if sources else ()))
    return table


def source_sentences(cards: Sequence[Card]) -> list[str]:
    """Where the figures are from: a line for each source, with the cards that have it."""
    names: dict[str, list[str]] = defaultdict(list)
    for card in cards:
        names[card.source].append(card.name)
    return [f"Source of {', '.join(named)}: {source}." for source, named in names.items()]


def show_cards(cards: Sequence[Card], file: TextIO | None = None) -> None:
    """Print the table; a terminal has the sources below it, a pipe in each row, where `grep` keeps them."""
    file = file or sys.stdout
    show(cards_table(cards, sources=not file.isatty()), file)
    if file.isatty():
        say("", *source_sentences(cards), file=file)


def _cells(card: Card) -> tuple[str, ...]:
    return (
        card.name,
        card.kind,
        str(card.sold_gib),
        gib(card.memory_bytes),
        "{}.{}".format(*card.compute_capability),
        str(card.sms),
        f"{card.bandwidth_bytes_per_s / 1e9:.0f}",
        f"{card.fp16_flops / 1e12:.1f}",
        f"{card.fp32_flops / 1e12:.1f}",
    )
