"""`vramfit cards`: the cards that are known, what is known of each, and where that is from."""

from typing import Annotated

import typer

from vramfit.cli.options import AsJson
from vramfit.cli.results import print_json


def cards(
    which: Annotated[
        list[str] | None,
        typer.Argument(
            help="Words of names, such as 3070, or conditions: '>=12GB', '>=8.0', laptop, server, ampere.",
            metavar="[WHICH...]",
        ),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the cards that can be predicted for: memory, compute capability, rates, and their sources.

    All, or those that meet every condition, or those with these words in their names. A card of several memory sizes
    has a row for each; --gpu takes any of the names.
    """
    from vramfit.cards import CARDS, search_cards

    found = search_cards(" ".join(which)) if which else list(CARDS)
    if as_json:
        print_json({"cards": [card.model_dump(mode="json") for card in found]})
        return
    from vramfit.report.cards import show_cards

    show_cards(found)
