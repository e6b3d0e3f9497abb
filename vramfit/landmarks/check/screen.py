"""What training refuses of a film set: every error of a check that points and headers alone can tell.

What the pictures tell is refused by `pictures`, once they are decoded.
"""

from collections.abc import Iterator
from dataclasses import replace

from vramfit.errors import DataError
from vramfit.landmarks.check.coordinates import require_coordinates
from vramfit.landmarks.check.films import SeenFilm
from vramfit.landmarks.check.points import point_findings
from vramfit.landmarks.data.image import film_size
from vramfit.landmarks.data.issues import Finding
from vramfit.landmarks.data.marked import MarkedFilm, MarkedSet


def screened(marked: MarkedSet) -> MarkedSet:
    """The set with what is wrong with a film's points among the film's faults, which `of_split` refuses or skips.

    Raises:
        DataError: the points of the whole set are not pixels of its films.

    """
    symbols = [landmark.symbol for landmark in marked.landmarks]
    require_coordinates(marked.films, symbols, marked.root)
    faults = dict[int, list[Finding]]()
    owners = {place: number for number, film in enumerate(marked.films) for place in _places(film)}
    for found in point_findings([SeenFilm(film, _size(film)) for film in marked.films], symbols):
        if found.severity == "error" and found.place in owners:
            advised = found.model_copy(update={"message": f"{found.message.removesuffix('.')}; correct it."})
            faults.setdefault(owners[found.place], []).append(advised)
    films = (replace(film, faults=(*film.faults, *faults.get(place, ()))) for place, film in enumerate(marked.films))
    return replace(marked, films=tuple(films)) if faults else marked


def require_whole(marked: MarkedSet, *, skip_bad: bool) -> MarkedSet:
    """The set, if nothing is wrong with it beyond single films: splits, tables and entries that no film could be given.

    With `skip_bad` what is wrong is added to the notes. A split that is not there is left to `of_split` to refuse.

    Raises:
        DataError: names the first, and how many more there are.

    """
    wrong = [found for found in marked.findings if found.severity == "error" and found.kind != "missing_folder"]
    if not wrong:
        return marked
    said = f"{wrong[0].place}: {wrong[0].message.removesuffix('.')}"
    more = f" ({len(wrong) - 1} more like it: `vramfit data check` lists them)" if len(wrong) > 1 else ""
    if not skip_bad:
        raise DataError(f"{said}{more}; correct it or use --skip-bad.")
    return replace(marked, notes=(*marked.notes, f"Passed over: {said}{more}."))


def _places(film: MarkedFilm) -> Iterator[str]:
    yield str(film.path)
    yield from (annotation.place for annotation in film.annotations.values())


def _size(film: MarkedFilm) -> tuple[int, int] | None:
    try:
        return film_size(film.path)
    except DataError:
        return None  # `of_split` says so of a film that is wanted
