"""How training is fed: enough for the card, no more than the host has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramfit.plan.workers import WORKER_BYTES, Pace, loader_for_card, loader_for_cpu, most_workers
from vramfit.units import GIB

BATCH_BYTES = 6 * 768 * 768


def pace(**changes):
    figures = {
        "loads_images_per_s": 430.0,
        "takes_images_per_s": 30.0,
        "batch": 6,
        "batch_bytes": BATCH_BYTES,
        "cores": 4,
        "host_bytes": 16 * GIB,
    }
    return Pace(**{**figures, **changes})


def test_one_worker_is_enough_for_a_slow_card():
    chosen = loader_for_card(pace())
    assert (chosen.workers, chosen.ahead, chosen.pin_memory) == (1, 3, True)
    assert chosen.reason.startswith(
        "1 worker: it loads 430 images/s, the card takes 30; it keeps 3 batches ready in page"
    )


def test_a_fast_card_gets_more_and_is_told_when_it_will_wait():
    assert loader_for_card(pace(takes_images_per_s=700)).workers == 3
    chosen = loader_for_card(pace(takes_images_per_s=7000))
    assert chosen.workers == most_workers(4) == 3
    assert "4 cores allow no more" in chosen.reason


def test_what_is_not_known_is_said():
    chosen = loader_for_card(pace(takes_images_per_s=None))
    assert chosen.workers == 2
    assert "not known" in chosen.reason


@pytest.mark.parametrize(("free", "workers", "pinned"), [(GIB // 2, 0, False), (GIB, 1, True), (3 * GIB, 3, True)])
def test_memory_limits_the_workers(free, workers, pinned):
    chosen = loader_for_card(pace(takes_images_per_s=7000, host_bytes=free, cores=9))
    assert (chosen.workers, chosen.pin_memory) == (workers, pinned)
    assert "free" in chosen.reason


def test_pages_are_not_locked_where_little_is_free():
    chosen = loader_for_card(pace(batch=600, batch_bytes=100 * BATCH_BYTES, host_bytes=GIB + GIB // 2))
    assert (chosen.workers, chosen.pin_memory) == (0, False)
    chosen = loader_for_card(pace(batch=600, batch_bytes=100 * BATCH_BYTES, host_bytes=5 * GIB // 2))
    assert (chosen.workers, chosen.pin_memory) == (1, False)
    assert chosen.reason.endswith("ready in ordinary memory, for little is free.")


def test_a_cpu_that_trains_keeps_its_cores():
    assert loader_for_cpu(430).workers == 0
    assert "2.3 ms" in loader_for_cpu(430).reason


@given(
    loads=st.floats(1, 2000),
    takes=st.floats(1, 2000),
    cores=st.integers(1, 64),
    batch=st.integers(1, 64),
    free=st.integers(0, 64) | st.none(),
)
def test_a_choice_never_exceeds_cores_or_memory(loads, takes, cores, batch, free):
    host = None if free is None else free * GIB // 2
    size = batch * 768 * 768
    given_pace = pace(
        loads_images_per_s=loads,
        takes_images_per_s=takes,
        cores=cores,
        batch=batch,
        batch_bytes=size,
        host_bytes=host,
    )
    chosen = loader_for_card(given_pace)
    assert chosen.workers <= most_workers(cores)
    assert 2 <= chosen.ahead <= 8
    if host is not None:
        assert chosen.workers * (WORKER_BYTES + chosen.ahead * size) <= host // 2
