"""Records for tests, made by hand: no engine ran."""

from vramfit.records import Budget, JobKey, Machine, Plan, Profile, Schedule, Trial, Verdict
from vramfit.units import GIB


def make_trial(micro_batch: int, *, budget_gib: float = 7.5, **changes: object) -> Trial:
    """A predicted trial of a job that takes 1 GiB an image and 0.4 fixed, 40 ms an image."""
    device = round((0.4 + micro_batch) * GIB)
    figures = {
        "source": "predicted",
        "micro_batch": micro_batch,
        "verdict": Verdict.FITS if device < budget_gib * GIB else Verdict.OVER_BUDGET,
        "budget_bytes": round(budget_gib * GIB),
        "peak_allocated_bytes": micro_batch * GIB,
        "peak_reserved_bytes": round((0.1 + micro_batch) * GIB),
        "context_bytes": round(0.3 * GIB),
        "device_used_bytes": device,
        "device_used_band_bytes": (round(0.9 * device), round(1.1 * device)),
        "step_time_s": 0.04 * micro_batch,
    }
    return Trial.model_validate({**figures, **changes})


def make_profile(micro_batch: int = 6, **changes: object) -> Profile:
    """A predicted profile of that job at 768x768 on an 8 GiB card."""
    figures = {
        "vramfit_version": "0.1.0",
        "source": "predicted",
        "job": JobKey(name="landmarks", model="hrnet_w32", image_size=(768, 768), amp="fp16", optimizer="AdamW"),
        "machine": Machine(card="RTX 3070 Ti", torch="2.15.0"),
        "budget": Budget(total_bytes=8 * GIB, driver_bytes=GIB // 2),
        "schedule": Schedule(images=700, epochs=200),
        "plan": Plan(micro_batch=micro_batch, reason="batch 6: 7 exceeds the budget by 0.4 GiB."),
        "trials": tuple(make_trial(n) for n in range(1, 8)),
    }
    return Profile.model_validate({**figures, **changes})
