"""Where a run is: what the loop carries from one step to the next, beside what the training step carries."""

from dataclasses import dataclass, field
from typing import Any, Self

from vramfit.records import EpochRecord, GrowBack, OomEvent, Profile


@dataclass
class RunState:
    """Where a run is: `epoch` is the one under way, from 0, and `done` the samples of it that are behind.

    `running_errors` are the task's figures of validation, empty unless difficult ones count for more.
    """

    epoch: int = 0
    done: int = 0
    loss_total: float = 0.0
    loss_samples: int = 0
    best_epoch: int | None = None
    best_value: float | None = None
    history: list[EpochRecord] = field(default_factory=list)
    running_errors: list[float] = field(default_factory=list)
    oom_events: list[OomEvent] = field(default_factory=list)
    grow_backs: list[GrowBack] = field(default_factory=list)

    def is_over(self, epochs: int, patience: int | None) -> bool:
        """Whether the last epoch is behind, or so many since the best one that patience is at an end."""
        return self.epoch >= epochs or (patience is not None and self.epoch - (self.best_epoch or 0) >= patience)

    @property
    def best(self) -> EpochRecord | None:
        """The best epoch so far."""
        return next((record for record in self.history if record.epoch == self.best_epoch), None)

    def ooms_of(self, epoch: int) -> tuple[OomEvent, ...]:
        """The OOM events of one epoch, counted from 1."""
        return tuple(event for event in self.oom_events if event.epoch == epoch)

    def written_into(self, profile: Profile) -> Profile:
        """A profile with what happened to its run."""
        return profile.model_copy(update={"oom_events": tuple(self.oom_events), "grow_backs": tuple(self.grow_backs)})

    def plain(self) -> dict[str, Any]:
        """This state in types that load with `weights_only`."""
        return {
            **self.__dict__,
            "history": [record.model_dump(mode="json") for record in self.history],
            "oom_events": [event.model_dump(mode="json") for event in self.oom_events],
            "grow_backs": [growth.model_dump(mode="json") for growth in self.grow_backs],
        }

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Self:
        """The state that `plain` wrote."""
        history = [EpochRecord.model_validate(record) for record in plain["history"]]
        events = [OomEvent.model_validate(event) for event in plain["oom_events"]]
        growths = [GrowBack.model_validate(growth) for growth in plain.get("grow_backs", ())]
        return cls(**{**plain, "history": history, "oom_events": events, "grow_backs": growths})
