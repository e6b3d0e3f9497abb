"""What the callbacks of all trainers change for a while, and put back."""

import pytest
import torch

from vramfit.integrations.recovery import kept_free, replaced
from vramfit.units import GIB


def test_the_limit_of_a_card_is_lifted_after_an_error_too(monkeypatch):
    fractions = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 * GIB, 16 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 4 * GIB)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: fractions.append(share))

    def train():
        with kept_free(2 * GIB, torch.device("cuda")):
            assert fractions == [0.5]
            raise KeyError("films")

    with pytest.raises(KeyError, match="films"):
        train()
    assert fractions == [0.5, 1.0]
    with kept_free(0, torch.device("cpu")):
        assert len(fractions) == 2


def test_an_attribute_is_its_classs_or_its_own_again():
    class Loop:
        run = "the class's"

    loop = Loop()
    with replaced(loop, "run", "mine"):
        assert loop.run == "mine"
    assert vars(loop) == {}
    loop.run = "its own"
    with replaced(loop, "run", "mine"):
        assert loop.run == "mine"
    assert loop.run == "its own"
