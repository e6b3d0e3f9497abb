"""What `vramfit probe` is asked: a case for each row of its table, read from options."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from vramfit.choices import AUTO, EPOCHS, FREE, IMAGES, NONE
from vramfit.cli.options import is_factory
from vramfit.errors import UsageError
from vramfit.jobs.hub.options import HubOptions
from vramfit.probe.request import ProbeRequest
from vramfit.units import format_size, parse_image_size

if TYPE_CHECKING:
    from vramfit.jobs.job import Job
    from vramfit.prediction.frontier import Frontier
    from vramfit.probe.probe import OnTrial
    from vramfit.records import Lever, Profile, Schedule, Trial

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One job, as the command line names it, and what is asked about it."""

    label: str = "this machine"
    """What it is called in a table of several cases."""

    request: ProbeRequest
    """What is asked."""

    model: str
    """The job, as `resolve_job` takes it."""

    image_size: Size | None
    """(height, width) in pixels; None where nothing is said of it."""

    amp: Literal["fp16", "bf16", "off"] | None
    """Mixed precision of the step; None where nothing is said of it."""

    channels_last: bool
    """NHWC memory order."""

    hub: HubOptions = field(default_factory=HubOptions)
    """What is said of a Hugging Face model."""

    levers: "tuple[Lever, ...]" = ()
    """What is named of levers."""

    cards: int | None = None
    """How many cards share the job; None where nothing is said of it."""

    @property
    def is_factory(self) -> bool:
        """Whether the job is a function of one's own, which says itself how large its samples are."""
        return is_factory(self.model)

    def job(self) -> "Job":
        """The job, with the levers that are named."""
        from vramfit.cli.models import named_job
        from vramfit.jobs.levers.text import in_order

        job = named_job(
            self.model, image_size=self.image_size, amp=self.amp, channels_last=self.channels_last, hub=self.hub
        )
        return replace(job, levers=in_order((*job.levers, *self.levers)), cards=self.cards or job.cards)

    def schedule(self) -> "Schedule":
        """The length of the run, and how fast this machine would load its samples."""
        from vramfit.probe.fit import with_loading

        return with_loading(self.request, self.job()).schedule

    def frontier(self) -> "Frontier | None":
        """What every choice of levers makes of the job, where the choice is left to vramfit."""
        from vramfit.probe.fit import levers_for

        return levers_for(self.job(), self.request) if self.request.choose_levers else None

    def answer(self, on_trial: "OnTrial", frontier: "Frontier | None" = None) -> "Profile":
        """The profile: of a frontier's pick where it is known already; `on_trial` is called with each trial."""
        from vramfit.probe.fit import fit_choice
        from vramfit.probe.recall import fit_or_recall

        if frontier is not None:
            return fit_choice(self.job(), frontier.choice, self.request, on_trial)
        profile, _ = fit_or_recall(self.job(), self.request, on_trial)
        return profile


def cases_of(case: Case, image_sizes: str | None, gpus: list[str]) -> list[Case]:
    """The case for each of several image sizes, or for each card.

    Raises:
        UsageError: several sizes and several cards, no size, or a request that a card contradicts.

    """
    if image_sizes is not None and len(gpus) > 1:
        raise UsageError("one table is over image sizes or over cards: give --image-sizes with at most one --gpu.")
    if image_sizes is None and case.image_size is not None:
        _check_size(case.image_size, "{}x{}".format(*case.image_size))
    if image_sizes is None:
        return [_on_gpu(case, gpu) for gpu in dict.fromkeys(gpus)] or [case]
    case = _on_gpu(case, gpus[0]) if gpus else case
    sizes = dict.fromkeys(map(_size, image_sizes.split(",")))
    return [replace(case, label="x".join(map(str, size)), image_size=size) for size in sizes]


def named_cards(gpus: list[str], *, mig: str | None, memory: str | None) -> list[str]:
    """The cards of --gpu, each with --mig or --memory where one is given."""
    from vramfit.cards import card_name

    if not gpus:
        card_name(None, mig=mig, memory=memory)
    return [card_name(gpu, mig=mig, memory=memory) or gpu for gpu in gpus]


def sizes_to_try(batch_size: int | None, batch_sizes: str | None) -> tuple[int, ...] | None:
    """The micro-batches of --batch-size or --batch-sizes; None where neither is given."""
    if batch_size is not None and batch_sizes is not None:
        raise UsageError("--batch-size names the one batch that is wanted; give it or --batch-sizes, not both.")
    if batch_size is not None:
        return (batch_size,)
    return _numbers(batch_sizes) if batch_sizes is not None else None


def schedule_of(images: int | None, epochs: int | None, *, is_known: bool) -> "Schedule":
    """How long the run is; where nobody says so, that of the guide's job, which `is_known` says the job to be."""
    from vramfit.records import Schedule

    assumed = images is None and epochs is None and not is_known
    return Schedule(images=images or IMAGES, epochs=epochs or EPOCHS, assumed=assumed)


def named_levers(levers: str | None) -> "tuple[Lever, ...]":
    """The levers of --levers; none where the choice is left to vramfit."""
    from vramfit.jobs.levers.text import parse_levers

    return () if levers in (None, FREE, AUTO) else parse_levers(levers or NONE)


def keeping(trials: "list[Trial]", told: Callable[[str], None]) -> "OnTrial":
    """Keeps every trial, and tells of each."""

    def on_trial(trial: "Trial") -> None:
        trials.append(trial)
        verdict = trial.verdict.value.replace("_", " ")
        told(f"{trial.source} batch {trial.micro_batch}, {format_size(trial.device_used_bytes)}, {verdict}")

    return on_trial


def _on_gpu(case: Case, gpu: str) -> Case:
    return replace(case, label=gpu, request=replace(case.request, gpu=gpu))


def _size(text: str) -> Size:
    return _check_size(parse_image_size(text), text)


def _check_size(size: Size, text: str) -> Size:
    if min(size) < 32:
        raise UsageError(f"image size '{text}' is too small for a network; give at least 32 pixels each way.")
    return size


def _numbers(text: str) -> tuple[int, ...]:
    found = [int(part) for part in text.split(",") if part.strip().isdecimal()]
    if len(found) != len(text.split(",")) or min(found) < 1:
        raise UsageError(f"--batch-sizes '{text}' is not a list of whole numbers above 0; write them as 6,5,4.")
    return tuple(found)
