"""`@vramfit.fits`, in the scenarios that accelerate tests its `find_executable_batch_size` with, and beyond them.

Different on purpose: sizes are not multiplied by 0.9, so what is between two sizes that fit must fit too (accelerate's
tests let 8 alone run); a start of 0 is refused where the function is decorated; an answer is the largest that fits.
"""

import logging

import pytest
import torch
from torch import nn

import vramfit
from vramfit.measure import find
from vramfit.records import Verdict


@pytest.fixture(autouse=True)
def no_cleaning(monkeypatch):
    """Collecting garbage takes most of a failure's time."""
    monkeypatch.setattr(find, "release_memory", lambda: None)


def out_of_memory():
    raise RuntimeError("CUDA out of memory.")


def limited(sizes, limit):
    """A training that counts its calls and runs up to a batch size."""

    @vramfit.fits(start=128)
    def train(batch_size, *given, **named):
        sizes.append(batch_size)
        if batch_size > limit:
            out_of_memory()
        return batch_size, *given, *named.items()

    return train


# -- what accelerate promises ---------------------------------------------------------------------------------------
def test_the_first_size_that_runs_is_the_last_call():
    sizes = []
    assert limited(sizes, 8)() == (8,)
    assert sum(size > 8 for size in sizes) <= 4
    assert max(sizes) == sizes[0] == 128


def test_a_start_that_fits_is_one_call():
    sizes = []
    assert limited(sizes, 128)() == (128,)
    assert sizes == [128]


def test_the_start_has_the_name_that_accelerate_gives_it():
    sizes = []
    vramfit.fits(starting_batch_size=48)(sizes.append)()
    assert sizes == [48]


def test_arguments_are_handed_on_and_the_value_returned():
    assert limited([], 8)("hello", epochs=3) == (8, "hello", ("epochs", 3))


def test_a_start_of_zero_is_refused():
    with pytest.raises(vramfit.UsageError, match="below the minimum"):
        vramfit.fits(start=0)


def test_where_nothing_fits_it_says_so():
    with pytest.raises(vramfit.NothingFits, match="Batch size 1 does not fit"):
        limited([], 0)()


def test_a_batch_size_given_at_the_call_is_told():
    @vramfit.fits
    def train(batch_size, one, two): ...

    with pytest.raises(TypeError, match="train takes its batch size first"):
        train(128, "hello", "world")


def test_any_other_error_is_the_callers():
    @vramfit.fits(start=16)
    def train(batch_size):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        train()


def test_the_plain_decorator_begins_at_128_and_keeps_name_and_words():
    @vramfit.fits
    def train(batch_size):
        """Mine."""
        return batch_size

    assert train() == 128
    assert (train.__name__, train.__doc__) == ("train", "Mine.")


def test_every_call_begins_anew():
    sizes = []
    train = limited(sizes, 8)
    assert train() == train() == (8,)
    assert sizes.count(128) == 2


# -- what its users ask for -----------------------------------------------------------------------------------------
def training(sizes, limit, *, late=None):
    """A training of 10 steps; a size above `late` runs out in its sixth."""

    def train(batch_size, model, optimizer):
        sizes.append(batch_size)
        for step in range(10):
            if batch_size > limit or (late is not None and batch_size > late and step == 5):
                out_of_memory()
            model(torch.rand(batch_size, 4)).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return batch_size, torch.rand(()).item()

    return train


def learner():
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    return model, torch.optim.AdamW(model.parameters())


def test_weights_optimizer_and_random_states_are_those_of_a_training_that_never_failed():
    model, optimizer = learner()
    expected = training([], 99)(37, model, optimizer)
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    model, optimizer = learner()
    model.weight.grad = torch.ones_like(model.weight)
    optimizer.zero_grad()
    assert vramfit.fits(start=128)(training([], 37))(model, optimizer) == expected
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(model.parameters(), weights, strict=True))


def test_trials_end_after_three_steps_and_a_larger_maximum_is_searched():
    sizes, told = [], []
    model, optimizer = learner()
    found = vramfit.fits(start=16, maximum=64, on_trial=told.append)(training(sizes, 37))(model, optimizer)
    assert found[0] == 37 == sizes[-1]
    assert [one.micro_batch for one in told] == sizes
    assert {one.verdict for one in told} == {Verdict.FITS, Verdict.OOM}
    assert optimizer.state[model.weight]["step"] == 10


def test_a_size_that_fails_after_its_trial_gives_way_to_a_smaller():
    sizes = []
    found = vramfit.fits(start=64)(training(sizes, 40, late=35))(*learner())
    assert found[0] == 32
    assert sizes[-3:] == [40, 36, 32]
    with pytest.raises(vramfit.NothingFits, match="train runs out of memory with a batch of 40, the smallest"):
        vramfit.fits(start=64, minimum=40)(training([], 40, late=35))(*learner())


def test_the_log_says_what_was_taken_and_why(caplog):
    with caplog.at_level(logging.WARNING, logger="vramfit"):
        limited([], 37)()
        limited([], 128)()
    assert caplog.messages == ["train: batch 37: 38 runs out of memory (12 calls)"]


def test_multiples_and_trials_are_bounded():
    sizes = []
    assert vramfit.fits(start=100, multiple_of=8)(training(sizes, 37))(*learner())[0] == 32
    assert all(size % 8 == 0 for size in sizes)
    with pytest.raises(vramfit.NothingFits, match="in 2 trials"):
        vramfit.fits(start=100, max_trials=2)(training([], 1))(*learner())


def test_one_spurious_failure_changes_no_answer():
    for failing in range(12):
        calls = []

        @vramfit.fits(start=64)
        def train(batch_size, calls=calls, failing=failing):
            calls.append(batch_size)
            if batch_size > 37 or len(calls) == failing + 1:
                out_of_memory()
            return batch_size

        assert train() == 37, failing
