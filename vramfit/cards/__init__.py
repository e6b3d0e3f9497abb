"""GPU models: the table of cards, and finding the one that a person means."""

from vramfit.cards.card import Card, CardKind
from vramfit.cards.find import find_card
from vramfit.cards.notes import card_notes
from vramfit.cards.precision import precision_note, require_bf16
from vramfit.cards.select import card_name, cards_of, search_cards, select_cards
from vramfit.cards.table import CARDS

__all__ = [
    "CARDS",
    "Card",
    "CardKind",
    "card_name",
    "card_notes",
    "cards_of",
    "find_card",
    "precision_note",
    "require_bf16",
    "search_cards",
    "select_cards",
]
