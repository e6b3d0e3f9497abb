"""`vramfit cards`, and --mig and --memory of the verbs that take a card."""

import json
import re
from io import StringIO

import pytest
from rich.cells import cell_len

from vramfit.cards import search_cards
from vramfit.report.cards import show_cards


class Terminal(StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_table_has_every_card_and_its_sources(vramfit):
    out = vramfit("cards").out
    lines = out.splitlines()
    assert len(lines) > 280
    assert "sources" in lines[0]
    assert any(line.startswith("RTX 3070 Ti ") and "NVIDIA GA102" in line for line in lines)


def test_a_narrow_terminal_has_one_table_and_each_source_once_below_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    cards, text = search_cards("3070"), Terminal()
    show_cards(cards, text)
    lines = re.sub(r"\x1b\[\d*m", "", text.getvalue()).splitlines()
    assert max(map(cell_len, lines)) <= 80
    rows = [line for line in lines if line.startswith("RTX 3070 Ti Laptop")]
    assert len(rows) == 1
    assert "Source of RTX 3070 Ti, RTX 3070 Laptop, RTX 3070 Ti Laptop: NVIDIA GA102" in " ".join(lines)


def test_conditions_and_words_choose_rows(vramfit):
    document = json.loads(vramfit("cards", ">=80GB", "hopper", "--json").out)
    assert {card["architecture"] for card in document["cards"]} == {"hopper"}
    assert min(card["sold_gib"] for card in document["cards"]) == 80
    assert "RTX 3070 Ti Laptop" in vramfit("cards", "3070", "ti").out


def test_an_unknown_name_is_one_sentence(vramfit):
    answer = vramfit("cards", "radeon")
    assert answer.code == 2
    assert "of AMD" in answer.err


@pytest.mark.parametrize("verb", [["probe"], ["explain"]])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu", "rtx4090", "--mig", "1g.10gb"], "cannot be partitioned"),
        (["--mig", "1g.10gb"], "give --gpu too"),
        (["--gpu", "rtx3060", "--memory", "8 bananas"], "8 bananas"),
        (["--gpu", "a2000"], "RTX A2000 12GB or RTX A2000 6GB"),
    ],
)
def test_parts_of_a_name_are_checked(vramfit, verb, words, said):
    answer = vramfit(*verb, *words)
    assert answer.code == 2
    assert said in answer.err
