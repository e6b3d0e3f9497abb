"""Several cards at once: `all`, `>=12GB`, `laptop ampere`, or a list of names; and a name made of its parts."""

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import get_args

from vramfit.cards.card import Card, CardKind
from vramfit.cards.find import find_card
from vramfit.cards.table import CARDS
from vramfit.cards.words import read_words
from vramfit.errors import UnknownCard, UsageError
from vramfit.units import GIB, parse_size

_Condition = Callable[[Card], bool]
_COMPARED: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_COMPARISON = re.compile(r"(>=|<=|==|=|>|<)\s*(\S+)")
_CAPABILITY = re.compile(r"\d{1,2}\.\d")
_ARCHITECTURES = {card.architecture for card in CARDS}
_KINDS = {kind.lower() for kind in get_args(CardKind)} - {"mig"}


def select_cards(text: str) -> list[Card] | None:
    """The cards that meet every condition of a text; None where the text is no such thing, but a card's name.

    A condition is `all`, a comparison with the memory that a card is sold with (`>=12GB`, `<24GB`, `=16GB`) or with its
    compute capability (`>=8.0`), a kind (`laptop`, `desktop`, `workstation`, `server`, `integrated`) or an architecture
    (`ampere`). MIG instances are named one by one.

    Raises:
        UnknownCard: no card meets them.
        UsageError: a comparison with what is no size.

    """
    conditions, others = _read(text)
    return None if others or not conditions else _meeting(conditions, CARDS, text)


def cards_of(text: str) -> list[Card]:
    """The cards of a selection, or of one name or several with commas between them.

    Raises:
        UnknownCard: no card has a name, or several have.

    """
    selected = select_cards(text)
    return selected if selected is not None else [find_card(name) for name in text.split(",")]


def search_cards(text: str) -> list[Card]:
    """The cards that meet every condition of a text and whose names have every other word: `3070` is four cards.

    A size that is not compared, as in `8GB` or `3060 8GB`, is that of the memory that a card is sold with.

    Raises:
        UnknownCard: no card is meant.

    """
    conditions, others = _read(text)
    if conditions and not others:
        return _meeting(conditions, CARDS, text)
    said = read_words(" ".join(others))
    if said.essential:
        wanted = set(said.essential)
        named = [card for card in CARDS if wanted <= set(read_words(card.name).essential)]
    else:
        named = list(CARDS) if said.memory_gib else []
    of_memory = [card for card in named if said.memory_gib in (None, card.sold_gib)]
    return _meeting(conditions, of_memory, text) if of_memory else [find_card(text)]


def card_name(gpu: str | None, *, mig: str | None = None, memory: str | None = None) -> str | None:
    """The name of a card, of an instance of it, or of it with other memory; None where no card is named.

    >>> card_name("A100 80G", mig="1g.10gb"), card_name("rtx2080ti", memory="22GB")
    ('A100 80G MIG 1g.10gb', 'rtx2080ti with 22GB')

    Raises:
        UsageError: a part without a card, both parts, or a memory of no whole number of GB.

    """
    if mig is None and memory is None:
        return gpu
    flag = "--mig" if mig is not None else "--memory"
    if gpu is None:
        raise UsageError(f"{flag} is of a card that is named; give --gpu too.")
    if mig is not None and memory is not None:
        raise UsageError("the memory of a MIG instance is that of its profile; leave out --memory or --mig.")
    if mig is not None:
        return f"{gpu} MIG {mig.lower().removeprefix('mig').strip(' -')}"
    gib = parse_size(memory or "") / GIB
    if gib != int(gib) or gib < 1:
        raise UsageError(f"--memory '{memory}' is no whole number of GB, as cards have; write one such as 12GB.")
    return f"{gpu} with {int(gib)}GB"


def _read(text: str) -> tuple[list[_Condition], list[str]]:
    """The conditions of a text, and its words that are none."""
    words = re.sub(_COMPARISON, r" \1\2 ", text.lower()).replace(",", " ").split()
    read = [(word, _condition(word)) for word in words]
    return [met for _, met in read if met is not None], [word for word, met in read if met is None]


def _meeting(conditions: Sequence[_Condition], cards: Iterable[Card], text: str) -> list[Card]:
    found = [card for card in cards if all(condition(card) for condition in conditions)]
    if not found:
        raise UnknownCard(f"no card is '{text}'; `vramfit cards` lists those that are known.")
    return found


def _condition(word: str) -> _Condition | None:
    if word == "all":
        return lambda _: True
    if word in _KINDS:
        return lambda card: card.kind == word
    if word in _ARCHITECTURES:
        return lambda card: card.architecture == word
    return _comparison(word)


def _comparison(word: str) -> _Condition | None:
    found = _COMPARISON.fullmatch(word)
    if found is None:
        return None
    compare, limit = _COMPARED[found[1]], found[2]
    if _CAPABILITY.fullmatch(limit):
        major, minor = map(int, limit.split("."))
        return lambda card: compare(10 * card.compute_capability[0] + card.compute_capability[1], 10 * major + minor)
    gib = parse_size(limit) / GIB
    return lambda card: compare(card.sold_gib, gib)
