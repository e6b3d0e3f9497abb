"""`vramfit probe`: what fits, how fast it is, and which batch to train with."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vramfit.errors import CannotWrite, NothingFits, UsageError
from vramfit.units import format_size, parse_size

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
    amp: Literal["fp16", "bf16"] | None = "fp16"
    channels_last: bool = False
    epochs: int = 200
    images: int = 700

    @property
    def schedule(self) -> "Schedule":
        """The length of the run."""
        from vramfit.records import Schedule

        return Schedule(images=self.images, epochs=self.epochs)

    def job(self, case: Case) -> "Job":
        """The job, with the levers that are named."""
        from vramfit.jobs.registry import resolve_job
        from vramfit.plan.levers import in_order, parse_levers

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
        from vramfit.probe import fit

        frontier = self.frontier(case)
        if frontier is not None:
            return self.proven(case, on_trial, frontier)
        return fit(
            self.job(case),
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

    def proven(self, case: Case, on_trial: "Callable[[Trial], None]", frontier: "Frontier") -> "Profile":
        """The profile of a frontier's pick: its levers, and its batch tried by itself."""
        from vramfit.plan.levers import describe_levers

        choice = frontier.choice
        divided = self.batch_size if choice.accumulation_steps > 1 else None
        question = replace(
            self,
            levers=describe_levers(choice.levers),
            batch_size=choice.trial.micro_batch,
            effective_batch=self.effective_batch or divided,
        )
        profile = question.answer(case, on_trial)
        plan = profile.plan.model_copy(update={"reason": f"batch {profile.plan.micro_batch}: {choice.reason}."})
        return profile.model_copy(update={"plan": plan})


def probe(
    *,
    model: Annotated[
        str,
        typer.Option(
            help="hrnet, a timm HRNet's name, timm:NAME, or package.module:factory, which returns a Job.",
            metavar="NAME",
        ),
    ] = "hrnet",
    image_size: Annotated[Size, typer.Option(help="Height and width in pixels.", metavar="H W")] = (768, 768),
    image_sizes: Annotated[
        str | None, typer.Option(help="Several sizes, such as 256,512,768 or 512x640; one row each.", metavar="LIST")
    ] = None,
    vram: Annotated[
        str | None, typer.Option(help="What the job may use, such as 8GB (8 x 2^30 bytes).", metavar="SIZE")
    ] = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option(help="A card that need not be here, such as rtx3070ti: predicts. Repeatable.", metavar="CARD"),
    ] = None,
    reserve: Annotated[
        str | None, typer.Option(help="What the desktop takes of the card, such as 600MB.", metavar="SIZE")
    ] = None,
    batch_sizes: Annotated[
        str | None, typer.Option(help="Try these in this order and take the first that fits: 6,5,4.", metavar="LIST")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="The one micro-batch that is wanted; --levers auto makes it fit."),
    ] = None,
    levers: Annotated[
        str,
        typer.Option(
            help="Settings that trade time for memory: auto chooses and says why, none, or a list such as "
            "half_upsample,recompute=block.",
            metavar="LIST",
        ),
    ] = "none",
    mode: Annotated[Mode, typer.Option(help="auto measures where there is a GPU, else predicts.")] = "auto",
    objective: Annotated[
        Literal["fastest", "largest"],
        typer.Option(help="fastest: the smallest batch within 2 % of the best throughput; largest: the largest."),
    ] = "fastest",
    effective_batch: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Samples per optimizer step; split into micro-batches that fit."),
    ] = None,
    amp: Annotated[
        Literal["fp16", "bf16", "off"], typer.Option(help="Mixed precision of the step; off is float32.")
    ] = "fp16",
    channels_last: Annotated[bool, typer.Option("--channels-last", help="NHWC memory order.")] = False,
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Epochs of the run, for the column of totals.")] = 200,
    images: Annotated[
        int, typer.Option(min=1, metavar="N", help="Training images, for the column of epoch times.")
    ] = 700,
    export: Annotated[Path | None, typer.Option(help="Write the profile to this JSON file.", metavar="FILE")] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --export overwrite a file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False,
) -> None:
    """Find the batch that fits the card, and the time it will take.

    Measured on the GPU of this machine where there is one; with --gpu, or without a GPU, predicted.
    """
    cases = _cases(image_size, image_sizes, gpu or [])
    _check_export(export, len(cases), force)
    question = Question(
        model=model,
        vram=_checked(vram),
        reserve=_checked(reserve),
        mode=_mode(mode, gpu),
        batch_sizes=_numbers(batch_sizes) if batch_sizes is not None else None,
        batch_size=_one_size(batch_size, batch_sizes),
        levers=_levers(levers),
        objective=objective,
        effective_batch=effective_batch,
        amp=None if amp == "off" else amp,
        channels_last=channels_last,
        epochs=epochs,
        images=images,
    )
    if len(cases) == 1:
        _one(cases[0], question, export=export, as_json=as_json)
    else:
        _several(cases, question, label="card" if image_sizes is None else "image", as_json=as_json)


