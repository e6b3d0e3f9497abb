"""`vramfit sample`: make a small film set to try things on."""

from pathlib import Path
from typing import Annotated

import typer


def sample(
    folder: Annotated[Path, typer.Argument(help="Where to make the film set; must not exist yet, or be empty.")],
    films: Annotated[int, typer.Option(help="How many films, split 70/15/15.")] = 40,
    height: Annotated[int, typer.Option(help="Pixels from top to bottom; machines differ by a fifth.")] = 640,
    seed: Annotated[int, typer.Option(help="Another seed makes other skulls, films and raters.")] = 0,
) -> None:
    """Make a small film set in 'Aariz layout: drawn lateral skulls, 29 landmarks, two raters, three machines."""
    from vramfit.landmarks.sample.make import make_sample

    made = make_sample(folder, films=films, height=height, seed=seed)
    typer.echo(f"Made {films} films of drawn skulls in {made}; they are for trying things, not for medicine.")
