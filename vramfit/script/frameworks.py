"""Training frameworks that decide beforehand when they validate, told to do so once a script's steps are made."""

import sys
from typing import Any

_LIGHTNING = ("pytorch_lightning", "lightning.pytorch")


def validate_next() -> None:
    """Let Lightning and the Trainer of transformers validate after the step that they are at.

    Lightning would do so at the last batch of an epoch, the Trainer at a step or an epoch that it was told, or leave
    it to the script once all epochs are over.
    """
    for name in _LIGHTNING:
        loops = sys.modules.get(f"{name}.loops.training_epoch_loop")
        if loops is not None:
            loops._TrainingEpochLoop._should_check_val_fx = _has_validation
    callbacks = sys.modules.get("transformers.trainer_callback")
    if callbacks is not None and callbacks.DefaultFlowCallback.on_step_end is not _last_step:
        _last_step.original = callbacks.DefaultFlowCallback.on_step_end  # type: ignore[attr-defined]
        callbacks.DefaultFlowCallback.on_step_end = _last_step


def _has_validation(loop: Any, *_: Any) -> bool:
    trainer = loop.trainer
    return bool(trainer.enable_validation and trainer.num_val_batches)


def _last_step(callback: Any, args: Any, state: Any, control: Any, **told: Any) -> Any:
    """End a Trainer's training as at its last step, without the checkpoint that it would write there."""
    state.max_steps = state.global_step
    control = _last_step.original(callback, args, state, control, **told)  # type: ignore[attr-defined]
    control.should_save = False
    return control
