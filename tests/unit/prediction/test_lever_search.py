"""Which levers a search takes for nothing, and what it holds to be the least memory."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from vramfit.cards import find_card
from vramfit.jobs.job import Job
from vramfit.landmarks.model.job import landmark_job
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.prediction.lever_search import LeverSearch, freed_job
from vramfit.prediction.predict import card_budget
from vramfit.records import Lever

OPTIONS = LandmarkJobOptions(model="hrnet_w18_small", image_size=(128, 128), landmarks=4, amp="fp16")
ORDER = Lever(name="channels_last")


def search(card="rtx3070ti", **changes) -> LeverSearch:
    found = find_card(card)
    return LeverSearch(landmark_job(replace(OPTIONS, **changes)), found, card_budget(found))


@pytest.fixture(scope="module")
def on_tensor_cores() -> LeverSearch:
    return search()


def test_half_precision_on_tensor_cores_is_ordered_as_they_read_it(on_tensor_cores) -> None:
    assert ORDER in on_tensor_cores.levers
    ordered, as_it_is = on_tensor_cores.without(8).trial, on_tensor_cores.as_it_is.trial(8)
    assert ordered.step_time_s <= as_it_is.step_time_s
    assert ordered.device_used_bytes < as_it_is.device_used_bytes


@pytest.mark.parametrize(
    ("card", "changes"),
    [("gtx1080ti", {}), ("rtx3070ti", {"amp": None}), ("rtx3070ti", {"channels_last": True})],
    ids=["no tensor cores", "float32", "chosen already"],
)
def test_the_memory_order_stays_where_it_promises_nothing(card, changes) -> None:
    assert ORDER not in search(card, **changes).levers


def small_job() -> Job:
    """So small that at the batch of comparison a card waits for the host; at the batch of a run it does not."""

    def network():
        return nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def batch(samples):
        return torch.randn(samples, 3, 32, 32), torch.randint(64, (samples,))

    return Job(model=network, batch=batch, loss=nn.CrossEntropyLoss(), optimizer=torch.optim.SGD, amp="fp16")


@pytest.mark.parametrize("card", ["A100 SXM 80GB", "rtx3070ti"])
def test_a_step_that_waits_for_the_host_at_the_batch_of_comparison_is_ordered_too(card) -> None:
    assert ORDER in freed_job(small_job(), find_card(card)).levers


def test_an_order_that_is_slower_is_not_taken(monkeypatch) -> None:
    def seconds(job, _):
        """Faster than the job as it is, by its other levers: slower than with those alone."""
        return 2 if ORDER in job.levers else 1 if job.levers else 3

    monkeypatch.setattr("vramfit.prediction.lever_search._seconds_of", seconds)
    levers = search().levers
    assert levers
    assert ORDER not in levers


def test_the_least_memory_is_no_more_than_every_module_recomputed_takes(on_tensor_cores) -> None:
    least, uniform = on_tensor_cores.smallest(16).trial, on_tensor_cores.uniform(16, "module").trial
    assert least.device_used_band_bytes[1] <= uniform.device_used_band_bytes[1]
    assert least.peak_allocated_bytes < on_tensor_cores.without(16).trial.peak_allocated_bytes
