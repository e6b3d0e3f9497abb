"""`vramfit infer`: landmarks on films that nobody has marked."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vramfit.cli.options import (
    OUTPUT,
    AsJson,
    CheckpointOption,
    Decode,
    DeviceToUse,
    Ensemble,
    FilmsAtOnce,
    SkipBad,
    Views,
    one_path,
)
from vramfit.cli.results import next_step, print_json
from vramfit.errors import CannotWrite, UsageError

if TYPE_CHECKING:
    from vramfit.landmarks.data.films import Film, FilmSet, Landmark
    from vramfit.landmarks.evaluation.inference import FoundLandmarks
    from vramfit.landmarks.model.decode import Method
    from vramfit.landmarks.model.trained_network import Trained

Format = Literal["json", "csv", "both"]
OVERLAYS = "overlays"
_CHECKPOINTS = (".pth", ".safetensors")


@dataclass(frozen=True)
class Outputs:
    """Where results go: points/NAME.json and overlays/NAME.png for each film, points.csv for all."""

    folder: Path
    json: bool
    csv: bool
    overlay: bool
    measured: bool = False

    @property
    def measures(self) -> Path:
        """The CSV of cephalometric measures of all films."""
        return self.folder / "measures.csv"

    @property
    def table(self) -> Path:
        """The CSV of all films."""
        return self.folder / "points.csv"

    def points(self, film: "Film") -> Path:
        """The JSON of one film."""
        return self.folder / "points" / f"{film.id}.json"

    def picture(self, film: "Film") -> Path:
        """The PNG of one film."""
        return self.folder / OVERLAYS / f"{film.id}.png"

    def of(self, films: "Iterable[Film]") -> Iterator[Path]:
        """Every file that will be written."""
        for film in films:
            if self.json:
                yield self.points(film)
            if self.overlay:
                yield self.picture(film)
        if self.csv:
            yield self.table
        if self.measured:
            yield self.measures


def infer(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="Films, and folders of films and folders; a checkpoint may stand before them.", metavar="INPUT..."
        ),
    ],
    *,
    checkpoint: CheckpointOption = None,
    output: Annotated[Path, typer.Option(*OUTPUT, help="The folder for the results.", metavar="FOLDER")],
    file_format: Annotated[
        Format, typer.Option("--format", help="json: a file a film, in 'Aariz layout; csv: one file for all.")
    ] = "json",
    overlay: Annotated[
        bool, typer.Option("--overlay/--no-overlay", help="Draw the points on each film, as PNG.")
    ] = True,
    measures: Annotated[
        bool, typer.Option("--measures", help="Write cephalometric measures, SNA and so on, to measures.csv.")
    ] = False,
    ensemble: Ensemble = None,
    decode: Decode = "dark",
    tta: Views = 1,
    device: DeviceToUse = "auto",
    batch_size: FilmsAtOnce = None,
    skip_bad: SkipBad = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite results that are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the landmarks on films: symbol, x, y in pixels of the film, and confidence.

    A folder's own folders are searched too, and the results lie in folders of the same names.
    Nothing that is there is overwritten unless --force is given; the films themselves never are.
    """
    from vramfit.cli.progress import film_progress, tell_oom
    from vramfit.landmarks.evaluation.ensemble import load_ensemble
    from vramfit.landmarks.evaluation.inference import find_landmarks, unmarked_films
    from vramfit.landmarks.model.trained_network import load_trained

    outputs = Outputs(output, file_format != "csv", file_format != "json", overlay, measures)
    if checkpoint is None and inputs[0].suffix.lower() in _CHECKPOINTS:
        checkpoint, *inputs = inputs
    trained = load_trained(one_path(None, checkpoint, "--checkpoint"), device)
    networks = load_ensemble(trained, ensemble or (), device)
    films = unmarked_films(inputs, trained.landmarks, skip_bad=skip_bad, besides=outputs.folder / OVERLAYS)
    _check(outputs, films, force)
    at_once = batch_size or min(_chosen(each, films, decode, as_json=as_json) for each in networks)
    done, skipped = [], list(films.skipped)
    with film_progress() as progress:
        for found in find_landmarks(
            trained,
            films,
            batch_size=at_once,
            others=networks[1:],
            method=decode,
            views=tta,
            skip_bad=skip_bad,
            on_skip=skipped.append,
            on_event=tell_oom,
            on_batch=lambda seen: progress("finding landmarks", seen, len(films)),
        ):
            _write(found, outputs, trained.landmarks)
            done.append(found)
    if outputs.csv:
        _write_table(done, outputs, trained.landmarks)
    if outputs.measured:
        _write_measures(done, outputs, trained.landmarks)
    if trained.calibration and (note := trained.calibration.misfit(decode, tta, len(networks))):
        typer.echo(note, err=True)
    for sentence in _doubts(done, trained.landmarks):
        typer.echo(sentence, err=True)
    for film in skipped:
        typer.echo(f"Skipped {film.id}: {film.reason}", err=True)
    if as_json:
        print_json(
            {
                "output": output,
                "films": [found.film.id for found in done],
                "skipped": [{"film": film.id, "reason": film.reason} for film in skipped],
                "landmarks": [landmark.symbol for landmark in trained.landmarks],
            }
        )
    else:
        typer.echo(f"Films: {len(done)}, {len(trained.landmarks)} landmarks on each; written to {output}")
    again = "" if measures else "; --measures adds SNA, SNB and the other angles"
    next_step(f"look at {outputs.folder / OVERLAYS if overlay else output}{again}", as_json=as_json)


