"""What a trial must do before it may say that a batch fits, and what a search must run before it may answer."""

from functools import partial

import pytest
import small_runs as small
import torch
from scripted_card import Hungry, ScriptedCard, blows_up_at_first, hungry_job
from torch import nn

from vramfit.jobs.job import job_key
from vramfit.jobs.step import Precision, Step
from vramfit.measure import trial as module
from vramfit.measure.find import find_batch_size
from vramfit.measure.trial import run_trial
from vramfit.records import Budget, Verdict
from vramfit.units import GIB, MIB

BUDGET = Budget(total_bytes=8 * GIB)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "ENOUGH_SECONDS", 0.0)


def test_optimizer_state_appears_with_the_first_step_that_the_scaler_does_not_skip():
    """The first step looks smaller than all others; under a scaler it may be the fifth that counts."""
    card = ScriptedCard(optimizer_bytes=2 * GIB, skipped_steps=4)
    assert card.needs(6, first=True) < 8 * GIB - card.context_bytes < card.needs(6)
    job = hungry_job(card, loss=blows_up_at_first(4))
    precision = Precision(None, torch.amp.GradScaler("cpu", enabled=True))
    made = run_trial(job, 6, BUDGET, card, precision=precision)
    assert made.verdict is Verdict.OOM
    assert "a training step" in made.note


def test_memory_that_creeps_up_from_step_to_step_is_judged_by_its_highest():
    """A cache in pieces serves the second step worse than the first: three count at least."""
    card = ScriptedCard(fragmentation=lambda step: 600 * MIB * step)
    assert card.needs(6) + card.context_bytes < 8 * GIB
    assert run_trial(hungry_job(card), 6, BUDGET, card).verdict is Verdict.OOM
    assert run_trial(hungry_job(card), 2, BUDGET, card).verdict is Verdict.FITS


def test_validation_may_peak_above_training():
    """It computes without autograd, but on other kernels and, often, another batch."""
    card = ScriptedCard(validation=1.5)
    made = run_trial(hungry_job(card), 6, BUDGET, card)
    assert made.verdict is Verdict.OOM
    assert made.note.startswith("out of memory in validation")


def test_a_step_after_validation_is_tried_too():
    """Validation leaves a cache of other pieces, and the second epoch is where runs break at night."""
    passes = []
    card = ScriptedCard()
    whole = card.take
    card.take = lambda images, *, training=True: (passes.append(training), whole(images, training=training))
    run_trial(hungry_job(card), 3, BUDGET, card)
    assert passes.index(False) < len(passes) - 1
    assert passes[-1]


def test_a_retry_of_the_allocator_after_warm_up_means_that_it_does_not_fit():
    """It had to give cached memory back to find some: the next step may not be so lucky, and all are slow."""
    card = ScriptedCard(retries_at=lambda n: 1)
    made = run_trial(hungry_job(card), 6, BUDGET, card)
    assert made.verdict is Verdict.OVER_BUDGET
    assert made.allocator_retries >= 1
    assert "retry" in made.note


def test_how_cudnn_chooses_its_algorithms_is_part_of_what_a_profile_is_valid_for():
    """In benchmark mode it allocates for every candidate, and failed tries count as retries."""
    assert job_key(small.job(cudnn_benchmark=True)) != job_key(small.job())


def test_an_answer_was_run_and_so_was_the_size_above_it():
    """Two sizes in the middle do not fit, as where another algorithm is chosen for their shape."""
    card = ScriptedCard(extra=lambda n: 4 * GIB if n in (4, 5) else 0)
    result = find_batch_size(card.step, start=6)
    verdicts = {trial.micro_batch: trial.verdict for trial in result.trials}
    assert verdicts[result.batch_size] is Verdict.FITS
    assert verdicts[result.batch_size + 1] is not Verdict.FITS


@pytest.mark.parametrize(
    "extra",
    [
        lambda n: 2 * GIB * (n % 2),
        lambda n: 0 if n % 8 == 0 else GIB,
        lambda n: 7 * GIB if n == 3 else 0,
        lambda n: 8 * GIB if n > 4 else 0,
    ],
    ids=["odd sizes cost more", "eighths are cheap", "one bump", "a cliff"],
)
@pytest.mark.parametrize("start", [None, 6])
@pytest.mark.parametrize("measured", [False, True])
def test_no_size_is_returned_that_was_not_run(extra, start, measured):
    """Whatever the curve: the line through the measured points only proposes."""
    card = ScriptedCard(per_image_bytes=GIB // 3, extra=extra)
    result = find_batch_size(card.step, start=start, budget_bytes=card.room_bytes if measured else None)
    assert result.batch_size in card.sizes
    assert card.trains(result.batch_size)


def test_the_last_partial_batch_is_tried():
    """A batch of two takes more here than one of six: another shape, another algorithm."""
    card = ScriptedCard(extra=lambda n: 9 * GIB if n == 2 else 0)
    assert run_trial(hungry_job(card), 6, BUDGET, card).verdict is Verdict.FITS
    made = run_trial(hungry_job(card), 6, BUDGET, card, last_batch=2)
    assert made.verdict is Verdict.OOM
    assert made.note.startswith("out of memory in the last partial batch of 2")


class Normed(Hungry):
    def __init__(self, card):
        super().__init__(card)
        self.norm = nn.BatchNorm1d(1)

    def forward(self, inputs):
        return self.norm(super().forward(inputs))

    def __deepcopy__(self, memo):
        return Normed(self.card)


def test_a_final_batch_of_one_breaks_batch_normalisation_and_is_said():
    """Over one value there is no variance, and torch refuses."""
    card = ScriptedCard()
    made = run_trial(hungry_job(card, model=partial(Normed, card)), 6, BUDGET, card, last_batch=1)
    assert made.verdict is Verdict.FITS
    assert "a last batch of 1 fails" in made.note


@pytest.mark.parametrize("micro_batch", [2, 3, 5])
def test_a_partial_accumulation_window_is_scaled_by_its_true_size(micro_batch):
    """Seven samples in parts of three are 3, 3 and 1: their mean is not the mean of three means."""
    job = small.job()
    torch.manual_seed(0)
    whole = Step(job, "cpu")
    torch.manual_seed(0)
    parts = Step(job, "cpu")
    assert float(whole.train(job.batch(7), 7)) == pytest.approx(float(parts.train(job.batch(7), micro_batch)))
    assert small.difference(small.weights(whole), small.weights(parts)) < 1e-12
