"""The batch for a network that only looks, on a card made of arithmetic."""

from dataclasses import dataclass

import pytest
from scripted_card import FACES, ScriptedCard, other_process

from vramfit.errors import NothingFits
from vramfit.measure import forward
from vramfit.measure.budget import read_budget
from vramfit.measure.forward import fastest_forward
from vramfit.units import GIB, MIB


@dataclass
class Looker:
    """Takes films through a scripted card, in the time that it says."""

    card: ScriptedCard
    clock: float = 0.0

    def __call__(self, films: int) -> None:
        self.card.sizes.append(films)
        self.card.take(films, training=False)
        self.clock += self.card.seconds(films)


@pytest.fixture
def find(monkeypatch):
    def run(card, *, maximum=1000, total_bytes=None, **budget):
        looker = Looker(card)
        monkeypatch.setattr(forward, "perf_counter", lambda: looker.clock)
        return fastest_forward(looker, card, read_budget(card, **budget), maximum=maximum, total_bytes=total_bytes)

    return run


def card_of(**changes):
    return ScriptedCard(**{"per_image_bytes": 500 * MIB, "validation": 1.0, **changes})


def test_a_card_that_gains_by_every_doubling_is_filled(find):
    card = card_of(seconds=lambda films: 0.01)
    size, reason = find(card)
    assert size == 8
    assert card.needs(8, training=False) + card.context_bytes <= 8 * GIB < card.needs(16, training=False)
    assert reason == "batch 8: 16 runs out of memory."
    assert card.ooms == 1


def test_a_busy_card_is_not_filled_and_never_runs_out(find):
    card = card_of(seconds=lambda films: 0.001 * max(films, 4))
    size, reason = find(card)
    assert size == 4
    assert reason == "batch 4: 8 fits too, but is no faster."
    assert (card.ooms, max(card.sizes)) == (0, 8)


@pytest.mark.parametrize("maximum", [1, 2, 5])
def test_no_more_films_are_tried_than_there_are(find, maximum):
    card = card_of(seconds=lambda films: 0.01)
    size, _ = find(card, maximum=maximum)
    assert size == max(card.sizes) == {1: 1, 2: 2, 5: 4}[maximum]


def test_time_to_the_first_result_bounds_a_huge_card(find):
    card = card_of(capacity_bytes=800 * GIB, seconds=lambda films: 0.01)
    assert find(card)[0] == forward.MOST


def test_what_others_hold_is_left_to_them(find):
    alone, crowded = (card_of(seconds=lambda films: 0.01, others=others) for others in ((), (other_process(5 * GIB),)))
    assert (find(alone)[0], find(crowded)[0]) == (8, 4)


@pytest.mark.parametrize("face", FACES)
def test_every_face_of_running_out_of_memory_ends_the_search(find, face):
    assert find(card_of(face=face, seconds=lambda films: 0.01))[0] == 8


def test_a_card_that_spills_is_not_believed(find):
    card = card_of(spills=True, seconds=lambda films: 0.01)
    assert find(card, total_bytes=8 * GIB)[0] == 8


def test_the_limit_is_taken_away_again_even_after_an_error(find):
    card = card_of(seconds=lambda films: 0.01)
    find(card)
    assert card.limit_bytes is None

    def broken(_):
        raise ValueError("not memory")

    with pytest.raises(ValueError, match="not memory"):
        fastest_forward(broken, card, read_budget(card))
    assert card.limit_bytes is None


def test_not_even_one(find):
    with pytest.raises(NothingFits):
        find(card_of(per_image_bytes=20 * GIB))
