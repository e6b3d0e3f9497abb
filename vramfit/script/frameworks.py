"""Training frameworks that decide beforehand when they validate, told to do so once a script's steps are made."""

import sys
from typing import Any

_LIGHTNING = ("pytorch_lightning", "lightning.pytorch")


def validate_next() -> None:
    """Let Lightning validate after the batch that it is at; it does so at the last one of an epoch otherwise."""
    for name in _LIGHTNING:
        loops = sys.modules.get(f"{name}.loops.training_epoch_loop")
        if loops is not None:
            loops._TrainingEpochLoop._should_check_val_fx = _has_validation


def _has_validation(loop: Any, *_: Any) -> bool:
    trainer = loop.trainer
    return bool(trainer.enable_validation and trainer.num_val_batches)
