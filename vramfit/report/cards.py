"""The table of cards that are known."""

from collections.abc import Sequence

from rich.table import Table

from vramfit.cards import Card
from vramfit.report.table import gib
from vramfit.report.terminal import make_table

_COLUMNS = (
    "card",
    "kind",
    "sold\nGB",
    "CUDA sees\nGiB",
    "compute\ncapability",
    "SMs",
    "memory\nGB/s",
    "fp16\nTFLOP/s",
    "fp32\nTFLOP/s",
    "sources",
)


def cards_table(cards: Sequence[Card]) -> Table:
    """One row a card: what it is, what its memory is, how fast it is at its peak, and where that is from."""
    table = make_table(_COLUMNS)
    for card in cards:
        table.add_row(
            card.name,
            card.kind,
            str(card.sold_gib),
            gib(card.memory_bytes),
            "{}.{}".format(*card.compute_capability),
            str(card.sms),
            f"{card.bandwidth_bytes_per_s / 1e9:.0f}",
            f"{card.fp16_flops / 1e12:.1f}",
            f"{card.fp32_flops / 1e12:.1f}",
            card.source,
        )
    return table
