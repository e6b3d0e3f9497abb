"""Out of memory at every one of the first 200 operations of a step, and at every one of a validation step.

    python benchmarks/fault_injection.py [--operations 200]

The network has no batch normalisation, computes in float64 and learns by SGD or AdamW, so the weights after a recovered
fault must be those of the run without it, to 1e-9. Writes benchmarks/results/fault_injection.json.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

import small_runs as small  # noqa: E402  # the path is set above
from faults import FaultAt  # noqa: E402

from vramfit.jobs.step import Step  # noqa: E402
from vramfit.training.recovery import Recovery  # noqa: E402

RESULT = REPOSITORY / "benchmarks" / "results" / "fault_injection.json"
SAMPLES, STEPS = 8, 3


def deep_network():
    layers = [torch.nn.Linear(small.FEATURES, 12)]
    for _ in range(5):
        layers += [torch.nn.Tanh(), torch.nn.Linear(12, 12)]
    return torch.nn.Sequential(*layers, torch.nn.Linear(12, 1)).double()


def train(job, at_step=None, k=0):
    """Weights after some steps with a fault at operation k of one of them, its phase, and the operations seen."""
    torch.manual_seed(0)
    events, seen = [], 0
    recovery = Recovery(Step(job, "cpu"), 4, on_event=events.append)
    for number in range(STEPS):
        batch = job.batch(SAMPLES)
        with FaultAt(k if number == at_step else -1) as fault:
            recovery.train(batch, SAMPLES)
        seen = fault.count if number == at_step else seen
    return small.weights(recovery.step), [event.phase for event in events], seen > k


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


def training_rows(operations):
    for name, optimizer in (("sgd", small.sgd), ("adamw", small.adamw)):
        job = small.job(model=deep_network, optimizer=optimizer, ema_decay=0.9, clip_norm=1.0)
        clean, _, _ = train(job)
        for at_step in (0, 1):
            results = [train(job, at_step, k) for k in range(operations)]
            struck = [(weights, phases) for weights, phases, hit in results if hit]
            yield {
                "optimizer": name,
                "step": at_step + 1,
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
    parser.add_argument("--operations", type=int, default=200)
    operations = parser.parse_args().operations
    began = time.perf_counter()
    rows = list(training_rows(operations))
    validations = [validate(small.job(model=deep_network), k) for k in range(operations)]
    tried = [result for result in validations if result is not None]
    result = {
        "training": rows,
        "validation": {"faults": len(tried), "right": sum(tried)},
        "torch": torch.__version__,
        "platform": platform.platform(terse=True),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.perf_counter() - began, 1),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    sound = all(row["largest_difference"] < 1e-9 and row["events_per_fault"] == [1] for row in rows) and all(tried)
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
