from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vramfit
from vramfit.cards import find_card
from vramfit.errors import UnknownCard, UsageError
from vramfit.jobs.job import Job
from vramfit.landmarks.model.job import landmark_job
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.prediction.bands import band_verdict, memory_band
from vramfit.prediction.constants import CONSTANTS
from vramfit.prediction.overheads import context_bytes, convolution_workspaces, kept_workspaces
from vramfit.prediction.predict import Predictor, card_budget
from vramfit.prediction.replay_trace import Peaks, Spread
from vramfit.prediction.roofline import growing_time_s, is_host_bound, kind_of, operation_s, step_time_s, work_of
from vramfit.prediction.trace_records import Convolution, OperationRecord
from vramfit.prediction.tracing.trace import trace_step
from vramfit.records import Trial, Verdict
from vramfit.units import GIB, MIB, MemoryLimits

WIDTH = 512


def batch(samples):
    return torch.zeros(samples, 4096, WIDTH), torch.zeros(samples, 4096, WIDTH)


def job(**changes) -> Job:
    settings = {"model": partial(nn.Linear, WIDTH, WIDTH), "batch": batch, "loss": F.mse_loss, "amp": None}
    return Job(**{**settings, "optimizer": torch.optim.SGD, **changes})


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    card = find_card("rtx3070ti")
    return Predictor(job(), card, card_budget(card, MemoryLimits.parse(vram="4GB")))


def test_memory_and_time_grow_with_the_batch(predictor) -> None:
    trials = [predictor.trial(micro_batch) for micro_batch in (1, 2, 8, 32)]
    used = [trial.device_used_bytes for trial in trials]
    assert used == sorted(used)
    assert used[0] < used[-1]
    assert trials[0].step_time_s < trials[-1].step_time_s


def test_a_trial_holds_together(predictor) -> None:
    trial = predictor.trial(8)
    assert trial.source == "predicted"
    assert trial.peak_allocated_bytes <= trial.peak_reserved_bytes
    assert trial.device_used_bytes == trial.peak_reserved_bytes + trial.context_bytes
    low, high = trial.device_used_band_bytes
    assert low < trial.device_used_bytes < high


def test_peak_is_that_of_the_tensors(predictor) -> None:
    # input, target, output, loss' gradient; the rest is small beside 8 MiB a sample and tensor
    sample = 4096 * WIDTH * 4
    extra = predictor.trial(16).peak_allocated_bytes - predictor.trial(8).peak_allocated_bytes
    assert extra == pytest.approx(8 * 4 * sample, rel=0.3)


def test_largest_that_fits_fits_and_the_next_does_not(predictor) -> None:
    largest = predictor.largest_that_fits()
    assert predictor.trial(largest).verdict is Verdict.FITS
    assert predictor.trial(largest + 1).verdict is not Verdict.FITS
    assert predictor.largest_that_fits(maximum=3) == 3


def test_nothing_fits() -> None:
    card = find_card("rtx3070ti")
    assert Predictor(job(), card, card_budget(card, MemoryLimits.parse(vram="100MB"))).largest_that_fits() == 0


def test_verdicts_follow_the_band() -> None:
    assert band_verdict((5, 7), 7) is Verdict.FITS
    assert band_verdict((5, 7), 6) is Verdict.RISKY
    assert band_verdict((5, 7), 4) is Verdict.OVER_BUDGET


def test_band_widens_with_what_is_not_known_of_workspaces() -> None:
    limits = {"half convolution": (-1.0, 2.0), "half other": (0.0, 1.0)}
    bands = CONSTANTS.bands.model_copy(update={"memory_base": 0.03, "floor_bytes": 0, "memory": limits})
    assert memory_band(1000, 0, "half convolution", bands) == (970, 1060)
    assert memory_band(1000, 80, "half convolution", bands) == (950, 1100)
    assert memory_band(1000, 80, "half other", bands) == (1000, 1050)


def test_band_of_a_small_job_is_no_narrower_than_what_is_not_known_of_the_context() -> None:
    bands = CONSTANTS.bands.model_copy(update={"memory": {"half other": (-1.0, 1.0)}})
    low, high = memory_band(600 * MIB, 0, "half other", bands)
    assert high - low > 2 * bands.floor_bytes


def test_spread_of_replays() -> None:
    spread = Spread.of([Peaks(10, 20, 0, True), Peaks(14, 40, 0, True)])
    assert (spread.allocated_bytes, spread.reserved_bytes, spread.spread_bytes) == (12, 30, 20)


def test_predict_reads_sizes_and_names() -> None:
    trial = vramfit.predict(job(), micro_batch=2, gpu="RTX 3090", vram="8GB", reserve="1GB")
    assert trial.budget_bytes == 8 * GIB
    with pytest.raises(UnknownCard):
        vramfit.predict(job(), micro_batch=2, gpu="rtx9999xyz")


@pytest.mark.parametrize("asked", [{"micro_batch": 0}, {"vram": -8}, {"vram": "much"}, {"reserve": 0}])
def test_figures_that_make_no_sense_are_refused(asked) -> None:
    with pytest.raises(UsageError, match=str(next(iter(asked.values())))):
        vramfit.predict(job(), **{"micro_batch": 2, "gpu": "rtx3090", **asked})


