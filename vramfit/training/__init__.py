"""The run itself: trainer, recovery, checkpoints, evaluation."""
