"""The checkpoint that a run goes on from: what it was of, and whether this run may go on from it."""

from dataclasses import dataclass
from pathlib import Path

from vramfit.jobs.job import empty_model
from vramfit.landmarks.data.films import Landmark
from vramfit.landmarks.model.job import landmark_job
from vramfit.landmarks.training.options import TrainOptions
from vramfit.training import checkpoint
from vramfit.training.run_folders import resume_file
from vramfit.training.run_state import RunState


@dataclass(frozen=True)
class Resumed:
    """A checkpoint of `vramfit train` and what is in it."""

    path: Path
    content: checkpoint.Content

    @property
    def epochs_done(self) -> int:
        """The epochs that are behind."""
        return int(self.content["position"]["epoch"])

    @property
    def landmarks(self) -> tuple[Landmark, ...]:
        """Those that its heatmaps stand for, in order: the films' are joined with them by name."""
        return tuple(Landmark(symbol, title) for symbol, title in self.content["task"].get("landmarks", ()))

    def is_over(self, options: TrainOptions) -> bool:
        """Whether nothing is left to train."""
        return RunState.of(self.content["position"]).is_over(options.epochs, options.patience)

    def note(self, options: TrainOptions, effective_batch: int) -> str:
        """Where the run goes on, and what changes its result, in a sentence."""
        position, before = self.content["position"], self.content["effective_batch"]
        where = f"Resumed from {self.path}: epoch {position['epoch'] + 1}, {position['done']} of its samples done"
        changes = options.changes_from(self.content["config"])
        changes += [f"effective batch {before} -> {effective_batch}"] if before != effective_batch else []
        return f"{where}; changed: {', '.join(changes)}." if changes else f"{where}."

    def require_its_model(self, options: TrainOptions) -> None:
        """Refuse another model without reading films: the checkpoint knows how many landmarks they have.

        Raises:
            DataError: names both models and the first weight that differs.

        """
        model = empty_model(landmark_job(options.landmark_options(len(self.landmarks) or 1)))
        checkpoint.require_same_model(self.content, model, self.path)


def read_resumed(options: TrainOptions) -> Resumed | None:
    """The checkpoint that `options.resume` names, if it does.

    Raises:
        DataError: it cannot be read.
        UsageError: it is of a run that learned other parameters, or from other films.

    """
    path = resume_file(options.resume, options.save_dir)
    if path is None:
        return None
    content = checkpoint.load(path)
    options.require_same_run(content["config"])
    return Resumed(path, content)
