"""`vramfit probe`: what fits, how fast it is, and which batch to train with."""

from pathlib import Path
from typing import Annotated

import typer

from vramfit.choices import AUTO, BUCKETS, EPOCHS, IMAGES, Mode, Objective
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
    is_landmark,
    read_size,
    uses_free,
)
from vramfit.cli.probe_compare import compare_cases
from vramfit.cli.probe_lengths import BATCH_AXIS, answer_axis, require_axis, require_one_case
from vramfit.cli.probe_one import answer_one
from vramfit.cli.probe_request import Case, cases_of, named_cards, named_levers, schedule_of, sizes_to_try
from vramfit.cli.results import require_free
from vramfit.cli.which_card import answer_which_card, asks_which_card
from vramfit.errors import UsageError
from vramfit.jobs.hub.options import HubOptions
from vramfit.probe.request import MemoryLimits, ProbeRequest


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
    require_axis(axis, lengths, buckets, length_multiple)
    gpus = named_cards(gpu or [], mig=mig, memory=memory)
    if asks_which_card(gpus, price, price_per_hour):
        if image_sizes is not None or axis != BATCH_AXIS or export is not None:
            raise UsageError("which card is asked of one job: leave out --image-sizes, --axis and --export.")
        if cards is not None:
            raise UsageError(
                "which card is asked of cards by themselves: leave out --cards, or name one --gpu, whose table is then "
                "that of several such cards."
            )
        answer_which_card(
            case, gpus, price=price, price_per_hour=price_per_hour, html=html, force=force, slurm=slurm, as_json=as_json
        )
        return
    cases = cases_of(case, image_sizes, gpus)
    require_one_case(axis, html, cases, slurm=slurm)
    if axis != BATCH_AXIS:
        require_free(export, force=force)
        answer_axis(
            cases[0],
            axis,
            lengths=lengths,
            buckets=buckets or BUCKETS,
            multiple=length_multiple,
            export=export,
            as_json=as_json,
        )
    elif len(cases) == 1:
        answer_one(cases[0], export=export, html=html, force=force, slurm=slurm, as_json=as_json)
    else:
        label = "card" if image_sizes is None else "image"
        compare_cases(cases, label=label, export=export, html=html, force=force, slurm=slurm, as_json=as_json)
