"""`vramfit infer`: the landmarks of films that nobody has marked."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vramfit.errors import CannotWrite


def infer(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, such as checkpoint_best.pth.", metavar="FILE")],
    films: Annotated[list[Path], typer.Argument(help="Films, or folders of films.", metavar="FILM...")],
    *,
    output: Annotated[Path, typer.Option(help="Where points and pictures go.", metavar="FOLDER")] = Path("landmarks"),
    overlays: Annotated[
        bool, typer.Option("--overlays/--no-overlays", help="Draw the points on each film, as PNG.")
    ] = True,
    device: Annotated[
        Literal["auto", "cuda", "cpu"], typer.Option(help="auto takes the GPU where there is one.")
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Films at once; halved where too many.")] = 8,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the points as one JSON document, too.")] = False,
) -> None:
    """Find the landmarks of films: points.json, points.csv, and a picture of each film with its points."""
    from vramfit.files import write_atomically
    from vramfit.report.evaluation import points_csv, points_json
    from vramfit.report.overlay import overlay
    from vramfit.training.finder import Finder, usable_device
    from vramfit.training.infer import find_landmarks, list_films

    _refuse_used(output, force=force)
    paths = list_films(films)
    finder = Finder(checkpoint, usable_device(device), batch_size=batch_size)
    names = _picture_names(paths)
    found = []
    for one, film in find_landmarks(finder, paths):
        if overlays:
            picture = overlay(film, one.points, finder.symbols, one.confidence)
            write_atomically(output / names[one.path], picture)
        found.append(one)
    document = points_json(found, finder.symbols)
    write_atomically(output / "points.json", document)
    write_atomically(output / "points.csv", points_csv(found, finder.symbols))
    if as_json:
        typer.echo(document, nl=False)
    else:
        typer.echo(f"{len(found)} films with {len(finder.symbols)} landmarks each; points and pictures in {output}")


def _refuse_used(output: Path, *, force: bool) -> None:
    if (output / "points.json").exists() and not force:
        raise CannotWrite(f"{output} holds points already and was left as it is; give --force, or another --output.")


def _picture_names(paths: list[Path]) -> dict[Path, str]:
    """A picture's name for each film; films of one name in two folders get a number."""
    names: dict[Path, str] = {}
    for path in paths:
        tries = [f"{path.stem}.png", *(f"{path.stem}_{number}.png" for number in range(2, len(paths) + 1))]
        names[path] = next(name for name in tries if name not in names.values() or names.get(path) == name)
    return names
