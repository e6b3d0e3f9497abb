"""`vramfit explain`: where the memory of a job's peak goes, or why a recorded one ran out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vramfit.choices import AUTO
from vramfit.cli.misplaced import misplaced_command
from vramfit.cli.options import (
    BATCH,
    DEFAULT_MODEL,
    OUTPUT,
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
    read_size,
    uses_free,
)
from vramfit.cli.probe_request import named_levers
from vramfit.cli.progress import working
from vramfit.cli.results import next_step, require_free, tell, write_result
from vramfit.errors import UsageError
from vramfit.jobs.hub.options import HubOptions

if TYPE_CHECKING:
    from vramfit.cards import Card
    from vramfit.jobs.job import Job
    from vramfit.prediction.explain import Explanation
    from vramfit.prediction.predict import Predictor
    from vramfit.records import Trial


def explain(
    snapshot: Annotated[
        Path | None,
        typer.Argument(
            help="A memory snapshot that PyTorch or vramfit wrote, in place of a job.", metavar="[SNAPSHOT]"
        ),
    ] = None,
    *,
    model: ModelOrFactory = DEFAULT_MODEL,
    image_size: ImageSize = None,
    seq_len: SequenceLength = None,
    lora: LoraSettings = None,
    load_in: LoadWeights = None,
    batch_size: Annotated[
        int | None,
        typer.Option(*BATCH, min=1, metavar="N", help="The micro-batch; without it the largest predicted to fit."),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="A card that need not be here, such as rtx3070ti; without it the one here.", metavar="CARD"),
    ] = None,
    mig: Mig = None,
    memory: CardMemory = None,
    levers: Levers = None,
    amp: MixedPrecision = None,
    channels_last: ChannelsLast = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", *OUTPUT, help="Draw the step's memory from moment to moment on this page.", metavar="FILE"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --html overwrite a file.")] = False,
    no_names: Annotated[
        bool,
        typer.Option("--no-names", help="Number a snapshot's files, functions and processes in place of naming them."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say where the memory of the peak goes: by kind, by module, in hidden parts, in the allocator.

    Predicted, without a GPU; the parts sum to the peak to the byte. Of a SNAPSHOT it says why memory ran out.
    """
    require_free(html, force=force)
    from vramfit.cards import card_name, card_notes

    if snapshot is not None:
        if said := misplaced_command("explain", [str(snapshot)]):
            raise UsageError(said)
        _refuse_job_options(
            {
                "--model": model != DEFAULT_MODEL,
                "--image-size": image_size is not None,
                "--seq-len": seq_len is not None,
                "--lora": lora is not None,
                "--load-in": load_in is not None,
                "--batch-size": batch_size is not None,
                "--amp": amp is not None,
                "--channels-last": channels_last,
                "--levers": levers is not None,
            }
        )
        _explain_snapshot(snapshot, card_name(gpu, mig=mig, memory=memory), html, names=not no_names, as_json=as_json)
        return
    if no_names:
        raise UsageError("--no-names is of a snapshot; name its file.")
    with working(f"tracing {model}"):
        from vramfit.cli.models import named_job
        from vramfit.jobs.levers.apply import settled
        from vramfit.jobs.levers.text import levers_sentence
        from vramfit.prediction.explain import explain_trial
        from vramfit.prediction.predict import Predictor, card_budget

        hub = HubOptions.parse(seq_len=seq_len, lora=lora, load_in=load_in)
        job = named_job(model, image_size=read_size(image_size), amp=amp, channels_last=channels_last, hub=hub)
        card = card_for(name := card_name(gpu, mig=mig, memory=memory))
        job = _with_levers(job, levers, name, batch_size, own=is_factory(model))
        predictor = Predictor(job, card, card_budget(card))
        explanation = explain_trial(predictor, batch_size or _largest(predictor))
    title, trial = _title(job, card, explanation.micro_batch), predictor.trial(explanation.micro_batch)
    written = []
    if html is not None:
        from vramfit.report.timeline import timeline_page

        written.append(write_result(html, timeline_page(explanation, title, trial), "Timeline"))
    notes = [*card_notes(card, settled(job).amp), *([levers_sentence(job.levers)] if job.levers else [])]
    note = " ".join(notes) or None
    _report(explanation, trial, title=title, note=note, as_json=as_json)
    tell(written, as_json=as_json)
    drawn = "" if html else "--html step.html draws the step from moment to moment; "
    next_step(f"{drawn}--levers auto shows the same step with what makes it fit", as_json=as_json)