def test_products_keep_a_workspace_in_either_pass() -> None:
    trace = trace_step(job(), 2)
    assert sum(kept_workspaces(trace, find_card("rtx3090")).values()) == 2 * (8 * MIB + 128 * 1024)
    assert sum(kept_workspaces(trace, find_card("H100 SXM")).values()) == 2 * 32 * MIB


def convolution(**changes) -> OperationRecord:
    shape = {"input_shape": (1, 8, 16, 16), "weight_shape": (8, 8, 3, 3), "output_shape": (1, 8, 16, 16)}
    settings = {**shape, "groups": 1, "transposed": False, "channels_last": False, **changes}
    return OperationRecord(
        "convolution", "", "forward", "float16", 10**9, 10**6, 10**6, 5, convolution=Convolution(**settings)
    )


def test_workspace_is_a_share_of_what_a_convolution_reads_and_writes() -> None:
    constants = CONSTANTS.hidden.model_copy(
        update={
            "heuristic_share": {"nchw spatial": 0.5, "nhwc spatial": 0.0, "nchw pointwise": 0.0, "nhwc pointwise": 0.0}
        }
    )
    image_bytes = 2 * 8 * 16 * 16 * 2
    found = convolution_workspaces([convolution()], benchmark=False, part=1.0, constants=constants)
    assert found == {5: image_bytes // 2}
    grouped = convolution(groups=8, weight_shape=(8, 1, 3, 3))
    assert convolution_workspaces([grouped], benchmark=False, constants=constants) == {5: 0}


def test_kinds_of_convolutions() -> None:
    assert kind_of(convolution()) == "dense nchw"
    assert kind_of(convolution(channels_last=True)) == "dense nhwc"
    assert kind_of(convolution(weight_shape=(8, 8, 1, 1))) == "pointwise nchw"
    assert kind_of(convolution(groups=8, weight_shape=(8, 1, 3, 3))) == "depthwise nchw"
    assert kind_of(convolution(groups=2, weight_shape=(8, 4, 3, 3))) == "grouped nchw"
    assert kind_of(convolution(groups=32, weight_shape=(128, 4, 3, 3), channels_last=True)) == "grouped nhwc"
    assert kind_of(convolution(groups=10, weight_shape=(40, 4, 3, 3), channels_last=True)) == "odd grouped nhwc"
    assert kind_of(convolution(groups=10, weight_shape=(40, 4, 3, 3))) == "grouped nchw"


def test_a_step_takes_its_operations_or_their_launches_whichever_is_longer() -> None:
    card = find_card("rtx3090")
    one = convolution()
    slow = CONSTANTS.time.model_copy(update={"launch_s": 1.0})
    assert step_time_s([one, one], card) == pytest.approx(2 * operation_s(one, card))
    assert step_time_s([one, one], card, slow) == 2.0
    assert growing_time_s(work_of([one, one]), card, slow) == pytest.approx(
        2 * (operation_s(one, card) - CONSTANTS.time.kernel_s)
    )


def test_a_step_that_is_launches_alone_is_told_from_one_that_keeps_the_card_busy() -> None:
    card, work = find_card("rtx3090"), work_of([convolution()] * 3)
    assert not is_host_bound(work, card)
    assert is_host_bound(work, card, CONSTANTS.time.model_copy(update={"launch_s": 1.0}))


def test_a_trial_of_a_tiny_step_says_that_it_waits_for_the_host() -> None:
    def job(width: int) -> Job:
        return Job(
            model=lambda: nn.Linear(width, width),
            batch=lambda n: (torch.randn(n, width), torch.randn(n, width)),
            loss=nn.functional.mse_loss,
            optimizer=partial(torch.optim.SGD, lr=0.1),
            amp=None,
        )

    card = find_card("rtx3090")
    trials = [Predictor(job(width), card, card_budget(card)).trial(4) for width in (8, 8192)]
    assert [trial.host_bound for trial in trials] == [True, False]


def test_a_faster_card_takes_less() -> None:
    operations = [convolution()]
    assert step_time_s(operations, find_card("RTX 4090")) < step_time_s(operations, find_card("RTX 3060"))


def test_contexts_are_of_every_architecture() -> None:
    assert 100 * MIB < context_bytes(find_card("T4")) < context_bytes(find_card("rtx3090")) < GIB


def test_what_runs_only_while_the_cache_is_released_is_risky() -> None:
    """A budget below what the steps would reserve, and above what they must hold."""
    options = LandmarkJobOptions(
        model="hrnet_w18_small", image_size=(256, 256), landmarks=4, amp=None, channels_last=True
    )
    card = find_card("rtx3070ti")

    def trial(vram: int | None = None) -> Trial:
        return Predictor(landmark_job(options), card, card_budget(card, MemoryLimits.parse(vram=vram))).trial(16)

    free = trial()
    low, least = free.device_used_band_bytes[0], free.peak_allocated_bytes + free.context_bytes
    assert trial(round(0.96 * low)).verdict is Verdict.RISKY
    assert trial(least).verdict is Verdict.OVER_BUDGET
