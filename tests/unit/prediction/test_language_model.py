"""The step of a 24-layer language model against its recording on a card: 4 x 512 tokens, bf16 autocast."""

import language_model
import pytest
import torch

from vramfit import Job
from vramfit.cards import find_card
from vramfit.prediction.overheads import kept_workspaces
from vramfit.prediction.reductions import staging_workspaces
from vramfit.prediction.replay_trace import replay_trace
from vramfit.prediction.snapshots.compare import recorded
from vramfit.prediction.snapshots.snapshot import load_snapshot
from vramfit.prediction.tracing.trace import trace_step


def batch(n):
    tokens = (torch.randint(language_model.VOCABULARY, (n, language_model.T)) for _ in range(2))
    return dict(zip(("tokens", "targets"), tokens, strict=True)), torch.zeros(n)


@pytest.mark.shared
@pytest.mark.slow
def test_the_recorded_step_is_predicted_within_one_percent_allocated_and_three_reserved(shared_data) -> None:
    """Nothing was fitted to it. The recording is of one plain step, so the trace is replayed without accumulation."""
    job = Job(
        model=language_model.LanguageModel,
        batch=batch,
        loss=lambda loss, _: loss,
        optimizer=language_model.AdamW,
        amp="bf16",
    )
    trace = trace_step(job, 4, validation=False)
    card = find_card("rtx4090")  # the recording does not say which it was
    peaks = replay_trace(trace, staging_workspaces(trace.operations, card), kept_bytes=kept_workspaces(trace, card))
    truth = recorded(load_snapshot(shared_data / "snapshots" / "wedsonlin_medium_512_training.pickle"))
    assert peaks.allocated_bytes == pytest.approx(truth.peak_allocated_bytes, rel=0.01)
    assert peaks.reserved_bytes == pytest.approx(truth.peak_reserved_bytes, rel=0.03)
