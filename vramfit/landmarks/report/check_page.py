"""One self-contained page of a check: what was found, how often, what to do, and the worst films with their points.

K landmarks. A film is a JPEG within the page, its points are SVG: marked red where a finding names them.
"""

import re
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import DataError
from vramfit.landmarks.check.check import CheckReport
from vramfit.landmarks.data.image import read_film
from vramfit.landmarks.data.issues import KINDS, Finding
from vramfit.landmarks.data.marked import MarkedFilm, MarkedSet
from vramfit.landmarks.report import film_names
from vramfit.report.page import figure, page, paragraphs
from vramfit.report.page import table as drawn
from vramfit.report.terminal import make_table

_FILMS, _SAMPLES, _TOLD = 12, 4, 40
_SIDE, _QUALITY = 560, 80

# What to do about each kind, in a sentence.
ADVICE: dict[str, str] = {
    "missing_folder": "Add the folder, or train on the splits that are there with --folds.",
    "empty_split": "Put films into the split, or train with --folds, which deals films anew.",
    "unreadable_film": "Copy or export the film again, or train with --skip-bad.",
    "blank_film": "Replace the film, or take it out of the set.",
    "dark_film": "Look at it brightened; export it over the full range of grey if the marks are hard to place.",
    "huge_film": "Nothing, if time and memory allow; else save it smaller with its points.",
    "wrong_size": "Use the films that were marked, or mark these; or correct width and height in the set.",
    "turned_film": "Save the film the way it was marked, without the tag (exiftool -Orientation=1 -n).",
    "unknown_split": "Name one of train, valid and test for this film.",
    "unknown_file": "Convert the file to PNG if it is a film; else move it elsewhere.",
    "doubled_film": "Rename or remove one of the two files.",
    "repeated_film": "Remove one of the two; its points count twice in training.",
    "leaked_film": "Remove it from one of the splits: figures on films that were trained on say little.",
    "mirrored_film": "Mirror the film and its points, so that all face one way.",
    "missing_annotation": "Mark the film, remove it, or train with --skip-bad.",
    "missing_rater": "Nothing, if one rater is enough for this film.",
    "orphan_annotation": "Add the film, or remove the annotation.",
    "unreadable_annotation": "Export the annotation again, or correct the cell that is named.",
    "wrong_id": "Look whether the file is that of another film.",
    "wrong_landmarks": "List the same landmarks in every annotation; one that cannot be seen without a position.",
    "missing_point": "Nothing, if it cannot be seen; else mark it.",
    "unmarked_landmark": "Mark it on some films, or take it out of the lists.",
    "point_outside": "Correct the point, or look whether the film was cropped or resized since.",
    "wrong_unit": "Multiply x and y so that they are pixels of the film as it is on disk.",
    "swapped_axes": "Exchange x and y; many tables write row and column.",
    "wrong_origin": "Count from the top left corner: height - 1 - y, or width - 1 - x.",
    "coincident_points": "Mark the one of the two that is wrong; where it is all of them, read the points anew.",
    "coincident_landmarks": "Look whether a column was read twice; if they are one landmark, list it once.",
    "repeated_points": "Look whether the points of one film were written for others, as by a wrong join.",
    "swapped_points": "Exchange the two names.",
    "outlying_point": "Look at it; mark it again if it is wrong.",
    "raters_apart": "Look at it together; one of them may have slipped.",
    "missing_pixel_size": "Add it in mm, in a column pixel_size of the set's table or of films.csv beside it.",
    "odd_pixel_size": "Compare it with that of other films of the same scanner.",
    "conflicting_rows": "Remove the row that is wrong.",
    "wrong_mode": "Correct the split in the row, or move the film.",
    "orphan_row": "Remove the row, or add the film.",
}

