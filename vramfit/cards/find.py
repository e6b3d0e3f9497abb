"""Finding the card that a person or a driver means, or asking which one."""

import re
from collections.abc import Sequence
from difflib import get_close_matches

from vramfit.cards.card import Card
from vramfit.cards.mig import mig_instance, profiles_of
from vramfit.cards.others import refuse_other_makers
from vramfit.cards.table import ALIASES, CARDS
from vramfit.cards.words import Words, read_words
from vramfit.errors import UnknownCard

# `A100 80GB MIG 1g.10gb`, as NVML names an instance; media extensions and graphics change neither memory nor SMs.
_MIG = re.compile(r"\s+mig[- ]?(\d+g\.\d+gb)(?:[+-](?:me|gfx)(?:\.all)?)?\s*$", re.IGNORECASE)
_WITH_MEMORY = re.compile(r"\s+with (\d+) ?g(?:i?b)?\s*$", re.IGNORECASE)
# A driver shows up to a twelfth less of a card than is sold, and ECC takes a sixteenth.
_NEAR = 0.12
# Names that a sentence lists.
_MOST_NAMED = 8


def find_card(text: str, *, total_bytes: int | None = None) -> Card:
    """The card a person means: `rtx3070ti`, `"RTX 3070 Ti"`, `3070 ti` or the name that the driver gives.

    Memory size, board and generation (`40GB`, `PCIe`, `Ada`) narrow the choice. A name that ends in ` MIG 1g.10gb` is
    an instance of that card, one that ends in ` with 22GB` the card with other memory than it is sold with.

    Args:
        text: the name.
        total_bytes: the memory of the card that is here, which decides where drivers give several one name.

    Raises:
        UnknownCard: no card has that name, or several whose memory or chip differ; the message lists them.

    """
    name, profile = _split(_MIG, text)
    name, gib = _split(_WITH_MEMORY, name)
    if profile is not None:
        return mig_instance(_whole_of(name, profile.lower()), profile.lower())
    if gib is not None:
        return _with_memory(name, int(gib))
    return _one_of(text, _candidates(text, total_bytes), total_bytes)


def _split(ending: re.Pattern[str], text: str) -> tuple[str, str | None]:
    found = ending.search(text)
    return (text[: found.start()], found[1]) if found else (text, None)


def _with_memory(name: str, gib: int) -> Card:
    """The card of a name that has so much memory, or the first of them, modded."""
    candidates = _candidates(name, None)
    if sold := [card for card in candidates if card.sold_gib == gib]:
        return _one_of(name, sold, None)
    if len({card.compute_capability for card in candidates}) > 1:
        raise UnknownCard(_question(name, candidates))
    return _first_meant(read_words(name), candidates).with_memory(gib)


def _whole_of(name: str, profile: str) -> Card:
    """The card that an instance is of: where a name means several, one that can be partitioned so."""
    candidates = _candidates(name, None)
    return _one_of(name, [card for card in candidates if profile in profiles_of(card)] or candidates, None)


def _candidates(text: str, total_bytes: int | None) -> list[Card]:
    """The cards that a name fits.

    Raises:
        UnknownCard: none; says why, where the maker, the age or the memory is the reason.

    """
    words = read_words(text)
    named = [card for card in CARDS if words in _OTHER_NAMES[card.name]]
    if named:
        return named
    fitting = [card for card in CARDS if _fits(words, card)]
    if total_bytes is not None:
        # Drivers of older laptops do not say that a card is a laptop's: Quadro P2000 has 5 GB, in a laptop 4 GB.
        laptops = read_words(f"{text} laptop")
        fitting += [card for card in CARDS if _fits(laptops, card) and card not in fitting]
    if not fitting:
        refuse_other_makers(text)
        fitting = _beginning_so(text, words, total_bytes)
    memory = words.memory_gib
    of_memory = [card for card in fitting if memory in (None, card.sold_gib)]
    if not of_memory:
        raise UnknownCard(_no_such_memory(text, words, fitting))
    return [card for card in of_memory if words.soft <= _KEYS[card.name].soft] or of_memory


def _beginning_so(text: str, words: Words, total_bytes: int | None) -> list[Card]:
    """The cards whose names say more, for one that is here: the driver of every Jetson Orin calls it `Orin`.

    Raises:
        UnknownCard: there are none, or no memory decides between them.

    """
    longer = [card for card in CARDS if words.essential and set(words.essential) < set(_KEYS[card.name].essential)]
    if not longer or len(longer) > _MOST_NAMED:
        raise UnknownCard(f"no card is called '{text}'; the nearest are {', '.join(_nearest(text))}.")
    if total_bytes is None:
        raise UnknownCard(_question(text, longer))
    return longer


def _fits(words: Words, card: Card) -> bool:
    key = _KEYS[card.name]
    architectures = key.architecture | {card.architecture}
    # The name of some laptop parts does not say so: Quadro T2000.
    essential = words.without_laptop if _is_silent_laptop(card) else words.essential
    return essential == key.essential and words.architecture <= architectures


def _is_silent_laptop(card: Card) -> bool:
    return card.kind == "laptop" and "laptop" not in _KEYS[card.name].essential


def _one_of(text: str, candidates: Sequence[Card], total_bytes: int | None) -> Card:
    if total_bytes is not None:
        nearest = min(candidates, key=lambda card: abs(card.shown_bytes - total_bytes))
        if len(candidates) > 1 and abs(nearest.shown_bytes / total_bytes - 1) < _NEAR:
            return nearest
    words = read_words(text)
    meant = _first_meant(words, candidates)
    alike = {(card.sold_gib, card.compute_capability) for card in candidates}
    if len(alike) > 1 and not _is_bare(words, meant):
        raise UnknownCard(_question(text, candidates))
    return meant


def _first_meant(words: Words, candidates: Sequence[Card]) -> Card:
    """The card whose own name is just what was said, else the first."""
    return next((card for card in candidates if _is_bare(words, card)), candidates[0])


def _is_bare(words: Words, card: Card) -> bool:
    """Whether a name says all that the card's own name says: `RTX 3080` is one card, `RTX 3080 12GB` another."""
    key = _KEYS[card.name]
    return (key.telling <= words.telling and key.memory_gib in (None, words.memory_gib)) or words in _OTHER_NAMES[
        card.name
    ]


def _question(text: str, candidates: Sequence[Card]) -> str:
    names = _in_words([card.name for card in candidates])
    return f"'{text}' does not say which card is meant; name {names}."


def _no_such_memory(text: str, words: Words, fitting: Sequence[Card]) -> str:
    nearest = list(dict.fromkeys([*(card.name for card in fitting), *_nearest(text)]))[:4]
    sizes = _in_words([f"{gib} GB" for gib in sorted({card.sold_gib for card in fitting})])
    return (
        f"no card is called '{text}', for it is sold with {sizes}; the nearest are {', '.join(nearest)}; "
        f"a modded card is written as '{fitting[0].name} with {words.memory_gib}GB'."
    )


def _in_words(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _nearest(text: str) -> list[str]:
    names = {card.name.lower().replace(" ", ""): card.name for card in CARDS}
    wanted = text.lower().replace(" ", "").replace("-", "")
    return [names[key] for key in get_close_matches(wanted, names, n=4, cutoff=0)]


_KEYS = {card.name: read_words(card.name) for card in CARDS}
_OTHER_NAMES = {card.name: tuple(map(read_words, names)) for card, names in zip(CARDS, ALIASES, strict=True)}
