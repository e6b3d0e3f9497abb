"""What a step leaves for the next one: traced until it no longer grows, and said where it goes on to."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vramfit.jobs.job import Job
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.trace import trace_step
from vramfit.prediction.transforms.accumulate import accumulating

WIDTH, SAMPLES = 64, 128
ROWS_BYTES = SAMPLES * WIDTH * 4


class Remembering(nn.Module):
    """Keeps what the last steps saw, in so many rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.layer, self.rows, self.seen = nn.Linear(WIDTH, WIDTH), rows, None

    def forward(self, values: Tensor) -> Tensor:
        seen = values if self.seen is None else torch.cat([self.seen, values])
        if self.training and self.rows:
            self.seen = seen[-self.rows :].detach().clone()
        return self.layer(values) + seen.mean(0)


def traced(rows: int, steps: int = 2) -> Trace:
    def batch(samples: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(samples, WIDTH), torch.zeros(samples, dtype=torch.long)

    job = Job(model=lambda: Remembering(rows), batch=batch, loss=F.cross_entropy, optimizer=torch.optim.AdamW, amp=None)
    return trace_step(job, SAMPLES, steps=steps)


def steps_of(trace: Trace) -> int:
    return sum(name.startswith("step ") for name in trace.marks)


def test_steps_are_traced_until_they_leave_no_more_behind() -> None:
    full, half = traced(4 * SAMPLES), traced(2 * SAMPLES)
    assert (steps_of(full), steps_of(half)) == (5, 3)
    assert full.peak_bytes - half.peak_bytes >= 4 * ROWS_BYTES  # both the memory and its copy are two batches longer
    assert full.assumptions == []


def test_a_step_that_keeps_nothing_is_traced_as_often_as_is_asked() -> None:
    assert steps_of(traced(0)) == 2
    assert steps_of(traced(4 * SAMPLES, steps=1)) == 1


def test_what_goes_on_growing_is_said() -> None:
    trace = traced(1000 * SAMPLES)
    assert steps_of(trace) == 8
    assert trace.assumptions[0].startswith("the step: it leaves 0.031 MiB more behind each time")


def test_the_last_step_is_the_one_that_is_accumulated() -> None:
    trace = traced(4 * SAMPLES)
    rehearsed = accumulating(trace)
    assert rehearsed.marks["step 5"] == trace.marks["step 5"]
    assert rehearsed.peak_bytes >= trace.peak_bytes + 4 * WIDTH * WIDTH  # gradients stay while the second pass runs
