"""Several cards by conditions and by names, and a card's name made of its parts."""

import pytest

from vramfit.cards import CARDS, card_name, cards_of, find_card, search_cards, select_cards
from vramfit.errors import UnknownCard, UsageError


def test_all_are_all_and_a_name_is_no_selection():
    assert select_cards("all") == list(CARDS)
    for name in ("rtx3090", "A100 80G", "L40S", "Quadro P4000", ""):
        assert select_cards(name) is None


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        (">=12GB", lambda card: card.sold_gib >= 12),
        (">= 12GB", lambda card: card.sold_gib >= 12),
        ("<8GB", lambda card: card.sold_gib < 8),
        ("=16GB", lambda card: card.sold_gib == 16),
        (">8GB <=24GB laptop", lambda card: 8 < card.sold_gib <= 24 and card.kind == "laptop"),
        (">=8.0,<9.0", lambda card: (8, 0) <= card.compute_capability < (9, 0)),
        ("ampere server", lambda card: card.architecture == "ampere" and card.kind == "server"),
    ],
)
def test_conditions_must_all_hold(text, holds):
    found = select_cards(text)
    assert found == [card for card in CARDS if holds(card)]
    assert 0 < len(found) < len(CARDS)


def test_what_no_card_meets_is_told():
    with pytest.raises(UnknownCard, match="no card is '>900GB'"):
        select_cards(">900GB")
    with pytest.raises(UsageError, match="memory size"):
        select_cards(">=bananas")


def test_a_list_of_names_is_those_cards():
    assert [card.name for card in cards_of("rtx3060, 4090,A100 80G MIG 1g.10gb")] == [
        "RTX 3060",
        "RTX 4090",
        "A100 SXM 80GB MIG 1g.10gb",
    ]
    with pytest.raises(UnknownCard, match="RTX A2000 12GB or RTX A2000 6GB"):
        cards_of("rtx3060,a2000")


def test_a_search_finds_every_card_with_the_words():
    assert {"RTX 3070", "RTX 3070 Ti", "RTX 3070 Laptop"} < {card.name for card in search_cards("3070")}
    assert [card.name for card in search_cards("A100 80G MIG 1g.10gb")] == ["A100 SXM 80GB MIG 1g.10gb"]
    with pytest.raises(UnknownCard, match="of AMD"):
        search_cards("rx 7900")


def test_a_search_holds_to_all_that_is_said():
    assert [card.name for card in search_cards("3060 8GB")] == ["RTX 3060 Ti", "RTX 3060 8GB"]
    assert [card.name for card in search_cards(">=12GB 3060")] == ["RTX 3060"]
    assert {card.kind for card in search_cards("3070 laptop")} == {"laptop"}
    assert search_cards("8GB") == search_cards("=8GB")
    with pytest.raises(UnknownCard, match="no card is '>=16GB 3060'"):
        search_cards(">=16GB 3060")
    with pytest.raises(UnknownCard, match="sold with 8 GB or 12 GB"):
        search_cards("3060 16GB")


def test_a_name_is_made_of_its_parts():
    assert card_name("rtx3090") == "rtx3090"
    assert card_name(None) is None
    assert find_card(card_name("A100 80G", mig="1g.10gb")).sms == 14
    assert find_card(card_name("A100 80G", mig="MIG-1G.10GB")).sms == 14
    assert find_card(card_name("rtx2080ti", memory="22 GB")).sold_gib == 22
    assert find_card(card_name("a100", memory="80GB")).name == "A100 SXM 80GB"


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"gpu": None, "mig": "1g.10gb"}, "--mig is of a card that is named"),
        ({"gpu": None, "memory": "12GB"}, "--memory is of a card that is named"),
        ({"gpu": "a100", "mig": "1g.10gb", "memory": "12GB"}, "leave out --memory or --mig"),
        ({"gpu": "rtx3060", "memory": "12.5GB"}, "no whole number of GB"),
        ({"gpu": "rtx3060", "memory": "12"}, "not a memory size"),
    ],
)
def test_parts_that_make_no_card_are_refused(parts, said):
    with pytest.raises(UsageError, match=said):
        card_name(**parts)
