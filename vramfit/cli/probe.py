"""`vramfit probe`: what fits, how fast it is, and which batch to train with."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vramfit.choices import AUTO, BUCKETS, EPOCHS, IMAGES, Mode, Objective
from vramfit.cli.options import (
    BATCH,
    DEFAULT_MODEL,
    OUTPUT,
    TIMM,
    AsJson,
    CardMemory,
    ChannelsLast,
    ImageSize,
    Levers,
    LoadWeights,
    LoraSettings,
    Mig,
    MixedPrecision,
    ModelOrFactory,
    SequenceLength,
    is_factory,
    is_landmark,
    read_size,
    uses_free,
)
from vramfit.cli.probe_lengths import BATCH_AXIS, answer_axis
from vramfit.cli.probe_request import Case, cases_of, named_cards, named_levers, schedule_of, sizes_to_try
from vramfit.cli.progress import working
from vramfit.cli.results import next_step, require_free, tell, write_result
from vramfit.cli.which_card import answer_which_card, asks_which_card
from vramfit.errors import NothingFits, UsageError
from vramfit.jobs.hub.options import HubOptions
from vramfit.probe.request import MemoryLimits, ProbeRequest
from vramfit.units import format_size

if TYPE_CHECKING:
    from vramfit.prediction.frontier import Frontier
    from vramfit.records import Profile, Schedule, Trial


def probe(
    *,
    model: ModelOrFactory = DEFAULT_MODEL,
    image_size: ImageSize = None,
    seq_len: SequenceLength = None,
    lora: LoraSettings = None,
    load_in: LoadWeights = None,
    image_sizes: Annotated[
        str | None, typer.Option(help="Several sizes, such as 256,512,768 or 512x640; one row each.", metavar="LIST")
    ] = None,
    vram: Annotated[
        str | None, typer.Option(help="What the job may use, such as 8GB (8 x 2^30 bytes).", metavar="SIZE")
    ] = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option(
            help="A card that need not be here, such as rtx3070ti: predicts. Repeatable. all, '>=12GB' or a list with "
            "commas asks which card.",
            metavar="CARD",
        ),
    ] = None,
    mig: Mig = None,
    memory: CardMemory = None,
    price: Annotated[
        Path | None,
        typer.Option(
            help="Prices an hour, as CSV (card,price_per_hour) or JSON: which card is cheapest.", metavar="FILE"
        ),
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(min=0, metavar="X", help="The price an hour of the cards named: what a run costs."),
    ] = None,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Also print the #SBATCH line that asks a cluster for what the plan needs.")
    ] = False,
    cards: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="How many such cards share the job: predicts one. --levers fsdp shards the network.",
        ),
    ] = None,
    reserve: Annotated[
        str | None, typer.Option(help="What the desktop takes of the card, such as 600MB.", metavar="SIZE")
    ] = None,
    batch_sizes: Annotated[
        str | None, typer.Option(help="Try these in this order and take the first that fits: 6,5,4.", metavar="LIST")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            *BATCH, min=1, metavar="N", help="The one micro-batch that is wanted; --levers auto makes it fit."
        ),
    ] = None,
    axis: Annotated[
        str,
        typer.Option(
            help="What varies: batch, or tokens, points, frames or image-size, a keyword of the Job's batch.",
            metavar="NAME",
        ),
    ] = BATCH_AXIS,
    lengths: Annotated[
        str | None,
        typer.Option(
            help="With --axis, the lengths of the samples: a range such as 16:512, or a file of one a line.",
            metavar="RANGE|FILE",
        ),
    ] = None,
    buckets: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help=f"With --lengths, at how many lengths a batch is proven, at most; {BUCKETS} if not given.",
        ),
    ] = None,
    length_multiple: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="With --axis, what lengths are padded to a multiple of; images to 32."),
    ] = None,
    levers: Levers = None,
    mode: Annotated[Mode, typer.Option(help="auto measures where there is a GPU, else predicts.")] = ProbeRequest.mode,
    objective: Annotated[
        Objective,
        typer.Option(help="fastest: the smallest batch within 2 % of the best throughput; largest: the largest."),
    ] = ProbeRequest.objective,
    effective_batch: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Samples per optimizer step; split into micro-batches that fit."),
    ] = None,
    amp: MixedPrecision = None,
    channels_last: ChannelsLast = False,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help=f"Epochs of the run, for the column of totals; {EPOCHS} if not given."),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help=f"Training samples, beyond which no batch is tried, for the column of epoch times; {IMAGES} of the "
            "landmark job if not given.",
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export",
            *OUTPUT,
            help="Write the profile to this JSON file; of several, into this folder.",
            metavar="FILE",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Draw memory and time against the batch on this page.", metavar="FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --export and --html overwrite a file.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure anew, whatever an earlier probe on this card found.")
    ] = ProbeRequest.fresh,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Refuse to predict a step that reads values which only a card has; else they are assumed."
        ),
    ] = ProbeRequest.strict,
    real_values: Annotated[
        bool,
        typer.Option("--real-values", help="Compute such values on the CPU as the step is traced: for small models."),
    ] = ProbeRequest.real_values,
    as_json: AsJson = False,
) -> None:
    """Find the batch that fits the card, and the time it will take.

    Measured on the GPU of this machine where there is one; with --gpu, or without a GPU, predicted.
    """
    request = ProbeRequest(
        limits=MemoryLimits.parse(vram=vram, reserve=reserve),
        mode=mode,
        batch_sizes=sizes_to_try(batch_size, batch_sizes),
        objective=objective,
        effective_batch=effective_batch,
        schedule=schedule_of(images, epochs, is_known=is_landmark(model)),
        choose_levers=levers == AUTO,
        free_levers=uses_free(levers, own=is_factory(model) or axis != BATCH_AXIS),
        strict=strict,
        real_values=real_values,
        fresh=fresh,
    )
    case = Case(
        request=request,
        model=model,
        image_size=read_size(image_size),
        hub=HubOptions.parse(seq_len=seq_len, lora=lora, load_in=load_in),
        amp=amp,
        channels_last=channels_last,
        levers=named_levers(levers),
        cards=cards,
    )
    _check_lengths(axis, lengths, buckets, length_multiple)
    gpus = named_cards(gpu or [], mig=mig, memory=memory)
    if asks_which_card(gpus, price, price_per_hour):
        if image_sizes is not None or axis != BATCH_AXIS or export is not None:
            raise UsageError("which card is asked of one job: leave out --image-sizes, --axis and --export.")
        if cards is not None:
            raise UsageError("which card is asked of cards by themselves: leave out --cards, or name one --gpu.")
        answer_which_card(
            case, gpus, price=price, price_per_hour=price_per_hour, html=html, force=force, slurm=slurm, as_json=as_json
        )
        return
    cases = cases_of(case, image_sizes, gpus)
    _check_axis(axis, html, cases, slurm=slurm)
    if len(cases) == 1:
        require_free(export, html, force=force)
    if axis != BATCH_AXIS:
        answer_axis(
            cases[0],
            axis,
            lengths=lengths,
            buckets=buckets or BUCKETS,
            multiple=length_multiple,
            export=export,
            as_json=as_json,
        )
        return
    if len(cases) == 1:
        _one(cases[0], export=export, html=html, slurm=slurm, as_json=as_json)
        return
    files = {case.label: export / f"{case.label}.json" for case in cases} if export is not None else {}
    if export is not None and export.suffix == ".json":
        raise UsageError(f"--export {export} is one file, and there are {len(cases)} profiles; name a folder.")
    require_free(*files.values(), html, force=force)
    label = "card" if image_sizes is None else "image"
    _several(cases, label=label, files=files, html=html, slurm=slurm, as_json=as_json)


def _check_lengths(axis: str, lengths: str | None, buckets: int | None, multiple: int | None) -> None:
    if axis == BATCH_AXIS and lengths is not None:
        raise UsageError("--lengths says how long samples are along an axis; name it with --axis tokens or image-size.")
    if axis == BATCH_AXIS and multiple is not None:
        raise UsageError("--length-multiple rounds lengths along an axis; name it with --axis, or leave it out.")
    if lengths is None and buckets is not None:
        raise UsageError(
            "--buckets is at how many of the --lengths a batch is proven; give --lengths, or leave it out."
        )


def _check_axis(axis: str, html: Path | None, cases: list[Case], *, slurm: bool) -> None:
    if axis != BATCH_AXIS and (html is not None or len(cases) > 1):
        raise UsageError("--axis answers for one card and one job, without --html; ask for each by itself.")
    if axis != BATCH_AXIS and slurm:
        raise UsageError("--slurm is of one plan, and --axis has one for each length; leave one of them out.")


def _one(case: Case, *, export: Path | None, html: Path | None, slurm: bool, as_json: bool) -> None:
    trials: list[Trial] = []
    with working(f"probing {case.model}"):
        from vramfit.report.table import show_profile, trial_table
        from vramfit.report.terminal import show

        frontier = case.frontier()
    if frontier is not None and not as_json:
        _show_frontier(frontier, case.schedule())
    try:
        with working(f"probing {case.model}") as told:
            profile = case.answer(_watch(trials, told), frontier)
    except NothingFits:
        if trials and not as_json:
            show(trial_table(trials, None, case.request.schedule))
        raise
    written = [write_result(export, profile.to_json(), "Profile")] if export is not None else []
    written += [write_result(html, _page(profile, frontier), "Report")] if html is not None else []
    if as_json:
        typer.echo(_one_document(profile, frontier), nl=False)
    else:
        show_profile(profile)
    tell([*written, *(_slurm([(case, profile)]) if slurm else [])], as_json=as_json)
    next_step(_after(case, export), as_json=as_json)


def _slurm(results: "list[tuple[Case, Profile]]") -> list[str]:
    """What to ask a cluster for, of each plan."""
    from vramfit.cli.slurm import slurm_sentences

    planned = [
        (case.job(), profile.machine.card or "gpu", trial)
        for case, profile in results
        if (trial := profile.trial(profile.plan.micro_batch)) is not None
    ]
    return slurm_sentences(planned, results[0][1].schedule)


def _after(case: Case, export: Path | None) -> str:
    """The command that goes on from a plan."""
    if case.is_factory:
        return f"vramfit explain --model {case.model} shows where the memory goes"
    task = f"--task classify --model {case.model} " if case.model.startswith(TIMM) else ""
    train = f"vramfit train {task}--dataset-path FOLDER --profile {export or 'plan.json'}"
    return train if export else f"the same with -o plan.json keeps the plan, then {train}"


def _page(profile: "Profile", frontier: "Frontier | None") -> str:
    from vramfit.report.probe_page import probe_page

    return probe_page(profile, frontier)


def _show_frontier(frontier: "Frontier", schedule: "Schedule") -> None:
    from vramfit.report.frontier import show_frontier

    show_frontier(frontier, schedule)


def _one_document(profile: "Profile", frontier: "Frontier | None") -> str:
    import json

    if frontier is None:
        return profile.to_json()
    both = {"frontier": frontier.model_dump(mode="json")["rows"], "profile": profile.model_dump(mode="json")}
    return json.dumps(both, indent=2) + "\n"


def _several(
    cases: list[Case], *, label: str, files: Mapping[str, Path], html: Path | None, slurm: bool, as_json: bool
) -> None:
    with working(f"probing {label}") as told:
        from vramfit.report.plans import plan_sentences, shared_remarks
        from vramfit.report.table import plan_table
        from vramfit.report.terminal import say, show

        results = [(case, _or_nothing(case, told)) for case in cases]
    found = [(case.label, profile) for case, profile in results if profile is not None]
    written = [write_result(files[name], profile.to_json(), "Profile") for name, profile in found if files]
    if html is not None and found:
        written.append(write_result(html, _cases_page(label, results), "Report"))
    if not as_json:
        show(plan_table(label, [(case.label, profile) for case, profile in results]))
    if not found:
        raise NothingFits(f"no batch fits for any {label} asked; probe one alone to see by how much it fails.")
    if as_json:
        typer.echo(_document(label, results))
    else:
        say("", *plan_sentences(found), *shared_remarks(found))
    planned = [(case, profile) for case, profile in results if profile is not None]
    tell([*written, *(_slurm(planned) if slurm else [])], as_json=as_json)
    next_step(f"probe one {label} alone for every batch, and with -o plan.json to keep its plan", as_json=as_json)


def _cases_page(label: str, results: "list[tuple[Case, Profile | None]]") -> str:
    from vramfit.report.probe_page import cases_page

    return cases_page(label, [(case.label, profile) for case, profile in results])


def _or_nothing(case: Case, told: Callable[[str], None]) -> "Profile | None":
    told(case.label)
    try:
        return case.answer(_watch([], lambda word: told(f"{case.label}, {word}")))
    except NothingFits as error:
        if sys.stderr.isatty():
            typer.echo(f"{case.label}: {error}", err=True)
        return None


def _document(label: str, results: "list[tuple[Case, Profile | None]]") -> str:
    import json

    cases = [
        {label: case.label, "profile": None if profile is None else profile.model_dump(mode="json")}
        for case, profile in results
    ]
    return json.dumps({"cases": cases}, indent=2)


def _watch(trials: "list[Trial]", told: Callable[[str], None]) -> "Callable[[Trial], None]":
    """Keeps every trial, and tells of each."""

    def on_trial(trial: "Trial") -> None:
        trials.append(trial)
        verdict = trial.verdict.value.replace("_", " ")
        told(f"{trial.source} batch {trial.micro_batch}, {format_size(trial.device_used_bytes)}, {verdict}")

    return on_trial