def _chosen(trained: "Trained", films: "FilmSet", method: "Method", *, as_json: bool) -> int:
    from vramfit.landmarks.evaluation.films_at_once import films_at_once

    size, reason = films_at_once(trained, len(films), method)
    typer.echo(f"Films at once: {reason}", err=as_json)
    return size


def _check(outputs: Outputs, films: "FilmSet", force: bool) -> None:
    inputs = {film.path.resolve() for film in films.films}
    for target in outputs.of(films.films):
        if target.resolve() in inputs:
            raise UsageError(f"{target} is one of the films and would be overwritten; name another --output.")
        if target.exists() and not force:
            raise CannotWrite(f"{target} exists and was left as it is; give --force to overwrite it.")


def _doubts(done: "list[FoundLandmarks]", landmarks: "tuple[Landmark, ...]") -> Iterator[str]:
    """A sentence for each film that is unlike those calibrated on, and each with points without evidence."""
    for found in done:
        if found.certainty is None:
            continue
        lacking = [one.symbol for one, sound in zip(landmarks, found.certainty.evidence, strict=True) if not sound]
        if found.certainty.unlike:
            yield f"{found.film.id} is unlike the films calibrated on: {found.certainty.unlike}."
        if lacking:
            yield f"{found.film.id}: hardly any evidence for {', '.join(lacking)}."


def _write(found: "FoundLandmarks", outputs: Outputs, landmarks: "tuple[Landmark, ...]") -> None:
    from vramfit.files import write_atomically
    from vramfit.landmarks.data.image import read_film
    from vramfit.landmarks.report.overlay import overlay
    from vramfit.landmarks.report.points import film_json

    if outputs.json:
        write_atomically(outputs.points(found.film), film_json(found, landmarks))
    if outputs.overlay:
        symbols = [landmark.symbol for landmark in landmarks]
        picture = overlay(read_film(found.film.path), found.points, symbols, found.confidence, found.certainty)
        write_atomically(outputs.picture(found.film), picture)


def _write_measures(done: "list[FoundLandmarks]", outputs: Outputs, landmarks: "tuple[Landmark, ...]") -> None:
    from vramfit.files import write_atomically
    from vramfit.landmarks.report.points import measures_csv

    write_atomically(outputs.measures, measures_csv(done, landmarks))


def _write_table(done: "list[FoundLandmarks]", outputs: Outputs, landmarks: "tuple[Landmark, ...]") -> None:
    from vramfit.files import write_atomically
    from vramfit.landmarks.report.points import films_csv

    write_atomically(outputs.table, films_csv(done, landmarks))
