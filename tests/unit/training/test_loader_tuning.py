"""Workers chosen by what is measured, and the same batches from any of them."""

import multiprocessing

import pytest
import torch

from vramfit.jobs.ranks import Ranks
from vramfit.landmarks.sample.make import make_sample
from vramfit.training.batch_plan import Decision
from vramfit.training.loader_tuning import choose_loader_settings, measured_rate
from vramfit.training.loading import Loader
from vramfit.training.monitors import Clock
from vramfit.training.run_options import RunOptions

CPU, CARD = torch.device("cpu"), torch.device("cuda")


class Slow:
    """A hundredth of a second a sample, and a slow first one."""

    def __len__(self):
        return 100

    def fetch(self, epoch, indices):
        Clockwork.now += 5.0 if indices == (0,) else 0.01
        return torch.zeros(len(indices), 8, 8, dtype=torch.uint8), torch.zeros(len(indices), 2)


class Clockwork:
    now = 0.0


@pytest.fixture(autouse=True)
def clockwork(monkeypatch):
    monkeypatch.setattr("vramfit.training.loader_tuning.time.perf_counter", lambda: Clockwork.now)
    monkeypatch.setattr("vramfit.training.loader_tuning._LIMIT_S", 5.1)


def choose(device, decision=None, ranks=None, **options):
    made = RunOptions(**options)
    return choose_loader_settings(Slow(), made, decision or Decision(6, 6), device, ranks or Ranks())


def test_the_rate_leaves_out_the_first_sample():
    assert measured_rate(Slow()) == pytest.approx(100)


def test_a_number_that_is_given_holds():
    chosen = choose(CARD, num_workers=3)
    assert (chosen.workers, chosen.pin_memory, chosen.reason) == (3, True, "")
    assert choose(CPU, num_workers=3).pin_memory is False
    assert choose(CARD, num_workers=3, pin_memory=False).pin_memory is False


def test_auto_says_why():
    assert choose(CPU).reason.startswith("0 workers: an image loads in 10 ms")
    chosen = choose(CARD, ranks=Ranks(world_size=2, local_size=2), pin_memory=False)
    assert "loads 100 images/s" in chosen.reason
    assert chosen.pin_memory is False


def test_a_worker_that_is_spawned_loads_the_same_films(tmp_path, monkeypatch):
    """As on Windows: the films' map is not pickled, but opened again."""
    from made_checkpoint import make_task

    films = make_sample(tmp_path / "films", films=5, height=96)
    samples = make_task(films, tmp_path / "cache").training
    assert samples.fetch(1, (0, 2))[0]["films"].shape == (2, 1, 64, 64)
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        (batch,) = Loader(samples, workers=1).batches(1, [(0, 2)])
    finally:
        multiprocessing.set_start_method(before, force=True)
    torch.testing.assert_close(batch, samples.fetch(1, (0, 2)), rtol=0, atol=0)


class Event:
    """A card that ends a step half a second after it was begun; the host's clock runs on its own."""

    now = idle_at = 0.0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at = Event.idle_at = max(Event.now, Event.idle_at)

    def synchronize(self):
        pass

    def elapsed_time(self, later):
        return 1000 * (later.at - self.at)


@pytest.mark.parametrize(("loading_s", "waited_s"), [(0.25, 3 * 0.25 - 2 * 0.25), (0.75, 3 * 0.75 - 2 * 0.5)])
def test_a_card_that_is_busy_does_not_wait(monkeypatch, loading_s, waited_s):
    """Two steps of half a second; the first batch is waited for in full, the others while the card works."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    Event.now = Event.idle_at = 0.0

    def batches():
        for number in range(2):
            Event.now += loading_s
            yield number
        Event.now += loading_s

    clock = Clock(CARD)
    for _ in clock.batches(batches()):
        Event.idle_at = max(Event.now, Event.idle_at) + 0.5
    assert clock.waited_s == pytest.approx(waited_s)
