"""What a reader of a prediction must know of the card itself."""

from vramfit.cards.card import Card
from vramfit.cards.precision import precision_note
from vramfit.choices import Amp


def card_notes(card: Card, amp: Amp | None) -> list[str]:
    """What a card makes of a job's precision, and with whom it shares its memory; nothing of most cards."""
    return [note for note in (precision_note(card, amp), memory_note(card)) if note is not None]


def memory_note(card: Card) -> str | None:
    """Whose memory it is, where the card has none of its own."""
    if not card.shares_host_memory:
        return None
    return (
        f"The {card.name} shares its memory with the system and with the program's own data: "
        "leave what they take with --reserve."
    )
