"""`vramfit replay`: a recorded snapshot through the allocator's rules, and through other settings."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vramfit.cli.options import AsJson
from vramfit.cli.progress import working
from vramfit.cli.results import next_step
from vramfit.units import parse_size


def replay(
    snapshot: Annotated[
        Path, typer.Argument(help="A file that torch.cuda.memory._dump_snapshot wrote.", metavar="SNAPSHOT")
    ],
    *,
    alloc_conf: Annotated[
        str | None,
        typer.Option(help="What PYTORCH_ALLOC_CONF might say instead: expandable_segments:True.", metavar="LIST"),
    ] = None,
    vram: Annotated[
        str | None,
        typer.Option(help="The most that may be reserved, such as 8GB; the CUDA context comes on top.", metavar="SIZE"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay a PyTorch memory snapshot: its peaks, and what another allocator setting or card would have done.

    Needs no GPU. The file is read as plain data; nothing in it is run.
    """
    limit_bytes = parse_size(vram) if vram else None
    with working(f"replaying {snapshot.name}"):
        from vramfit.prediction.snapshots.compare import compare
        from vramfit.prediction.snapshots.snapshot import load_snapshot
        from vramfit.report.replay import comparison_table, document, sentences
        from vramfit.report.terminal import say, show

        comparison = compare(load_snapshot(snapshot), alloc_conf, limit_bytes)
    if as_json:
        typer.echo(json.dumps(document(comparison), indent=2))
        return
    show(comparison_table(comparison))
    say(*sentences(comparison))
    if alloc_conf is None:
        again = f"vramfit replay {snapshot} --alloc-conf expandable_segments:True"
        next_step(f"{again} shows what other settings would have taken", as_json=as_json)
