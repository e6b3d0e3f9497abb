"""The records that vramfit's rooms hand to each other and keep as JSON.

All are frozen. Sizes are integers in bytes (`_bytes`), durations seconds (`_s`), distances millimetres (`_mm`).
Derived figures are computed, written to the JSON for readers, and ignored when it is loaded.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    computed_field,
    model_validator,
)

from vramfit.choices import EPOCHS, IMAGES, Amp, Objective
from vramfit.errors import ProfileError
from vramfit.record_html import html_table

Source = Literal["predicted", "measured"]
Phase = Literal["forward", "backward", "optimizer", "validation"]
Bytes = Annotated[int, Field(ge=0)]
Band = tuple[int, int]


class Verdict(StrEnum):
    """What became of a trial.

    Measured, it `fits`, is `over_budget`, ends in `oom`, has `spilled` to the system's RAM, or has `failed` for another
    reason. Predicted, it `fits` with the high end of its range, is `risky` with the low end alone, or `over_budget`; or
    it has `failed`, where the job does not take that size.
    """

    FITS = "fits"
    OVER_BUDGET = "over_budget"
    OOM = "oom"
    SPILLED = "spilled"
    RISKY = "risky"
    FAILED = "failed"


class Record(BaseModel):
    """Base of every record: frozen, strict about unknown keys, computed keys welcome on load."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    @model_validator(mode="before")
    @classmethod
    def _drop_computed(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {key: value for key, value in data.items() if key not in cls.model_computed_fields}

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return html_table(self)


class Lever(Record):
    """A setting that trades time for memory.

    `name` is a name of `vramfit.jobs.levers`; `modules` are the dotted module names it applies to, all when empty.
    """

    name: str
    setting: str = "on"
    modules: tuple[str, ...] = ()


class Budget(Record):
    """What the job may use at device level, and every part that led to it.

    `budget_bytes` = min(requested, total - driver - other processes - reserve), each part that is known.
    """

    total_bytes: Bytes
    requested_bytes: Bytes | None = None
    driver_bytes: Bytes = 0
    other_processes_bytes: Bytes = 0
    reserve_bytes: Bytes = 0
    context_bytes: Bytes = 0
    notes: tuple[str, ...] = ()

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented order
    @property
    def free_bytes(self) -> int:
        """What is left of the card for this job, its CUDA context included."""
        taken = self.driver_bytes + self.other_processes_bytes + self.reserve_bytes
        return max(0, self.total_bytes - taken)

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented order
    @property
    def budget_bytes(self) -> int:
        """Bytes the job may use at device level: allocator and context together."""
        return min(self.free_bytes, self.requested_bytes or self.free_bytes)


class Trial(Record):
    """One micro-batch tried once, predicted or measured.

    `step_time_s` is the median of one optimizer step of one micro-batch. A predicted trial's figures are the
    middle of a 90 % band, kept in the `_band` fields as (low, high). `assumptions` are what it took for granted about
    values that only a card has, each with the line that relies on it: `loss.py:12: a mask keeps everything`.
    `host_bound`: predicted to wait for the host's launches, so that the time is a lower bound.
    """

    source: Source
    micro_batch: PositiveInt
    verdict: Verdict
    budget_bytes: Bytes
    peak_allocated_bytes: Bytes | None = None
    peak_reserved_bytes: Bytes | None = None
    context_bytes: Bytes | None = None
    device_used_bytes: Bytes | None = None
    device_used_band_bytes: Band | None = None
    step_time_s: float | None = None
    step_time_band_s: tuple[float, float] | None = None
    allocator_retries: int = 0
    emulated: bool = False
    note: str = ""
    assumptions: tuple[str, ...] = ()
    host_bound: bool = False

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented order
    @property
    def headroom_bytes(self) -> int | None:
        """Budget minus device use; negative when over budget, None when nothing was read."""
        return None if self.device_used_bytes is None else self.budget_bytes - self.device_used_bytes

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented order
    @property
    def excess_bytes(self) -> int:
        """What a trial that does not fit takes beyond the budget; one that only may, at the high end of its band."""
        if self.verdict is Verdict.FITS or self.device_used_bytes is None:
            return 0
        high = self.device_used_band_bytes[1] if self.device_used_band_bytes else self.device_used_bytes
        over = self.device_used_bytes - self.budget_bytes
        return over if over > 0 else max(0, high - self.budget_bytes)

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented order
    @property
    def throughput_images_per_s(self) -> float | None:
        """Images a second while stepping; data loading is not in it."""
        return self.micro_batch / self.step_time_s if self.step_time_s else None


class Plan(Record):
    """What to train with, and why.

    `last_micro_batch` is the size of the last micro-batch of a step where it is smaller than the others: 7 is 4 + 3.
    """

    micro_batch: PositiveInt
    accumulation_steps: PositiveInt = 1
    last_micro_batch: PositiveInt | None = None
    world_size: PositiveInt = 1
    objective: Objective = "fastest"
    levers: tuple[Lever, ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented order
    @property
    def effective_batch(self) -> int:
        """Samples per optimizer step over all cards."""
        short = self.micro_batch - (self.last_micro_batch or self.micro_batch)
        return (self.micro_batch * self.accumulation_steps - short) * self.world_size


class JobKey(Record):
    """What a profile is valid for: the job, as far as memory and time depend on it.

    `fingerprint` is a digest of parameter shapes and step settings; `image_size` is (height, width); `cards` share the
    job; `sample` names the shapes and dtypes of a batch of two, "" where a profile is older than that.
    """

    name: str
    model: str
    image_size: tuple[PositiveInt, PositiveInt] | None = None
    amp: Amp | None = None
    channels_last: bool = False
    cudnn_benchmark: bool = False
    optimizer: str = ""
    cards: PositiveInt = 1
    sample: str = ""
    fingerprint: str = ""


class Machine(Record):
    """Where a profile was made."""

    card: str | None = None
    driver: str | None = None
    driver_model: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    torch: str = ""
    python: str = ""
    platform: str = ""
    allocator_settings: str = ""


class Loading(Record):
    """How fast samples come: images a second of one worker, measured, and the workers that there can be."""

    worker_images_per_s: Annotated[float, Field(gt=0)]
    workers: PositiveInt

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented order
    @property
    def images_per_s(self) -> float:
        """Images a second of all workers."""
        return self.worker_images_per_s * self.workers


class Schedule(Record):
    """How long the run is: images an epoch and epochs; `loading` is None where it was not measured.

    `assumed` where nobody said how long: the guide's figures stand in, and tables leave out what follows from them.
    """

    images: PositiveInt = IMAGES
    epochs: PositiveInt = EPOCHS
    loading: Loading | None = None
    assumed: bool = False

    def epoch_time_s(self, images_per_s: float) -> float:
        """Seconds of an epoch at so many images a second of training steps: of steps and loading, the longer.

        A partial last batch counts as the share of a step that it is.
        """
        return self.images / (min(images_per_s, self.loading.images_per_s) if self.loading else images_per_s)

    def waits(self, images_per_s: float) -> bool:
        """Whether the card, at so many images a second, waits for data."""
        return self.loading is not None and self.loading.images_per_s < images_per_s


class OomEvent(Record):
    """One time the card ran out during training, and what was done."""

    epoch: int
    step: int
    phase: Phase
    micro_batch_before: PositiveInt
    micro_batch_after: PositiveInt
    message: str


class GrowBack(Record):
    """One time a run took larger micro-batches again after an OOM had made them smaller; `epoch` is their first."""

    epoch: int
    micro_batch_before: PositiveInt
    micro_batch_after: PositiveInt


class EpochRecord(Record):
    """One epoch as training saw it; VRAM figures are None without a GPU.

    `metrics` are the task's own figures by name, such as `mre_mm` or `top1`.
    """

    epoch: int
    loss: float
    learning_rate: float
    metrics: dict[str, float] = Field(default_factory=dict)
    micro_batch: PositiveInt
    images_per_s: float
    data_wait_share: float
    duration_s: float
    peak_allocated_bytes: Bytes | None = None
    peak_reserved_bytes: Bytes | None = None
    device_used_bytes: Bytes | None = None
    oom_events: tuple[OomEvent, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _read_earlier(cls, data: Any) -> Any:
        """Records of version 0.1.0 knew landmarks alone: `mre_mm`, and `sdr` by the limit."""
        if not isinstance(data, Mapping) or not {"mre_mm", "sdr"} & set(data):
            return data
        kept = {key: value for key, value in data.items() if key not in ("mre_mm", "sdr")}
        error = {} if data.get("mre_mm") is None else {"mre_mm": data["mre_mm"]}
        shares = {f"sdr_{limit}": share for limit, share in (data.get("sdr") or {}).items()}
        return {**kept, "metrics": {**error, **shares, **kept.get("metrics", {})}}


class Profile(Record):
    """A plan, the trials behind it and the machine they were made on."""

    schema_version: Literal[1] = 1
    vramfit_version: str
    created: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    source: Source
    job: JobKey
    machine: Machine
    budget: Budget
    schedule: Schedule = Schedule()
    plan: Plan
    trials: tuple[Trial, ...] = ()
    oom_events: tuple[OomEvent, ...] = ()
    grow_backs: tuple[GrowBack, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The profile as indented JSON, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str | Path = "profile") -> Self:
        """A profile from JSON text.

        Raises:
            ProfileError: not JSON, an unknown or missing key, or a value out of range; names the first.

        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"]) or "the document"
            raise ProfileError(
                f"{where}: '{key}' is not valid in a profile ({first['msg']}); make it anew with `probe --export`."
            ) from None

    def trial(self, micro_batch: int) -> Trial | None:
        """The trial of one micro-batch, or None if it was not tried."""
        return next((trial for trial in self.trials if trial.micro_batch == micro_batch), None)