def _one(case: Case, question: Question, *, export: Path | None, as_json: bool) -> None:
    from vramfit.report.table import show, show_profile, trial_table

    trials: list[Trial] = []
    frontier = question.frontier(case)
    if frontier is not None and not as_json:
        _show_frontier(frontier, question.schedule)
    try:
        if frontier is None:
            profile = question.answer(case, _watch(trials))
        else:
            profile = question.proven(case, _watch(trials), frontier)
    except NothingFits:
        if trials and not as_json:
            show(trial_table(trials, None, question.schedule))
        raise
    if as_json:
        typer.echo(_one_document(profile, frontier), nl=False)
    else:
        show_profile(profile)
    if export is not None:
        _write(profile, export, quiet=as_json)


def _show_frontier(frontier: "Frontier", schedule: "Schedule") -> None:
    from vramfit.report.frontier import show_frontier

    show_frontier(frontier, schedule)


def _one_document(profile: "Profile", frontier: "Frontier | None") -> str:
    import json

    if frontier is None:
        return profile.to_json()
    both = {"frontier": frontier.model_dump(mode="json")["rows"], "profile": profile.model_dump(mode="json")}
    return json.dumps(both, indent=2) + "\n"


def _several(cases: list[Case], question: Question, *, label: str, as_json: bool) -> None:
    from vramfit.report.table import plan_table, remarks, show

    results: list[tuple[Case, Profile | None]] = []
    for case in cases:
        _progress(f"{label} {case.label}")
        results.append((case, _or_nothing(case, question)))
    if as_json:
        typer.echo(_document(label, results))
    else:
        show(plan_table(label, [(case.label, profile) for case, profile in results]))
    found = [profile for _, profile in results if profile is not None]
    if not found:
        raise NothingFits(f"no batch fits for any {label} asked; probe one alone to see by how much it fails.")
    if not as_json:
        print("", *dict.fromkeys(remark for profile in found for remark in remarks(profile)), sep="\n")


def _or_nothing(case: Case, question: Question) -> "Profile | None":
    try:
        return question.answer(case, _watch([]))
    except NothingFits as error:
        _progress(str(error))
        return None


def _document(label: str, results: "list[tuple[Case, Profile | None]]") -> str:
    import json

    cases = [
        {label: case.label, "profile": None if profile is None else profile.model_dump(mode="json")}
        for case, profile in results
    ]
    return json.dumps({"cases": cases}, indent=2)


def _watch(trials: "list[Trial]") -> "Callable[[Trial], None]":
    """Keeps every trial, and tells a person at a terminal of each."""

    def on_trial(trial: "Trial") -> None:
        trials.append(trial)
        verdict = trial.verdict.value.replace("_", " ")
        _progress(f"{trial.source} batch {trial.micro_batch}: {format_size(trial.device_used_bytes)}, {verdict}")

    return on_trial


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        typer.echo(line, err=True)


def _checked(size: str | None) -> str | None:
    if size is not None:
        parse_size(size)
    return size


def _levers(levers: str) -> str:
    from vramfit.plan.levers import parse_levers

    if levers != AUTO:
        parse_levers(levers)
    return levers


def _one_size(batch_size: int | None, batch_sizes: str | None) -> int | None:
    if batch_size is not None and batch_sizes is not None:
        raise UsageError("--batch-size names the one batch that is wanted; give it or --batch-sizes, not both.")
    return batch_size


def _mode(mode: Mode, gpu: list[str] | None) -> Mode:
    if gpu and mode == "measure":
        raise UsageError("--mode measure tries the card of this machine; leave out --gpu, which always predicts.")
    return mode


def _cases(image_size: Size, image_sizes: str | None, gpus: list[str]) -> list[Case]:
    if image_sizes is not None and len(gpus) > 1:
        raise UsageError("one table is over image sizes or over cards: give --image-sizes with at most one --gpu.")
    if image_sizes is not None:
        gpu = gpus[0] if gpus else None
        return [Case("x".join(map(str, size)), size, gpu) for size in map(_size, image_sizes.split(","))]
    _check_size(image_size, "{} {}".format(*image_size))
    return [Case(gpu, image_size, gpu) for gpu in gpus] or [Case("this machine", image_size, None)]


def _size(text: str) -> Size:
    parts = text.strip().lower().split("x")
    if not all(part.isdecimal() for part in parts) or len(parts) > 2:
        raise UsageError(f"'{text}' is not an image size; write 768, or HEIGHTxWIDTH such as 512x640.")
    return _check_size((int(parts[0]), int(parts[-1])), text)


def _check_size(size: Size, text: str) -> Size:
    if min(size) < 32:
        raise UsageError(f"image size '{text}' is too small for a network; give at least 32 pixels each way.")
    return size


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",") if part.strip().isdecimal()]
    if len(numbers) != len(text.split(",")) or min(numbers) < 1:
        raise UsageError(f"--batch-sizes '{text}' is not a list of whole numbers above 0; write them as 6,5,4.")
    return numbers


def _check_export(export: Path | None, cases: int, force: bool) -> None:
    if export is None:
        return
    if cases > 1:
        raise UsageError("--export writes one profile; give it with one image size and one card.")
    if export.exists() and not force:
        raise CannotWrite(f"{export} exists and was left as it is; give --force to overwrite it, or another name.")


def _write(profile: "Profile", export: Path, *, quiet: bool) -> None:
    from vramfit.files import write_atomically

    write_atomically(export, profile.to_json())
    typer.echo(f"Profile written to {export}", err=quiet)
