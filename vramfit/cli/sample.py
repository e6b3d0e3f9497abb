"""`vramfit sample`: make a small film set to try things on."""

from pathlib import Path
from typing import Annotated

import typer

from vramfit.cli.options import AsJson, OutputOption, one_path
from vramfit.cli.progress import working
from vramfit.cli.results import next_step, print_json


def sample(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Where to make the film set; must not exist yet, or be empty.", metavar="FOLDER"),
    ] = None,
    *,
    films: Annotated[int, typer.Option(help="How many films, split 70/15/15.", metavar="N")] = 40,
    height: Annotated[
        int, typer.Option(help="Pixels from top to bottom; machines differ by a fifth.", metavar="N")
    ] = 640,
    seed: Annotated[int, typer.Option(help="Another seed makes other skulls, films and raters.", metavar="N")] = 0,
    output: OutputOption = None,
    as_json: AsJson = False,
) -> None:
    """Make a small film set in 'Aariz layout: drawn lateral skulls, 29 landmarks, two raters, three machines."""
    from vramfit.landmarks.sample.make import make_sample

    with working("drawing films"):
        made = make_sample(one_path(folder, output, "--output"), films=films, height=height, seed=seed)
    if as_json:
        print_json({"folder": made, "films": films})
    else:
        typer.echo(f"Made {films} films of drawn skulls in {made}; they are for trying things, not for medicine.")
    next_step(f"vramfit data check {made}, then vramfit train --dataset-path {made} --auto-batch", as_json=as_json)
