"""`vramfit evaluate`: how good a trained network is."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vramfit.cli.options import AsJson, Decode, DeviceToUse, FilmFormat, FilmsAtOnce, SkipBad
from vramfit.errors import CannotWrite


def evaluate(
    *,
    checkpoint: Annotated[Path, typer.Option(help="What `vramfit train` wrote: checkpoint_best.pth.", metavar="FILE")],
    dataset_path: Annotated[Path, typer.Option(help="A film set: a folder or file; docs/formats.md.", metavar="PATH")],
    split: Annotated[
        Literal["train", "valid", "test"], typer.Option(help="Which films; training never sees test.")
    ] = "test",
    annotator: Annotated[
        Literal["mean", "senior", "junior"],
        typer.Option(help="Whose points to judge by; mean is the set's official policy."),
    ] = "mean",
    decode: Decode = "dark",
    device: DeviceToUse = "auto",
    batch_size: FilmsAtOnce = 4,
    skip_bad: SkipBad = False,
    film_format: FilmFormat = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Where decoded films are kept.", metavar="DIR")] = None,
    export: Annotated[Path | None, typer.Option(help="Write the JSON document to this file.", metavar="FILE")] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --export overwrite a file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Judge a checkpoint: MRE +- SD with its 95 % interval, and SDR, in all, by landmark and by machine.

    Beside them stand the mean-shape baseline and the error between both raters.
    """
    from vramfit.cli.progress import film_progress, tell_oom
    from vramfit.report.evaluation import show_evaluation
    from vramfit.training.evaluation import EvaluationOptions, evaluate_checkpoint

    _check_export(export, force)
    options = EvaluationOptions(
        dataset_path=dataset_path,
        split=split,
        annotator=annotator,
        method=decode,
        device=device,
        batch_size=batch_size,
        skip_bad=skip_bad,
        film_format=film_format,
        cache_dir=cache_dir,
    )
    with film_progress() as progress:
        report = evaluate_checkpoint(checkpoint, options, progress=progress, on_event=tell_oom)
    document = report.model_dump_json(indent=2) + "\n"
    if as_json:
        typer.echo(document, nl=False)
    else:
        show_evaluation(report)
    if export is not None:
        _write(export, document, quiet=as_json)


def _check_export(export: Path | None, force: bool) -> None:
    if export is not None and export.exists() and not force:
        raise CannotWrite(f"{export} exists and was left as it is; give --force to overwrite it, or another name.")


def _write(export: Path, document: str, *, quiet: bool) -> None:
    from vramfit.files import write_atomically

    write_atomically(export, document)
    typer.echo(f"Evaluation written to {export}", err=quiet)
