"""`vramfit data`: look at a film set before training on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vramfit.cli.arguments import IMAGE_SIZE
from vramfit.cli.options import OUTPUT, AsJson, FilmFormat, OutputOption, SkipBad, one_path
from vramfit.cli.results import next_step, print_json, require_free, tell, write_result
from vramfit.landmarks.training.options import Augmentation, require_chance
from vramfit.units import parse_image_size

if TYPE_CHECKING:
    from vramfit.landmarks.check.check import CheckReport

app = typer.Typer(help="Look at a film set before training on it, or write it in another format.", no_args_is_help=True)

Root = Annotated[Path, typer.Argument(metavar="PATH", help="A film set: a folder or file; docs/formats.md.")]


@app.command()
def check(
    path: Root,
    *,
    film_format: FilmFormat = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", *OUTPUT, metavar="FILE", help="Write a page with counts, advice and the worst films."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --html overwrite a file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find what is wrong with a film set; nothing is changed. Exits with 7 if there are errors."""
    from functools import partial

    from vramfit.cli.progress import film_progress
    from vramfit.landmarks.check.check import check_films
    from vramfit.landmarks.data.formats import require_film_set

    require_film_set(path)
    require_free(html, force=force)
    with film_progress() as progress:
        report = check_films(path, film_format=film_format, progress=partial(progress, "looking at films"))
    written = [write_result(html, _page(report, path, film_format), "Report")] if html is not None else []
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        _tell(report)
    tell(written, as_json=as_json)
    todo = (
        "mend what is an error, then check again"
        if report.errors
        else f"vramfit train --dataset-path {path} --auto-batch"
    )
    next_step(todo if html or not report.findings else f"{todo}; --html check.html shows each film", as_json=as_json)
    if report.errors:
        raise typer.Exit(7)


@app.command()
def preview(
    path: Root,
    *,
    film_format: FilmFormat = None,
    output: Annotated[Path, typer.Option(*OUTPUT, help="The PNG to write.", metavar="FILE")] = Path("preview.png"),
    augmentation: Annotated[Augmentation, typer.Option(help="How far films are changed.")] = "standard",
    artefacts: Annotated[
        float, typer.Option(help="Chance of each artefact of archives on a film, as in training.", metavar="X")
    ] = 0.0,
    image_size: Annotated[
        str, typer.Option(*IMAGE_SIZE, help="Pixels, as in training: 384, or 512x640.", metavar="SIZE")
    ] = "384",
    films: Annotated[int, typer.Option(min=1, help="How many films, a row each.", metavar="N")] = 4,
    draws: Annotated[int, typer.Option(min=1, help="How many changes of each film.", metavar="N")] = 4,
    each: Annotated[
        bool, typer.Option("--each", help="Show each kind of change alone, at its strongest, in place of draws.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The seed of training.", metavar="N")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a picture of training films as the network sees them, with their points."""
    import cv2

    from vramfit.errors import CannotWrite
    from vramfit.files import write_atomically
    from vramfit.landmarks.data.cache import FilmCache
    from vramfit.landmarks.data.formats import load_films
    from vramfit.landmarks.loading.augment import preset
    from vramfit.landmarks.loading.preview import preview as draw
    from vramfit.landmarks.loading.preview import preview_effects

    require_chance(artefacts)
    if output.exists() and not force:
        raise CannotWrite(f"{output} is there already; use --force to replace it, or another --output.")
    how = preset(augmentation, artefacts)
    film_set = load_films(path, "train", film_format=film_format, skip_bad=True).first(films)
    cache = FilmCache.open(film_set, parse_image_size(image_size), skip_bad=True)
    if each:
        picture, changes = preview_effects(cache, how, films=films, seed=seed), "with each change alone"
    else:
        picture, changes = draw(cache, how, films=films, draws=draws, seed=seed), f"{draws} times changed"
    write_atomically(output, cv2.imencode(".png", picture)[1].tobytes())
    if as_json:
        print_json({"output": output, "films": len(cache), "augmentation": augmentation})
    else:
        typer.echo(f"Wrote {output}: {len(cache)} films, each as it is and {changes} ({augmentation}).")
    chosen = f"--augmentation {augmentation}{f' --artefacts {artefacts:g}' if artefacts else ''}"
    next_step(f"vramfit train --dataset-path {path} {chosen} --auto-batch", as_json=as_json)


@app.command()
def convert(
    path: Root,
    folder: Annotated[Path | None, typer.Argument(metavar="OUTPUT", help="A new or empty folder.")] = None,
    *,
    output: OutputOption = None,
    to: Annotated[Literal["aariz", "coco"], typer.Option(help="The format to write.")] = "aariz",
    film_format: FilmFormat = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Write a film set of any format into a new folder, in 'Aariz layout or as COCO keypoints."""
    from functools import partial

    from vramfit.cli.progress import film_progress
    from vramfit.landmarks.data.convert import convert as write
    from vramfit.landmarks.data.formats import read_films

    target = one_path(folder, output, "--output")
    marked = read_films(path, film_format)
    with film_progress() as progress:
        done = write(marked, target, to, skip_bad=skip_bad, progress=partial(progress, "writing films"))
    for film in done.skipped:
        typer.echo(f"Skipped {film.id}: {film.reason}", err=True)
    if as_json:
        skipped = [{"film": film.id, "reason": film.reason} for film in done.skipped]
        print_json({"output": target, "films": done.films, "format": to, "notes": done.notes, "skipped": skipped})
        return
    for note in done.notes:
        typer.echo(note)
    typer.echo(f"Wrote {target}: {_counted(done.films, 'film')}, {len(marked.landmarks)} landmarks, as {to}.")
    next_step(f"vramfit data check {target}", as_json=as_json)


def _page(report: "CheckReport", path: Path, film_format: str | None) -> str:
    from vramfit.landmarks.data.formats import read_films
    from vramfit.landmarks.report.check_page import check_page

    return check_page(report, read_films(path, film_format))


def _tell(report: "CheckReport") -> None:
    splits = ", ".join(f"{films} {split}" for split, films in report.films.items())
    typer.echo(f"{report.root}: {splits}; {len(report.landmarks)} landmarks.")
    for note in report.notes:
        typer.echo(note)
    for found in report.findings:
        typer.echo(f"{found.severity}: {found.kind}: {found.place}: {found.message}")
    warnings = len(report.findings) - report.errors
    counts = f"{_counted(report.errors, 'error')}, {_counted(warnings, 'warning')}."
    typer.echo(counts if report.findings else "Nothing is wrong.")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
