"""The batch of an inference: on a CPU by rule, on a card by trial."""

from dataclasses import replace

import pytest
import torch
from made_checkpoint import make_checkpoint, make_films
from scripted_card import ScriptedCard

from vramfit.landmarks.evaluation import films_at_once as module
from vramfit.landmarks.evaluation.films_at_once import films_at_once
from vramfit.landmarks.model.trained_network import load_trained
from vramfit.units import MIB


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return load_trained(make_checkpoint(make_films(folder / "films"), folder / "checkpoint_best.pth"), "cpu")


class OnCard:
    """The step of a network on a scripted card, which is computed on the CPU."""

    def __init__(self, step, card):
        self._step, self._card = step, card
        self.job, self.device = step.job, torch.device("cuda", 0)

    def validate(self, batch):
        self._card.take(len(batch[1]), training=False)
        return self._step.validate(batch)


@pytest.fixture
def on_card(trained, monkeypatch):
    def make(**changes):
        card = ScriptedCard(validation=1.0, **changes)
        monkeypatch.setattr(module, "local_device", lambda index: card)
        monkeypatch.setattr(module, "CudaMemory", lambda device: device)
        return replace(trained, step=OnCard(trained.step, card)), card

    return make


@pytest.mark.parametrize(("films", "batch"), [(1, 1), (3, 3), (4, 4), (500, 4)])
def test_on_a_cpu_nothing_is_tried(trained, films, batch):
    assert films_at_once(trained, films) == (batch, f"batch {batch}: the usual on a CPU, not measured.")


def test_a_card_is_tried_the_whole_way_to_points(on_card):
    trained, _ = on_card(per_image_bytes=3000 * MIB)
    size, reason = films_at_once(trained, 500)
    assert size <= 2, "4 films need 12 GB"
    assert reason.startswith(f"batch {size}: ")


def test_a_handful_is_not_worth_a_trial(on_card):
    trained, card = on_card()
    assert films_at_once(trained, 3) == (3, "batch 3: all of them, not measured.")
    assert card.peak_bytes == 0


def test_a_full_card_still_gets_its_one_film(on_card):
    trained, _ = on_card(per_image_bytes=20_000 * MIB)
    assert films_at_once(trained, 500)[0] == 1
