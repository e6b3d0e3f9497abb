"""`vramfit.lock`: what each job or script takes, as it was accepted last. JSON, a line for each figure, in bytes."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from vramfit.choices import Amp
from vramfit.errors import ProfileError, UsageError
from vramfit.files import write_atomically
from vramfit.prediction.phase_peaks import PhasePeak
from vramfit.records import Bytes, Record


class Question(Record):
    """What is traced: a model by its name or the command of a script, on which card, at which batch.

    `image_size` is (height, width); None, as of `amp`, is what the job says itself.
    """

    model: str | None = None
    command: tuple[str, ...] = ()
    gpu: str
    batch_size: int | None = None
    image_size: tuple[int, int] | None = None
    amp: Amp | Literal["off"] | None = None
    channels_last: bool = False

    @property
    def is_of_one(self) -> bool:
        """Whether it asks of one job, and not of all that is locked."""
        return bool(self.command) or self.model is not None

    @property
    def name(self) -> str:
        """What a lock file calls it unless it is given a name."""
        return " ".join(self.command) if self.model is None else f"{self.model}, batch {self.batch_size}"


class LockedJob(Record):
    """What a question was answered, and by which torch and vramfit."""

    question: Question
    torch: str
    vramfit: str
    phases: dict[str, PhasePeak]

    @property
    def peak_bytes(self) -> Bytes:
        """The most that tensors hold in any phase."""
        return max(peak.size_bytes for peak in self.phases.values())

    def rolled_up(self) -> "LockedJob":
        """As a lock file keeps it: small modules are counted with those that they are part of."""
        return self.model_copy(update={"phases": {name: peak.rolled_up() for name, peak in self.phases.items()}})


class LockFile(Record):
    """All that is locked, by name."""

    version: Literal[1] = 1
    jobs: dict[str, LockedJob] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "LockFile":
        """The lock file at a path.

        Raises:
            UsageError: there is none.
            ProfileError: it cannot be read.

        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise UsageError(
                f"there is no {path}; make it with `vramfit check --update --model NAME --batch-size N`, or with "
                "`vramfit check --update -- python train.py`."
            ) from error
        except (OSError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise ProfileError(f"{path} is no lock file of vramfit ({reason}); make it anew with --update.") from error

    def write(self, path: Path) -> None:
        """Write it whole, jobs in the order of their names.

        Raises:
            CannotWrite: the file system refuses.

        """
        ordered = self.model_copy(update={"jobs": dict(sorted(self.jobs.items()))})
        write_atomically(path, ordered.model_dump_json(indent=2, exclude_defaults=True) + "\n")
