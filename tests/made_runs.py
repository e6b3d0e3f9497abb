"""What a run tells its listeners, for tests, made by hand: nothing was trained."""

from pathlib import Path

from vramfit.landmarks.training.task import metric_words
from vramfit.records import EpochRecord, GrowBack, OomEvent
from vramfit.training.listeners import RunStart, RunSummary
from vramfit.units import GIB

EVENT = OomEvent(
    epoch=2, step=7, phase="backward", micro_batch_before=6, micro_batch_after=3, message="CUDA out of memory."
)
GROWTH = GrowBack(epoch=4, micro_batch_before=3, micro_batch_after=6)
ON_CPU = EpochRecord(
    epoch=2,
    loss=1.23456,
    learning_rate=3e-4,
    metrics={"mre_mm": 1.5, "sdr_2.0mm": 0.8125},
    micro_batch=6,
    images_per_s=31.4,
    data_wait_share=0.07,
    duration_s=22.3,
)
ON_CARD = ON_CPU.model_copy(
    update={
        "peak_allocated_bytes": 6 * GIB,
        "peak_reserved_bytes": 7 * GIB,
        "device_used_bytes": 15 * GIB // 2,
        "oom_events": (EVENT,),
        "micro_batch": 3,
    }
)


def start(**changes):
    figures = {
        "model": "hrnet_w32",
        "device": "CPU",
        "samples": 700,
        "validation_samples": 150,
        "epochs": 200,
        "first_epoch": 1,
        "steps_per_epoch": 117,
        "effective_batch": 6,
        "micro_batch": 6,
        "world_size": 1,
        "save_dir": Path("checkpoints"),
        "log_dir": Path("logs"),
        "notes": ("batch 6: 7 exceeds the budget by 0.4 GiB.",),
        "metrics": ("mre_mm", "sdr_2.0mm"),
        "metric_words": metric_words,
    }
    return RunStart(**{**figures, **changes})


def summary(**changes):
    figures = {
        "epochs": 200,
        "best_epoch": 150,
        "best_metrics": {"mre_mm": 1.234},
        "best_words": metric_words({"mre_mm": 1.234})[0],
        "best_loss": 0.5,
        "duration_s": 3700.0,
        "save_dir": Path("checkpoints"),
        "micro_batch": 6,
        "step_time_s": 0.25,
    }
    return RunSummary(**{**figures, **changes})
