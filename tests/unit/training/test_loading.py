"""Orders, steps and shares: every sample once, whatever the sizes."""

from hypothesis import given
from hypothesis import strategies as st

from vramfit.training.loading import cut, epoch_order, share

sizes = st.integers(1, 60)


@given(samples=sizes, batch=sizes)
def test_steps_hold_every_sample_once_in_order(samples, batch):
    steps = cut(list(range(samples)), batch)
    assert [index for step in steps for index in step] == list(range(samples))
    assert all(len(step) == batch for step in steps[:-1])


@given(samples=st.integers(2, 60), batch=st.integers(2, 60))
def test_no_step_of_one_sample_where_it_can_be_helped(samples, batch):
    assert len(cut(list(range(samples)), batch)[-1]) > 1


@given(samples=sizes, batch=sizes, done=st.integers(0, 20))
def test_a_resumed_epoch_has_the_steps_that_were_left(samples, batch, done):
    order = epoch_order(samples, seed=1, epoch=2)
    steps = cut(order, batch)
    behind = sum(map(len, steps[:done]))
    assert cut(order[behind:], batch) == steps[done:]


@given(samples=st.lists(st.integers(), max_size=40), ranks=st.integers(1, 9))
def test_ranks_share_samples_evenly(samples, ranks):
    shares = [share(samples, rank, ranks) for rank in range(ranks)]
    assert [index for one in shares for index in one] == samples
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(samples=sizes, seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_an_order_is_a_function_of_seed_and_epoch(samples, seed, epoch):
    order = epoch_order(samples, seed=seed, epoch=epoch)
    assert sorted(order) == list(range(samples))
    assert order == epoch_order(samples, seed=seed, epoch=epoch)