def _with_levers(job: "Job", levers: str | None, gpu: str | None, batch_size: int | None, *, own: bool) -> "Job":
    """The job with the levers that a probe of the same options would give it."""
    from vramfit.jobs.levers.text import with_levers
    from vramfit.probe.fit import levers_for, with_free_levers
    from vramfit.probe.request import ProbeRequest

    sizes = (batch_size,) if batch_size else None
    request = ProbeRequest(gpu=gpu, mode="predict", batch_sizes=sizes, free_levers=uses_free(levers, own=own))
    if levers == AUTO:
        return replace(job, levers=levers_for(job, request).choice.levers)
    named = named_levers(levers)
    return with_free_levers(replace(job, levers=with_levers(job.levers, named)) if named else job, request)


def _refuse_job_options(given: dict[str, bool]) -> None:
    wrong = next((name for name, is_given in given.items() if is_given), None)
    if wrong is not None:
        raise UsageError(f"{wrong} is of a job, and a snapshot is of one that ran; leave one of the two out.")


def _explain_snapshot(snapshot: Path, gpu: str | None, html: Path | None, *, names: bool, as_json: bool) -> None:
    from vramfit.cards import find_card
    from vramfit.postmortem.explain import explain_snapshot
    from vramfit.report.postmortem import documents, show_postmortem

    total_bytes = find_card(gpu).memory_bytes if gpu else None
    found = explain_snapshot(snapshot, total_bytes=total_bytes, names=names)
    written = []
    if html is not None:
        from vramfit.report.postmortem_page import postmortem_page

        written.append(write_result(html, postmortem_page(found), "Page"))
    if as_json:
        typer.echo(json.dumps(documents(found), indent=2))
    else:
        for one in found:
            show_postmortem(one)
    tell(written, as_json=as_json)


def _judged(trial: "Trial") -> dict[str, Any]:
    """What the probe says of the same batch, in its words."""
    named = ("verdict", "budget_bytes", "device_used_band_bytes", "headroom_bytes", "excess_bytes")
    return trial.model_dump(mode="json", include=set(named))


def card_for(gpu: str | None) -> "Card":
    """The card that is named, the one that is here, or the default one."""
    from vramfit.probe.backend import predicted_card
    from vramfit.probe.request import ProbeRequest

    return predicted_card(ProbeRequest(gpu=gpu))


def _largest(predictor: "Predictor") -> int:
    return predictor.largest_that_fits() or 1


def _title(job: "Job", card: "Card", micro_batch: int) -> str:
    """The job in the words of a probe's headline."""
    from vramfit.jobs.job import job_key

    size = "{}x{} ".format(*job.image_size) if job.image_size else ""
    return f"{job_key(job).model} {size}{job.amp or 'fp32'}, batch {micro_batch} on {card.name}"


def _report(explanation: "Explanation", trial: "Trial", *, title: str, note: str | None, as_json: bool) -> None:
    from vramfit.report.explain import modules_table, parts_table, shortage, words
    from vramfit.report.terminal import say, show

    if as_json:
        document = {
            "title": title,
            "note": note,
            **_judged(trial),
            **explanation.model_dump(mode="json", exclude={"timeline"}),
        }
        typer.echo(json.dumps(document, indent=2))
        return
    said = [words(explanation), shortage(trial), note]
    say(title, *filter(None, said), "")
    show(parts_table(explanation))
    say("")
    show(modules_table(explanation))
