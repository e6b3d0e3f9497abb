"""Earlier probes: used where nothing has changed, proved or made anew where something has, and always said."""

from dataclasses import replace
from functools import partial

import pytest
import small_runs as small
from scripted_card import ScriptedCard, other_process
from torch import nn

from vramfit.files import user_cache_folder
from vramfit.measure import backend
from vramfit.measure.backend import Levered
from vramfit.probe import backend as places
from vramfit.probe import recall
from vramfit.probe.recall import fit_or_recall
from vramfit.probe.request import MemoryLimits, ProbeRequest
from vramfit.records import Lever, Schedule
from vramfit.units import GIB

JOB = replace(small.job(), name="landmark")
CHANNELS_LAST = Lever(name="channels_last")


@pytest.fixture
def card(monkeypatch, tmp_path):
    """A card on which seven samples fit, and an empty cache."""
    card = ScriptedCard()
    monkeypatch.setenv("VRAMFIT_CACHE", str(tmp_path))
    monkeypatch.setattr(places, "local_device", lambda: card)
    monkeypatch.setattr(places, "_guesser", lambda *_: lambda _maximum: 7)
    monkeypatch.setattr(backend, "measure_trial", lambda job, size, budget, **_: card.trial(size, budget))
    return card


def probed(card, job=JOB, **asked):
    """What a probe answers and says, and the sizes that it tried for it."""
    card.sizes.clear()
    request = ProbeRequest(objective="largest", schedule=Schedule(images=40, epochs=2), **asked)
    profile, said = fit_or_recall(job, request)
    assert profile.notes[0] == said
    return profile.plan.micro_batch, said, list(card.sizes)


def test_the_same_question_is_answered_without_a_trial(card):
    first, said, tried = probed(card)
    assert (first, said) == (7, "Probed, for no earlier probe of this job on this card is kept.")
    assert tried
    again, said, tried = probed(card)
    assert (again, tried) == (7, [])
    assert "holds: same job, card, driver, torch and free memory (--fresh probes anew)." in said


def test_a_fresh_probe_is_made_whatever_is_kept(card):
    probed(card)
    _, said, tried = probed(card, fresh=True)
    assert said == "Probed anew, as was asked."
    assert tried


def test_another_driver_is_settled_by_one_trial_and_then_remembered(card):
    probed(card)
    card.driver_version = "1000.1"
    answer, said, tried = probed(card)
    assert (answer, tried) == (7, [7])
    assert "holds, by one trial of batch 7: machine.driver was 999.99 and is 1000.1." in said
    assert probed(card)[2] == []


def test_a_trial_that_fails_leads_to_a_new_probe(card):
    probed(card)
    card.driver_version, card.per_image_bytes = "1000.1", 3 * GIB // 2
    answer, said, tried = probed(card)
    assert answer == 4
    assert tried[0] == 7
    assert "in a trial batch 7 of the probe of" in said
    assert said.endswith("is oom.")
    assert probed(card)[2] == []


@pytest.mark.parametrize(("others", "word", "answer"), [(2, "less", 5), (0, "more", 7)])
def test_other_free_memory_is_another_question(card, others, word, answer):
    card.others = () if others else (other_process(2 * GIB),)
    probed(card)
    card.others = (other_process(others * GIB),) if others else ()
    found, said, tried = probed(card)
    assert found == answer
    assert f"does not hold: 2.00 GiB {word} is free than then." in said
    assert tried


@pytest.mark.parametrize(
    "job",
    [
        replace(JOB, cudnn_benchmark=True),
        replace(JOB, ema_decay=0.9),
        replace(JOB, model=small.network_with_memory),
        replace(JOB, batch=lambda n: tuple(part[:, :1].repeat(1, small.FEATURES) for part in small.batch(n))),
    ],
    ids=["cudnn.benchmark", "average", "network", "shapes"],
)
def test_another_job_is_another_question(card, job):
    probed(card)
    assert probed(card, job)[1].startswith("Probed, for no earlier probe")


def test_allocator_settings_and_another_card_are_another_question(card, monkeypatch):
    probed(card)
    card.name = "Another GPU"
    assert probed(card)[1].startswith("Probed, for no earlier probe")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:64")
    assert probed(card)[1].startswith("Probed, for no earlier probe")
    assert probed(card, limits=MemoryLimits.parse(vram="6GB"))[1].startswith("Probed, for no earlier probe")


def test_a_job_of_ones_own_is_always_proved(card):
    own = small.job()
    probed(card, own)
    answer, said, tried = probed(card, own)
    assert (answer, tried) == (7, [7])
    assert "its code may have changed" in said


def test_a_damaged_file_is_said_and_replaced(card, tmp_path):
    probed(card)
    (file,) = (tmp_path / "profiles").iterdir()
    file.write_text("{", encoding="utf-8")
    assert "the earlier probe cannot be read" in probed(card)[1]
    assert probed(card)[2] == []


def test_a_cache_that_cannot_be_written_costs_no_probe(card, tmp_path):
    (tmp_path / "profiles").write_text("a file where a folder should be")
    answer, said, _ = probed(card)
    assert answer == 7
    assert "It is not kept:" in said


def test_a_prediction_is_neither_kept_nor_recalled(card, tmp_path, monkeypatch):
    monkeypatch.setattr(recall, "run_probe", lambda *_: "predicted")
    assert fit_or_recall(JOB, ProbeRequest(gpu="rtx3070ti")) == ("predicted", None)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_lies_where_the_system_wants_it(monkeypatch, tmp_path):
    monkeypatch.delenv("VRAMFIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("vramfit.files.sys.platform", "linux")
    assert user_cache_folder() == tmp_path / "vramfit"
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setattr("vramfit.files.sys.platform", "win32")
    assert user_cache_folder() == tmp_path / "local" / "vramfit"


def test_a_plan_in_the_faster_memory_order_is_recalled_and_proved_in_it(card, monkeypatch):
    tried = []

    def measure(source, size, budget, **_):
        levers = source.levers if isinstance(source, Levered) else ()
        tried.append(levers)
        return (replace(card, seconds=lambda n: 0.01 * n) if levers else card).trial(size, budget)

    monkeypatch.setattr(backend, "measure_trial", measure)
    job = replace(JOB, model=partial(nn.Conv2d, 1, 1, 3))
    probed(card, job)
    assert tried.pop() == (CHANNELS_LAST,)
    tried.clear()
    assert "holds: same job" in probed(card, job)[1]
    card.driver_version = "1000.1"
    assert "holds, by one trial" in probed(card, job)[1]
    assert tried == [(CHANNELS_LAST,)]
