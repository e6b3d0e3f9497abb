"""The sampler of batches by padded size: never above what was proven, and near to it; on several ranks; resumed."""

from random import Random

import numpy as np
import pytest
import torch
from made_lengths import plan_of, proven, skewed_lengths
from scripted_card import ScriptedCard
from torch.utils.data import DataLoader

from vramfit.errors import DataError, UsageError
from vramfit.plan.lengths import Lengths, choose_lengths
from vramfit.training.token_sampler import TokenBudgetSampler
from vramfit.units import GIB, KIB

LONGEST = 1024
LENGTHS = skewed_lengths(20_000, LONGEST)


def cost(length):
    """Attention that keeps its scores: linear and quadratic in the length."""
    return length + length * length // 256


class Card(ScriptedCard):
    """Takes padded batches: 48 KiB for each unit of cost."""

    def step_of(self, samples, length):
        self.take(samples * cost(length))


def make_card():
    return Card(capacity_bytes=8 * GIB, per_image_bytes=48 * KIB)


def proven_on(card, lengths, buckets=24):
    """What the card itself takes at each of a few lengths: the largest batch that trains."""
    room = card.room_bytes - card.fixed_bytes - card.granularity_bytes
    largest = [(one, room // (card.per_image_bytes * cost(one[0]))) for one in choose_lengths(lengths, buckets)]
    return plan_of(*(proven(length, batch) for length, batch in largest))


def test_a_whole_epoch_of_skewed_lengths_never_runs_out_and_fills_the_card():
    card = make_card()
    plan = proven_on(card, Lengths.of(LENGTHS))
    seen, tokens, padded, room = [], 0, 0, 0
    for batch in TokenBudgetSampler(LENGTHS, plan):
        longest = max(LENGTHS[index] for index in batch)
        card.step_of(len(batch), longest)
        seen += batch
        tokens += sum(LENGTHS[index] for index in batch)
        padded += longest * len(batch)
        room += plan.proven[plan.place_of((longest,))].tokens
    assert card.ooms == 0
    assert sorted(seen) == list(range(len(LENGTHS)))
    assert padded >= 0.97 * room
    # What padding to the longest of a batch leaves, with lengths from 4 to 1024 in 24 steps.
    assert tokens >= 0.8 * room


def test_without_it_the_same_epoch_runs_out():
    """A batch that the mean length fits with half the card to spare, in random order and padded to its longest."""
    card = make_card()
    mean = sum(LENGTHS) // len(LENGTHS)
    batch = card.room_bytes // 2 // (card.per_image_bytes * cost(mean))
    order = list(range(len(LENGTHS)))
    Random(0).shuffle(order)
    batches = [order[start : start + batch] for start in range(0, len(order), batch)]
    longest = [max(LENGTHS[index] for index in part) for part in batches]
    with pytest.raises(torch.OutOfMemoryError):
        list(map(card.step_of, map(len, batches), longest))
    assert 0 < card.passes < len(batches)


PLAN = plan_of(proven(16, 24), proven(64, 6), proven(256, 2))
FEW = skewed_lengths(301, 256, seed=3)


def sampler(**changes):
    return TokenBudgetSampler(FEW, PLAN, **changes)


def is_allowed(batch, lengths=FEW, plan=PLAN):
    return len(batch) <= plan.largest_batch(max(lengths[index] for index in batch))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("settings", [{}, {"shuffle": False}, {"multiple": 4}, {"drop_last": True}])
def test_no_batch_is_above_what_was_proven_and_no_sample_comes_twice(seed, settings):
    batches = list(sampler(seed=seed, **settings))
    assert all(map(is_allowed, batches))
    indices = [index for batch in batches for index in batch]
    assert len(set(indices)) == len(indices)
    assert len(indices) == len(FEW) or settings == {"drop_last": True}


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_ranks_share_an_epoch_in_as_many_steps(world_size):
    shares = [list(sampler(rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    assert len(shares[0]) == len(sampler(rank=0, world_size=world_size))
    assert all(is_allowed(batch) for share in shares for batch in share)
    assert {index for share in shares for batch in share for index in batch} == set(range(len(FEW)))
    dropped = [list(sampler(rank=rank, world_size=world_size, drop_last=True)) for rank in range(world_size)]
    assert len({len(share) for share in dropped}) == 1


def test_ranks_of_one_step_have_batches_of_like_length():
    steps = list(zip(*(sampler(rank=rank, world_size=2) for rank in range(2)), strict=True))
    cells = [[PLAN.place_of((max(FEW[index] for index in batch),)) for batch in step] for step in steps]
    assert sum(first != second for first, second in cells) <= len(PLAN.proven)


def test_each_epoch_has_an_order_of_its_own_and_as_many_steps():
    one = sampler()
    first = list(one)
    assert list(one) == first
    one.set_epoch(1)
    second = list(one)
    assert second != first
    assert len(second) == len(first) == len(one)
    assert list(sampler(seed=1)) != first


def test_an_epoch_begins_with_the_longest_samples():
    longest = max(FEW[index] for index in next(iter(sampler())))
    assert PLAN.place_of((longest,)) == len(PLAN.proven) - 1


def test_it_goes_on_where_it_was():
    one, other = sampler(), sampler()
    one.set_epoch(4)
    whole = list(one)
    half = iter(one)
    begun = [next(half) for _ in range(7)]
    other.load_state_dict(one.state_dict())
    assert begun + list(other) == whole
    other.load_state_dict(one.state_dict(trained=5))
    assert begun[:5] + list(other) == whole
    assert list(other) == whole
    with pytest.raises(UsageError, match="has seed 0, and this one 9"):
        sampler(seed=9).load_state_dict(one.state_dict())


def test_a_peek_or_an_epoch_that_was_left_does_not_shorten_the_next():
    one = sampler()
    whole = list(one)
    next(iter(one))
    assert list(one) == whole
    left = iter(one)
    assert [next(left) for _ in range(4)] == whole[:4]
    assert one.state_dict()["drawn"] == 4
    assert list(one) == whole


@pytest.mark.parametrize("first", ["load", "epoch"])
def test_a_resume_holds_for_its_own_epoch_whether_that_is_set_before_or_after(first):
    one = sampler()
    one.set_epoch(2)
    whole = list(one)
    other = sampler()
    calls = [lambda: other.load_state_dict({"seed": 0, "epoch": 2, "drawn": 5}), lambda: other.set_epoch(2)]
    for call in calls if first == "load" else reversed(calls):
        call()
    assert other.state_dict()["drawn"] == 5
    assert list(other) == whole[5:]
    assert list(other) == whole


def test_another_epoch_than_the_resumed_one_is_whole():
    one, other = sampler(), sampler()
    other.load_state_dict({"seed": 0, "epoch": 2, "drawn": 5})
    one.set_epoch(3)
    other.set_epoch(3)
    assert other.state_dict()["drawn"] == 0
    assert list(other) == list(one)


def test_a_state_from_the_end_of_an_epoch_does_not_repeat_it():
    one, other = sampler(), sampler()
    one.set_epoch(2)
    list(one)
    other.load_state_dict(one.state_dict())
    other.set_epoch(2)
    assert list(other) == []
    one.set_epoch(3)
    other.set_epoch(3)
    assert list(other) == list(one)


def test_a_loader_that_draws_ahead_resumes_at_what_was_trained():
    rows = torch.arange(len(FEW))
    one = sampler()
    whole = list(one)
    ahead = iter(DataLoader(rows, batch_sampler=one, collate_fn=list, num_workers=1, prefetch_factor=3))
    trained = [[int(row) for row in next(ahead)] for _ in range(2)]
    state = one.state_dict(trained=2)
    assert one.state_dict()["drawn"] > 2
    other = sampler()
    other.load_state_dict(state)
    assert trained + list(other) == whole
    del ahead
    assert list(one) == whole


@pytest.mark.parametrize("lengths", [np.array(FEW), torch.tensor(FEW), [np.int64(one) for one in FEW]])
def test_lengths_of_arrays_are_those_of_numbers(lengths):
    assert list(TokenBudgetSampler(lengths, PLAN)) == list(sampler())


def test_a_length_is_looked_up_once(monkeypatch):
    asked = []
    place_of = type(PLAN).place_of
    monkeypatch.setattr(type(PLAN), "place_of", lambda plan, one: asked.append(one) or place_of(plan, one))
    sampler()
    assert len(asked) == len(set(FEW))


def test_images_of_many_sizes_are_padded_within_what_was_proven():
    """A detector's batch is padded to its greatest height and its greatest width."""
    order = Random(2)
    sizes = [(order.randint(300, 800), order.randint(300, 1333)) for _ in range(400)]
    chosen = choose_lengths(Lengths.of(sizes), 9, multiple=32)
    plan = plan_of(*(proven(one, max(1, 3_000_000 // (one[0] * one[1]))) for one in chosen), axis="image_size")
    for batch in TokenBudgetSampler(sizes, plan):
        height, width = (max(sizes[index][axis] for index in batch) for axis in (0, 1))
        assert len(batch) <= plan.largest_batch((height, width))


def test_a_data_set_is_read_for_its_lengths_and_a_loader_takes_the_batches():
    class Documents(torch.utils.data.Dataset):
        def __len__(self):
            return len(FEW)

        def __getitem__(self, index):
            return torch.full((FEW[index],), index)

    documents = Documents()
    batches = TokenBudgetSampler(documents, PLAN)
    pad = torch.nn.utils.rnn.pad_sequence
    loader = DataLoader(documents, batch_sampler=batches, collate_fn=lambda rows: pad(rows, batch_first=True))
    shapes = [tuple(batch.shape) for batch in loader]
    assert len(shapes) == len(loader) == len(batches)
    assert all(samples <= PLAN.largest_batch(tokens) for samples, tokens in shapes)


def test_a_sample_longer_than_all_that_was_proven_is_named():
    with pytest.raises(DataError, match="sample 2 is 257 long, and batches were proven up to 256"):
        TokenBudgetSampler([1, 2, 257], PLAN)
    with pytest.raises(UsageError, match="rank 2 is none of 2 ranks"):
        sampler(rank=2, world_size=2)
