"""The registry of tasks that `vramfit train` knows: adding one is a line here, and a package of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from vramfit.classify.options import ClassifyOptions
from vramfit.cli.config import task_in_config
from vramfit.errors import UsageError
from vramfit.landmarks.training.options import LandmarkOptions
from vramfit.training.run_options import RunOptions

FLAG = "--task"


@dataclass(frozen=True)
class TaskKind:
    """A task by name: its options, and the function `(options, listeners) -> RunSummary` that trains it.

    The function is named as `module:function`, and loaded when a run begins: it needs torch.
    """

    name: str
    options: type[RunOptions]
    trainer: str
    summary: str

    @property
    def verb(self) -> str:
        """What the command line calls it."""
        return f"train {FLAG} {self.name}"

    def load(self) -> Callable[[Any, Sequence[Any]], Any]:
        """The function that trains it."""
        module, _, function = self.trainer.partition(":")
        found: Callable[[Any, Sequence[Any]], Any] = getattr(import_module(module), function)
        return found


LANDMARKS = TaskKind(
    "landmarks",
    LandmarkOptions,
    "vramfit.landmarks.training.train:train",
    "Train a landmark network on a film set, after checking what fits the card.",
)
CLASSIFY = TaskKind(
    "classify",
    ClassifyOptions,
    "vramfit.classify.task:train",
    "Train a timm model to classify images in folders by class, after checking what fits the card.",
)
TASKS: tuple[TaskKind, ...] = (LANDMARKS, CLASSIFY)


def with_task_in_verb(words: list[str]) -> list[str]:
    """`train ... --task NAME ...` as the verb of that task, and the other words; landmarks are what `train` trains.

    Raises:
        UsageError: no such task.

    """
    if not words or words[0] != "train":
        return words
    for place, word in enumerate(words):
        flag, sign, value = word.partition("=")
        if flag == FLAG:
            name = value if sign else "".join(words[place + 1 : place + 2])
            rest = words[1:place] + words[place + (1 if sign else 2) :]
            return [*_verb_of(name), *rest]
    configured = task_in_config(words)
    return words if configured is None else [*_verb_of(configured), *words[1:]]


def _verb_of(name: str) -> list[str]:
    kind = next((one for one in TASKS if one.name == name), None)
    if kind is None:
        raise UsageError(f"{FLAG} '{name}' is not known; use {' or '.join(one.name for one in TASKS)}.")
    return ["train"] if kind is LANDMARKS else [kind.verb]
