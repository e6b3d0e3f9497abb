"""`vramfit evaluate`: how good a trained network is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vramfit.cli.options import (
    OUTPUT,
    AsJson,
    Checkpoint,
    CheckpointOption,
    Decode,
    DeviceToUse,
    Ensemble,
    FilmFormat,
    FilmsAtOnce,
    SkipBad,
    Views,
    one_path,
)
from vramfit.cli.progress import film_progress, tell_oom
from vramfit.cli.results import next_step, require_free, tell, write_result
from vramfit.errors import UsageError

if TYPE_CHECKING:
    from vramfit.landmarks.evaluation.compare import Comparison
    from vramfit.landmarks.evaluation.evaluate import EvaluationOptions, Judged


def evaluate(
    checkpoint_file: Checkpoint = None,
    *,
    checkpoint: CheckpointOption = None,
    dataset_path: Annotated[Path, typer.Option(help="A film set: a folder or file; docs/formats.md.", metavar="PATH")],
    split: Annotated[
        Literal["train", "valid", "test"], typer.Option(help="Which films; training never sees test.")
    ] = "test",
    annotator: Annotated[
        Literal["mean", "senior", "junior"],
        typer.Option(help="Whose points to judge by; mean is the set's official policy."),
    ] = "mean",
    landmarks: Annotated[str | None, typer.Option(help="Judge by these alone, such as A,B,N.", metavar="LIST")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Another checkpoint, for a paired test on the same films.", metavar="FILE")
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Keep in the checkpoint what the errors on these films tell of others, such as valid; infer then says "
            "how sure each point is.",
        ),
    ] = False,
    ensemble: Ensemble = None,
    decode: Decode = "dark",
    tta: Views = 1,
    device: DeviceToUse = "auto",
    batch_size: FilmsAtOnce = None,
    skip_bad: SkipBad = False,
    film_format: FilmFormat = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Where decoded films are kept.", metavar="FOLDER")] = None,
    export: Annotated[
        Path | None, typer.Option("--export", *OUTPUT, help="Write the JSON document to this file.", metavar="FILE")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a report with plots and the worst films to this page.", metavar="FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --export and --html overwrite a file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Judge a checkpoint: MRE +- SD with its 95 % interval, and SDR, in all, by rater, landmark and machine.

    Beside them stand the mean-shape baseline and the error between both raters; with --compare, another checkpoint.
    """
    from vramfit.landmarks.data.formats import require_film_set
    from vramfit.landmarks.evaluation.evaluate import EvaluationOptions
    from vramfit.landmarks.model.trained_network import require_network_files

    if calibrate and split == "train":
        raise UsageError("--calibrate needs films that training did not learn from; use --split valid.")
    trained = one_path(checkpoint_file, checkpoint, "--checkpoint")
    require_network_files(trained, *([compare] if compare else []), *(ensemble or ()))
    require_film_set(dataset_path)
    require_free(export, html, force=force)
    options = EvaluationOptions(
        dataset_path=dataset_path,
        split=split,
        annotator=annotator,
        landmarks=_symbols(landmarks),
        method=decode,
        views=tta,
        device=device,
        batch_size=batch_size,
        skip_bad=skip_bad,
        film_format=film_format,
        cache_dir=cache_dir,
        calibrate=calibrate,
        ensemble=tuple(ensemble or ()),
    )
    judged, comparison = _judge(trained, compare, options)
    document = (comparison or judged.report).model_dump_json(indent=2) + "\n"
    written = [write_result(export, document, "Evaluation")] if export is not None else []
    written += [write_result(html, _page(judged, comparison), "Report")] if html is not None else []
    if as_json:
        typer.echo(document, nl=False)
    else:
        _show(judged, comparison)
    tell(written, as_json=as_json)
    others = "".join(f" --ensemble {other}" for other in options.ensemble)
    shown = f"vramfit infer {trained} FILMS{others} -o found marks films that nobody has marked"
    page = "" if html else "; --html report.html draws the worst films"
    next_step(f"{shown}{page}", as_json=as_json)


def _symbols(landmarks: str | None) -> tuple[str, ...] | None:
    if landmarks is None:
        return None
    symbols = tuple(symbol.strip() for symbol in landmarks.split(",") if symbol.strip())
    if not symbols:
        raise UsageError(f"--landmarks '{landmarks}' names none; write symbols such as A,B,N.")
    return symbols


def _judge(checkpoint: Path, compare: Path | None, options: "EvaluationOptions") -> "tuple[Judged, Comparison | None]":
    with film_progress() as progress:
        from vramfit.landmarks.evaluation.compare import compare_checkpoints
        from vramfit.landmarks.evaluation.evaluate import judge_checkpoint

        if compare is None:
            return judge_checkpoint(checkpoint, options, progress=progress, on_event=tell_oom), None
        return compare_checkpoints(checkpoint, compare, options, progress=progress, on_event=tell_oom)


def _show(judged: "Judged", comparison: "Comparison | None") -> None:
    from vramfit.landmarks.report.comparison import show_comparison
    from vramfit.landmarks.report.evaluation import show_evaluation

    if comparison is None:
        show_evaluation(judged.report)
    else:
        show_comparison(comparison)


def _page(judged: "Judged", comparison: "Comparison | None") -> str:
    from vramfit.landmarks.report.evaluation_page import evaluation_page

    return evaluation_page(judged, comparison)