_STYLE = """
.tiles{display:flex;flex-wrap:wrap;gap:.8rem 2.4rem;margin:1.2rem 0}.tiles div{min-width:5.5rem}
.tiles b{display:block;font-size:1.75rem;line-height:1.15;font-weight:600;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:.87rem}
.films{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,19rem),1fr));gap:1.4rem;align-items:start}
.films svg{background:#000}.films figcaption b{color:var(--ink)}
.point{fill:#56c8ff}.bad{fill:#ff4d4d;stroke:#fff}
i.point,i.bad{height:.7em;width:.7em;border-radius:50%;vertical-align:-.02em}i.point{background:#2a9fd6}i.bad{background:#ff4d4d}
details{margin:.4rem 0}summary{cursor:pointer}ul.told{margin:.3rem 0;padding-left:1.2rem;font-size:.87rem}
"""
_LEGEND = (("point", "a landmark"), ("bad", "one that a finding names"))


def check_page(report: CheckReport, marked: MarkedSet) -> str:
    """The page as HTML text; it loads nothing from elsewhere. The worst films are read anew for their pictures."""
    title = f"Check of {Path(report.root).name or report.root}"
    sections = chain(
        (f"<h1>{escape(title)}</h1>", _tiles(report), paragraphs([_verdict(report), *report.notes])),
        _counts(report),
        _pictures(report, marked),
        _all(report),
    )
    return page(title, sections, style=_STYLE + film_names.STYLE)


def _tiles(report: CheckReport) -> str:
    shown = [(str(films), f"films of '{split}'") for split, films in report.films.items()]
    shown += [(str(len(report.landmarks)), "landmarks"), (str(report.errors), "errors")]
    shown.append((str(len(report.findings) - report.errors), "warnings"))
    tiles = "".join(f"<div><b>{number}</b><span>{escape(what)}</span></div>" for number, what in shown)
    return f"<div class='tiles'>{tiles}</div>"


def _verdict(report: CheckReport) -> str:
    if not report.findings:
        return "Nothing is wrong."
    if report.errors:
        return "Errors stop training or spoil what it learns; warnings are for someone to look at."
    return "There are only warnings: training will run; look at them once."


def _counts(report: CheckReport) -> Iterator[str]:
    if not report.findings:
        return
    yield "<h2>What was found, and what to do</h2>"
    counts = Counter(found.kind for found in report.findings)
    table = make_table(("kind", "how bad", "count", "what it means", "what to do"))
    order = sorted(counts, key=lambda kind: (KINDS[kind][0] != "error", -counts[kind]))
    for kind in order:
        severity, meaning = KINDS[kind]
        style = "bold" if severity == "error" else None
        table.add_row(kind, severity, str(counts[kind]), meaning, ADVICE[kind], style=style)
    for column in (0, 1, 3, 4):
        table.columns[column].justify = "left"
    yield drawn(table)


