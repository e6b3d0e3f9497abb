"""GPU models: the table of cards, and finding the one that a person means."""

import re
from difflib import get_close_matches

from vramfit.cards.precision import precision_note, require_bf16
from vramfit.cards.table import CARDS, Card
from vramfit.errors import UnknownCard

__all__ = ["CARDS", "Card", "find_card", "precision_note", "require_bf16"]


def find_card(text: str) -> Card:
    """The card a person means: `rtx3070ti`, `"RTX 3070 Ti"`, `3070 ti` or the name that the driver gives.

    Memory size and board (`40GB`, `PCIe`, `SXM`) narrow the choice where a name has several; without them the
    first of the table is meant.

    Raises:
        UnknownCard: no card has that name; the message lists the nearest.

    """
    essential, details = _words(text)
    for card, (its_essential, its_details) in zip(CARDS, _KEYS, strict=True):
        if essential == its_essential and details <= its_details:
            return card
    raise UnknownCard(f"no card is called '{text}'; the nearest are {', '.join(_nearest(text))}.")


# Words that tell no two cards apart, words that mean the same, and words that tell only the board.
_NOISE = re.compile(
    r"nvidia|geforce|quadro|tesla|rtx|gtx|gpu|graphics|card|generation|with|design|workstation|server|edition"
    r"|pascal|blackwell|hbm\d?e?|desktop"
)
_SAME = {"mobile": "laptop", "notebook": "laptop", "maxq": "laptop"}
_BOARDS = frozenset(("sxm", "pcie", "nvl"))
_WORD = re.compile(r"titan|laptop|mobile|notebook|maxq|super|ti|sxm|\d+ ?gb|\d+|[a-z]+")


def _words(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """A name as the words that say which chip it is, and those that say which memory or board."""
    plain = re.sub(r"[^a-z0-9]+", " ", text.lower()).replace("max q", "maxq").replace("gib", "gb")
    found = (word.replace(" ", "") for word in _WORD.findall(re.sub(r"sxm\d", "sxm", _NOISE.sub(" ", plain))))
    words = {_SAME.get(word, word) for word in found}
    details = {word for word in words if word in _BOARDS or word.endswith("gb")}
    return frozenset(words - details), frozenset(details)


def _key(card: Card) -> tuple[frozenset[str], frozenset[str]]:
    essential, details = _words(card.name)
    return essential, details | {f"{card.sold_gib}gb"}


def _nearest(text: str) -> list[str]:
    names = {card.name.lower().replace(" ", ""): card.name for card in CARDS}
    wanted = text.lower().replace(" ", "").replace("-", "")
    return [names[key] for key in get_close_matches(wanted, names, n=4, cutoff=0)]


_KEYS = tuple(_key(card) for card in CARDS)
