"""The largest batch at each of a few lengths, proven there: what a sampler of batches may build."""

from datetime import UTC, datetime
from math import ceil, prod
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, ValidationError

from vramfit.errors import ProfileError
from vramfit.plan.lengths import Length, Lengths, covers
from vramfit.records import Budget, JobKey, Machine, Record, Source, Trial


class ProvenLength(Record):
    """The largest batch of samples up to one length that was found to fit, each padded to it at most.

    `samples` are those of the data set for which this is the cheapest length that covers them; of a range, how many of
    its lengths.
    """

    length: tuple[PositiveInt, ...]
    samples: int
    trial: Trial

    @property
    def tokens(self) -> int:
        """Padded tokens (or points, frames, pixels) of the batch."""
        return self.trial.micro_batch * prod(self.length)

    @property
    def batches(self) -> int:
        """How many of its batches its samples make."""
        return ceil(self.samples / self.trial.micro_batch)


class LengthPlan(Record):
    """What fits at each length, from the shortest to the longest, and where that was found.

    A batch fits where one of the proven lengths covers its longest sample and its size is at most the one proven there:
    memory grows with the batch and with the length. Nothing in between is taken for granted.
    """

    schema_version: Literal[1] = 1
    vramfit_version: str
    created: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    axis: str
    source: Source
    counted: bool
    job: JobKey
    machine: Machine
    budget: Budget
    proven: tuple[ProvenLength, ...]
    notes: tuple[str, ...] = ()

    @property
    def longest(self) -> ProvenLength:
        """The length that covers every other."""
        return self.proven[-1]

    @property
    def fixed_batch(self) -> int:
        """The largest batch of one size for all lengths: sooner or later all of it are the longest samples."""
        return self.longest.trial.micro_batch

    @property
    def token_budget(self) -> int:
        """The most tokens for which `budget // padded length` samples fit at each proven length."""
        return min((one.trial.micro_batch + 1) * prod(one.length) - 1 for one in self.proven)

    def place_of(self, length: Length) -> int | None:
        """Which of the proven lengths takes the most samples of a length; None where none covers it."""
        fitting = [place for place, one in enumerate(self.proven) if covers(one.length, length)]
        return max(fitting, key=lambda place: (self.proven[place].trial.micro_batch, -place), default=None)

    def largest_batch(self, length: int | Length) -> int:
        """The most samples of a length that were proven to fit, 0 for one that is longer than any proven."""
        place = self.place_of((length,) if isinstance(length, int) else length)
        return 0 if place is None else self.proven[place].trial.micro_batch

    def to_json(self) -> str:
        """The plan as indented JSON, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def read(cls, file: str | Path) -> Self:
        """A plan that `vramfit probe --axis ... --export FILE` wrote.

        Raises:
            ProfileError: not JSON, or not of a plan; names the first key.

        """
        try:
            return cls.model_validate_json(Path(file).read_bytes())
        except OSError as error:
            raise ProfileError(f"{file} cannot be read ({error.strerror}); name the plan's file.") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"]) or "the document"
            raise ProfileError(
                f"{file}: '{key}' is not valid in a plan of lengths ({first['msg']}); make it anew with "
                "`vramfit probe --axis ... --lengths ... --export FILE`."
            ) from None


def samples_by_length(lengths: Lengths, chosen: tuple[Length, ...]) -> list[int]:
    """How many samples each of the chosen lengths is the first of them to cover."""
    found = [0] * len(chosen)
    for length, count in lengths.counts.items():
        found[next(place for place, one in enumerate(chosen) if covers(one, length))] += count
    return found
