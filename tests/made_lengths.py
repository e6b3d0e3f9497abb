"""Plans of lengths without a card, and skewed lengths."""

from random import Random

from vramfit.plan.length_plan import LengthPlan, ProvenLength
from vramfit.records import Budget, JobKey, Machine, Trial


def proven(length, batch, samples=1, **changes):
    """A batch proven at a length, by a number or a tuple."""
    settings = {"source": "predicted", "micro_batch": batch, "verdict": "fits", "budget_bytes": 1} | changes
    return ProvenLength(
        length=(length,) if isinstance(length, int) else length, samples=samples, trial=Trial(**settings)
    )


def plan_of(*proven_lengths, axis="tokens", counted=True):
    """A plan of lengths in ascending order."""
    return LengthPlan(
        vramfit_version="0",
        axis=axis,
        source="predicted",
        counted=counted,
        job=JobKey(name="job", model="Net"),
        machine=Machine(),
        budget=Budget(total_bytes=1),
        proven=proven_lengths,
    )


def skewed_lengths(samples, longest, seed=0):
    """Lengths of documents: most short, a few as long as is allowed."""
    order = Random(seed)
    return [max(4, min(longest, int(order.lognormvariate(4.2, 1.0)))) for _ in range(samples)]
