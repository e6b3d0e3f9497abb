"""What `vramfit probe` is asked: the cases, the question put to each, and reading both from options."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from vramfit.errors import UsageError
from vramfit.units import parse_size

if TYPE_CHECKING:
    from vramfit.jobs.job import Job
    from vramfit.prediction.frontier import Frontier
    from vramfit.records import Profile, Schedule, Trial

Size = tuple[int, int]
Mode = Literal["auto", "measure", "predict"]
AUTO = "auto"


@dataclass(frozen=True)
class Case:
    """One job on one card; `label` is its name in a table over cases, `image_size` is (height, width)."""

    label: str
    image_size: Size
    gpu: str | None


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of every case."""

    model: str
    vram: str | None = None
    reserve: str | None = None
    mode: Mode = "auto"
    batch_sizes: list[int] | None = None
    batch_size: int | None = None
    levers: str = "none"
    objective: Literal["fastest", "largest"] = "fastest"
    effective_batch: int | None = None
    fresh: bool = False
    amp: Literal["fp16", "bf16"] | None = "fp16"
    channels_last: bool = False
    epochs: int = 200
    images: int = 700

    @property
    def schedule(self) -> "Schedule":
        """The length of the run."""
        from vramfit.records import Schedule

        return Schedule(images=self.images, epochs=self.epochs)

    def schedule_of(self, case: Case) -> "Schedule":
        """The length of the run, and how fast this machine would load its samples."""
        from vramfit.probe import with_loading

        return with_loading(self.schedule, self.job(case))

    def job(self, case: Case) -> "Job":
        """The job, with the levers that are named."""
        from vramfit.cli.models import resolve_job
        from vramfit.jobs.levers.text import in_order, parse_levers

        named = () if self.levers == AUTO else parse_levers(self.levers)
        job = resolve_job(self.model, image_size=case.image_size, amp=self.amp, channels_last=self.channels_last)
        return replace(job, levers=in_order((*job.levers, *named)))

    def frontier(self, case: Case) -> "Frontier | None":
        """What every choice of levers makes of the job, where the choice is left to us."""
        from vramfit.probe import levers_for

        if self.levers != AUTO:
            return None
        return levers_for(
            self.job(case),
            vram=self.vram,
            gpu=case.gpu,
            reserve=self.reserve,
            batch_size=self.batch_size,
            objective=self.objective,
            schedule=self.schedule,
        )

    def answer(self, case: Case, on_trial: "Callable[[Trial], None]") -> "Profile":
        """Probe one case; `on_trial` is told of every trial as it ends."""
        from vramfit.probe.recall import fit_or_recall

        frontier = self.frontier(case)
        if frontier is not None:
            return self.proven(case, on_trial, frontier)
        profile, _ = fit_or_recall(
            self.job(case),
            fresh=self.fresh,
            vram=self.vram,
            gpu=case.gpu,
            reserve=self.reserve,
            mode=self.mode,
            batch_sizes=self.batch_sizes or ([self.batch_size] if self.batch_size else None),
            objective=self.objective,
            effective_batch=self.effective_batch,
            schedule=self.schedule,
            on_trial=on_trial,
        )
        return profile

    def proven(self, case: Case, on_trial: "Callable[[Trial], None]", frontier: "Frontier") -> "Profile":
        """The profile of a frontier's pick: its levers, and its batch tried by itself."""
        from vramfit.probe import fit_choice

        choice = frontier.choice
        divided = self.batch_size if choice.accumulation_steps > 1 else None
        return fit_choice(
            self.job(case),
            choice,
            vram=self.vram,
            gpu=case.gpu,
            reserve=self.reserve,
            mode=self.mode,
            objective=self.objective,
            effective_batch=self.effective_batch or divided,
            schedule=self.schedule,
            on_trial=on_trial,
        )


def checked_memory(size: str | None) -> str | None:
    """The size as it is, once it is known to be one."""
    if size is not None:
        parse_size(size)
    return size


def checked_levers(levers: str) -> str:
    """The levers as they are, once they are known to be some."""
    from vramfit.jobs.levers.text import parse_levers

    if levers != AUTO:
        parse_levers(levers)
    return levers


def one_size(batch_size: int | None, batch_sizes: str | None, levers: str) -> int | None:
    """The one batch that is wanted, if it is all that is asked."""
    if levers == AUTO and batch_sizes is not None:
        raise UsageError("--levers auto makes one batch fit; name it with --batch-size in place of --batch-sizes.")
    if batch_size is not None and batch_sizes is not None:
        raise UsageError("--batch-size names the one batch that is wanted; give it or --batch-sizes, not both.")
    return batch_size


def mode_for(mode: Mode, gpu: list[str] | None) -> Mode:
    """The mode, once no card that is named contradicts it."""
    if gpu and mode == "measure":
        raise UsageError("--mode measure tries the card of this machine; leave out --gpu, which always predicts.")
    return mode


def cases_of(image_size: Size, image_sizes: str | None, gpus: list[str]) -> list[Case]:
    """One case for each image size, or for each card."""
    if image_sizes is not None and len(gpus) > 1:
        raise UsageError("one table is over image sizes or over cards: give --image-sizes with at most one --gpu.")
    if image_sizes is not None:
        gpu = gpus[0] if gpus else None
        sizes = dict.fromkeys(map(_size, image_sizes.split(",")))
        return [Case("x".join(map(str, size)), size, gpu) for size in sizes]
    _check_size(image_size, "{} {}".format(*image_size))
    return [Case(gpu, image_size, gpu) for gpu in dict.fromkeys(gpus)] or [Case("this machine", image_size, None)]


def _size(text: str) -> Size:
    parts = text.strip().lower().split("x")
    if not all(part.isdecimal() for part in parts) or len(parts) > 2:
        raise UsageError(f"'{text}' is not an image size; write 768, or HEIGHTxWIDTH such as 512x640.")
    return _check_size((int(parts[0]), int(parts[-1])), text)


def _check_size(size: Size, text: str) -> Size:
    if min(size) < 32:
        raise UsageError(f"image size '{text}' is too small for a network; give at least 32 pixels each way.")
    return size


def numbers(text: str) -> list[int]:
    """The whole numbers of a list such as 6,5,4."""
    found = [int(part) for part in text.split(",") if part.strip().isdecimal()]
    if len(found) != len(text.split(",")) or min(found) < 1:
        raise UsageError(f"--batch-sizes '{text}' is not a list of whole numbers above 0; write them as 6,5,4.")
    return found
