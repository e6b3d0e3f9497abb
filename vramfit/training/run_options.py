"""How the loop is to run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How the loop is to run; see `TrainOptions` for what each means. `config` is kept in checkpoints as it is."""

    epochs: int
    effective_batch: int
    micro_batch: int
    save_dir: Path
    warmup_epochs: float = 0
    patience: int | None = None
    difficulty: float = 0.0
    seed: int = 0
    num_workers: int = 0
    batches_ahead: int = 2
    pin_memory: bool = False
    save_every: int = 10
    keep: int = 3
    save_every_steps: int | None = None
    save_every_minutes: float = 10.0
    grow_back: bool = False
    config: dict[str, Any] = field(default_factory=dict)
