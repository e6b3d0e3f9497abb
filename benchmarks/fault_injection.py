"""Out of memory at every operation of a step: forward, backward and optimizer; and at every one of a validation step.

    python benchmarks/fault_injection.py [--operations 200]

`--operations` takes the first and the last so many of a step alone; by default it is all of them.

The network has no batch normalisation, computes in float64 and learns by SGD or AdamW, so the weights after a recovered
fault must be those of the run without it, to 1e-9. Writes benchmarks/results/fault_injection.json.
"""

import argparse
import gc
import sys
import time
from itertools import takewhile
from pathlib import Path

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

import small_runs as small  # noqa: E402  # the path is set above
from ending import end  # noqa: E402
from faults import FaultAt  # noqa: E402

from vramfit.jobs.step import Step  # noqa: E402
from vramfit.training.recovery import Recovery  # noqa: E402

SAMPLES, STEPS = 8, 3
NO_FAULT = 1_000_000


def deep_network():
    layers = [torch.nn.Linear(small.FEATURES, 12)]
    for _ in range(5):
        layers += [torch.nn.Tanh(), torch.nn.Linear(12, 12)]
    return torch.nn.Sequential(*layers, torch.nn.Linear(12, 1)).double()


def train(job, at_step, k=NO_FAULT):
    """Weights after some steps with a fault at operation k of one of them, its phase, and the operations seen."""
    torch.manual_seed(0)
    events, seen = [], 0
    recovery = Recovery(Step(job, "cpu"), 4, on_event=events.append)
    for number in range(STEPS):
        batch = job.batch(SAMPLES)
        with FaultAt(k if number == at_step else NO_FAULT) as fault:
            recovery.train(batch, SAMPLES)
        seen = fault.count if number == at_step else seen
    return small.weights(recovery.step), [event.phase for event in events], seen


def validate(job, k):
    """Whether all samples come once and right after a fault at operation k; None where there is no such operation."""
    recovery = Recovery(Step(job, "cpu"), SAMPLES)
    batch = job.batch(SAMPLES)
    whole, _ = recovery.step.validate(batch)
    with FaultAt(k) as fault:
        parts = list(recovery.validate(batch))
    if not fault.struck:
        return None
    indices = [index for _, _, place in parts for index in range(SAMPLES)[place]]
    outputs = torch.cat([outputs for outputs, _, _ in parts])
    return indices == list(range(SAMPLES)) and float((outputs - whole).abs().max()) < 1e-9


def chosen(operations, most):
    """The operations to fail: all, or the first and the last so many."""
    return [k for k in range(operations) if most is None or k < most or k >= operations - most]


def training_rows(most):
    for name, optimizer in (("sgd", small.sgd), ("adamw", small.adamw)):
        job = small.job(model=deep_network, optimizer=optimizer, ema_decay=0.9, clip_norm=1.0)
        for at_step in (0, 1):
            clean, _, operations = train(job, at_step)
            struck = [train(job, at_step, k)[:2] for k in chosen(operations, most)]
            yield {
                "optimizer": name,
                "step": at_step + 1,
                "operations": operations,
                "faults": len(struck),
                "phases": {
                    phase: sum(phases == [phase] for _, phases in struck)
                    for phase in ("forward", "backward", "optimizer")
                },
                "events_per_fault": sorted({len(phases) for _, phases in struck}),
                "largest_difference": max(small.difference(weights, clean) for weights, _ in struck),
            }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int)
    most = parser.parse_args().operations
    gc.freeze()  # every recovery collects garbage; the libraries themselves are none
    began = time.perf_counter()
    rows = list(training_rows(most))
    validations = (validate(small.job(model=deep_network), k) for k in range(NO_FAULT))
    tried = list(takewhile(lambda result: result is not None, validations))
    sound = all(row["largest_difference"] < 1e-9 and row["events_per_fault"] == [1] for row in rows) and all(tried)
    result = {"training": rows, "validation": {"faults": len(tried), "right": sum(tried)}}
    end("fault_injection", result, began, sound=sound)


if __name__ == "__main__":
    main()
