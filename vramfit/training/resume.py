"""The checkpoint that a run goes on from: what it was of, and whether this run may go on from it."""

from dataclasses import dataclass
from pathlib import Path

from vramfit.jobs.job import Job, empty_model
from vramfit.training import checkpoint
from vramfit.training.run_folders import resume_file
from vramfit.training.run_options import RunOptions
from vramfit.training.run_state import RunState


@dataclass(frozen=True)
class Resumed:
    """A checkpoint of an earlier run and what is in it."""

    path: Path
    content: checkpoint.Content

    @property
    def state(self) -> RunState:
        """Where that run was."""
        return RunState.of(self.content["position"])

    def is_over(self, options: RunOptions) -> bool:
        """Whether nothing is left to train."""
        return self.state.is_over(options.epochs, options.patience)

    def note(self, options: RunOptions, effective_batch: int) -> str:
        """Where the run goes on, and what changes its result, in a sentence."""
        position, before = self.content["position"], self.content["effective_batch"]
        where = f"Resumed from {self.path}: epoch {position['epoch'] + 1}, {position['done']} of its samples done"
        changes = options.changes_from(self.content["config"])
        changes += [f"effective batch {before} -> {effective_batch}"] if before != effective_batch else []
        return f"{where}; changed: {', '.join(changes)}." if changes else f"{where}."

    def require_model_of(self, job: Job) -> None:
        """Refuse a job with another model, without reading any data.

        Raises:
            DataError: names both models and the first weight that differs.

        """
        checkpoint.require_same_model(self.content, empty_model(job), self.path)


def read_resumed(options: RunOptions) -> Resumed | None:
    """The checkpoint that `options.resume` names, if it does.

    Raises:
        DataError: it cannot be read.
        UsageError: it is of a run that learned other parameters, or from other data.

    """
    path = resume_file(options.resume, options.save_dir)
    if path is None:
        return None
    content = checkpoint.load(path)
    options.require_same_run(content["config"])
    return Resumed(path, content)