def _pictures(report: CheckReport, marked: MarkedSet) -> Iterator[str]:
    """The films with most findings, or some of them where what is wrong is wrong with all."""
    folder = marked.root if marked.root.is_dir() else marked.root.parent
    by_film = _by_film(report.findings, marked.films, folder)
    worst = sorted(by_film, key=lambda number: -_weight(by_film[number]))[:_FILMS]
    of_all = [found for found in report.findings if found.place == "."]
    if not worst and of_all:
        seen = [number for number, film in enumerate(marked.films) if film.is_marked]
        worst = seen[:: max(1, len(seen) // _SAMPLES)][:_SAMPLES]
    figures = [_figure(marked.films[number], by_film.get(number, of_all)) for number in worst]
    if figures:
        yield f"<h2>{'Films of the set' if not by_film else 'Worst films'}</h2>"
        caption = "All raters' points; point at one to read its name."
        yield figure(f"<div class='films'>{''.join(figures)}</div>", caption, _LEGEND)


def _by_film(findings: Sequence[Finding], films: Sequence[MarkedFilm], folder: Path) -> Mapping[int, list[Finding]]:
    """The findings of each film, by its number: those at the film, or at one of its annotations."""
    owners: dict[str, int] = {}
    for number, film in enumerate(films):
        for place in (str(film.path), *(annotation.place for annotation in film.annotations.values())):
            path = Path(place)
            owners[(path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()] = number
    found: dict[int, list[Finding]] = defaultdict(list)
    for each in findings:
        if each.place in owners:
            found[owners[each.place]].append(each)
    return found


def _weight(findings: Sequence[Finding]) -> int:
    return sum(100 if found.severity == "error" else 1 for found in findings)


def _figure(film: MarkedFilm, findings: Sequence[Finding]) -> str:
    told = "; ".join(found.message.removesuffix(".") for found in findings[:3])
    more = f"; and {len(findings) - 3} more" if len(findings) > 3 else ""
    kinds = ", ".join(dict.fromkeys(found.kind for found in findings))
    caption = f"<b>{escape(film.id)}</b> ({escape(film.split or 'no split')}): {escape(kinds)}. {escape(told + more)}."
    return f"<figure>{_drawing(film, findings)}<figcaption>{caption}</figcaption></figure>"


def _drawing(film: MarkedFilm, findings: Sequence[Finding]) -> str:
    """The whole film and its points as SVG; nothing where it cannot be read."""
    try:
        pixels = read_film(film.path)
    except DataError:
        return ""
    jpeg, (width, height), scale = _picture(pixels)
    picture = f"<image href='data:image/jpeg;base64,{jpeg}' width='{width}' height='{height}'/>"
    marks = "".join(_marks(film, set(_named(findings)), scale, (width, height)))
    label = escape(f"Film {film.id} with its landmarks", quote=True)
    return f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='{label}'>{picture}{marks}</svg>"


def _picture(pixels: NDArray[np.uint8]) -> tuple[str, tuple[int, int], NDArray[np.float64]]:
    """The film as a JPEG in base64, its (width, height), and pixels of it to one of the film."""
    import cv2

    height, width = pixels.shape
    shrink = min(1.0, _SIDE / max(height, width))
    shown = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = cv2.resize(pixels, shown, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
    return b64encode(jpeg).decode(), shown, np.array(shown) / [width, height]


def _marks(film: MarkedFilm, named: set[str], scale: NDArray[np.float64], frame: tuple[int, int]) -> Iterator[str]:
    """What is drawn over a film; `frame` is (width, height) of the drawing."""
    size, wrong, points = frame[0] / film_names.SCREEN, [], []
    for rater, annotation in film.annotations.items():
        for symbol, place in annotation.positions.items():
            if not np.isfinite(place).all():
                continue
            x, y = (np.array(place) + 0.5) * scale
            kind, radius = ("bad", 4.0) if symbol in named else ("point", 2.4)
            title = escape(f"{symbol} ({rater}) at {place[0]:g}, {place[1]:g}")
            circle = f"<circle class='{kind}' cx='{x:.1f}' cy='{y:.1f}' r='{radius * size:.1f}'>"
            yield f"{circle}<title>{title}</title></circle>"
            points.append((x, y))
            wrong += [(symbol, len(points) - 1)] if symbol in named else []
    every = np.array(points, dtype=np.float64).reshape(-1, 2)
    yield from film_names.film_names(
        [symbol for symbol, _ in wrong], every[[at for _, at in wrong]], frame, size, every
    )


def _named(findings: Sequence[Finding]) -> Iterator[str]:
    """The landmarks that findings name, in single quotes."""
    for found in findings:
        yield from re.findall(r"'([^']+)'", found.message)


def _all(report: CheckReport) -> Iterator[str]:
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for found in report.findings:
        by_kind[found.kind].append(found)
    if by_kind:
        yield "<h2>All findings</h2>"
    for kind, findings in by_kind.items():
        items = "".join(f"<li>{escape(found.place)}: {escape(found.message)}</li>" for found in findings[:_TOLD])
        rest = f"<li>and {len(findings) - _TOLD} more; `data check --json` lists all.</li>" if findings[_TOLD:] else ""
        summary = f"<summary>{escape(kind)} ({len(findings)})</summary>"
        yield f"<details{' open' if len(findings) <= 5 else ''}>{summary}<ul class='told'>{items}{rest}</ul></details>"
