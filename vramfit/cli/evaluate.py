"""`vramfit evaluate`: how far a checkpoint's points are from the truth."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, such as checkpoint_best.pth.", metavar="FILE")],
    *,
    dataset_path: Annotated[Path, typer.Option(help="A film set in 'Aariz layout.", metavar="FOLDER")],
    split: Annotated[Literal["train", "valid", "test"], typer.Option(help="Which of its films.")] = "test",
    annotator: Annotated[Literal["mean", "senior", "junior"], typer.Option(help="Whose points count.")] = "mean",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out films that cannot be used.")] = False,
    device: Annotated[
        Literal["auto", "cuda", "cpu"], typer.Option(help="auto takes the GPU where there is one.")
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Films at once; halved where too many.")] = 8,
    cache_dir: Annotated[Path | None, typer.Option(help="Where decoded films are kept.", metavar="FOLDER")] = None,
    json_file: Annotated[
        Path | None, typer.Option(help="Write every figure to this JSON file.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False,
) -> None:
    """Judge a checkpoint: MRE and SDR in millimetres, by landmark and by machine, beside the mean shape."""
    from vramfit.files import write_atomically
    from vramfit.report.evaluation import headline, landmark_table, machine_table, overall_table
    from vramfit.report.table import show
    from vramfit.training.evaluate import evaluate as judge

    report = judge(
        checkpoint,
        dataset_path,
        split=split,
        annotator=annotator,
        skip_bad=skip_bad,
        device=device,
        batch_size=batch_size,
        cache_dir=cache_dir,
    )
    document = report.model_dump_json(indent=2) + "\n"
    if json_file is not None:
        write_atomically(json_file, document)
    if as_json:
        typer.echo(document, nl=False)
        return
    typer.echo(headline(report))
    for table in (overall_table(report), landmark_table(report), machine_table(report)):
        typer.echo("")
        show(table)
    if json_file is not None:
        typer.echo(f"\nEvery figure is in {json_file}")
