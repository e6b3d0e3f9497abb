"""`vramfit export`: a trained network as a file for other programs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vramfit.cli.options import OUTPUT, AsJson, Checkpoint, CheckpointOption, one_path
from vramfit.cli.progress import working
from vramfit.cli.results import next_step, print_json
from vramfit.errors import UsageError


def export(
    checkpoint_file: Checkpoint = None,
    *,
    checkpoint: CheckpointOption = None,
    to: Annotated[
        Literal["onnx", "pt2", "safetensors"] | None,
        typer.Option(help="The format; without it the suffix of --output tells."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(*OUTPUT, help="The file; without it, beside the checkpoint.", metavar="FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a trained network as ONNX, torch.export's pt2, or safetensors weights, checked against PyTorch.

    The file's metadata say how to feed it and how to read points from what comes out.
    """
    if to is None and output is None:
        raise UsageError("neither --to nor --output says which format; give --to onnx, pt2 or safetensors.")
    from vramfit.landmarks.export.export import export_network, format_of
    from vramfit.landmarks.model.trained_network import load_trained
    from vramfit.landmarks.report.export import export_document, export_lines
    from vramfit.report.terminal import say

    trained = one_path(checkpoint_file, checkpoint, "--checkpoint")
    path = output or trained.with_suffix(f".{to}")
    file_format = format_of(path, to)
    with working(f"writing {path.name}"):
        exported = export_network(load_trained(trained, "cpu"), path, file_format, force=force)
    if as_json:
        print_json(export_document(exported))
    else:
        say(*export_lines(exported))
    next_step("docs/export.md has the page of numpy that feeds the file and reads its points", as_json=as_json)
