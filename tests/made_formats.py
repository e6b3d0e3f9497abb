"""A film set in 'Aariz layout written anew in the other formats: the senior rater's points, films copied beside."""

import csv
import json
import shutil
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from vramfit.landmarks.data.formats import FilmSet, load_films

SPLITS = ("train", "valid", "test")


def splits_of(source: Path) -> dict[str, FilmSet]:
    """All films by split."""
    return {split: load_films(source, split, "senior") for split in SPLITS}


def write_coco(source: Path, folder: Path) -> Path:
    """COCO keypoints: annotations/{split}.json and images/{split}/; the pixel size in each image, [x, y]."""
    for split, films in splits_of(source).items():
        images, annotations = [], []
        for number, film in enumerate(films.films, 1):
            _copy(film.path, folder / "images" / split)
            width, height = film.size
            entry = {"id": number, "file_name": film.path.name, "width": width, "height": height}
            images.append({**entry, "pixel_size_mm": list(film.pixel_size_mm), "machine": film.machine})
            seen = np.isfinite(film.points).all(axis=1)
            rows = np.column_stack([np.nan_to_num(film.points), 2 * seen])
            annotations.append({"id": number, "image_id": number, "category_id": 7, "keypoints": rows.ravel().tolist()})
        categories = [{"id": 7, "name": "skull", "keypoints": list(films.symbols)}]
        content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        _write(folder / "annotations" / f"{split}.json", json.dumps(content))
    return folder


def write_csv(source: Path, folder: Path) -> Path:
    """One wide CSV with splits, machines and pixel sizes, and a folder of images."""
    rows = []
    for split, films in splits_of(source).items():
        for film in films.films:
            _copy(film.path, folder / "images")
            cells = {"film": film.path.name, "split": split, "machine": film.machine}
            cells |= dict(zip(("pixel_size_x", "pixel_size_y"), film.pixel_size_mm, strict=True))
            for symbol, (x, y) in zip(films.symbols, film.points.tolist(), strict=True):
                cells |= {f"{symbol}_x": _cell(x), f"{symbol}_y": _cell(y)}
            rows.append(cells)
    _write_rows(folder / "points.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
    return folder


def write_long_csv(source: Path, folder: Path) -> Path:
    """A line a landmark; splits, machines and pixel sizes in films.csv."""
    lines, films_rows = [["film", "symbol", "title", "x", "y"]], [["film", "machine", "pixel_size", "split"]]
    for split, films in splits_of(source).items():
        for film in films.films:
            _copy(film.path, folder)
            films_rows.append([film.id, film.machine, film.pixel_size_mm[0], split])
            for landmark, (x, y) in zip(films.landmarks, film.points.tolist(), strict=True):
                if np.isfinite(x):
                    lines.append([film.id, landmark.symbol, landmark.title, x, y])
    _write_rows(folder / "points.csv", lines)
    _write_rows(folder / "films.csv", films_rows)
    return folder


def write_deeplabcut(source: Path, folder: Path, *, path_columns: int = 3) -> Path:
    """A project with one video; splits, machines and pixel sizes in films.csv."""
    symbols = next(iter(splits_of(source).values())).symbols
    blank = [""] * (path_columns - 1)
    heads = [["scorer", *blank, *["Anna"] * 2 * len(symbols)]]
    heads.append(["bodyparts", *blank, *(symbol for symbol in symbols for _ in "xy")])
    heads.append(["coords", *blank, *["x", "y"] * len(symbols)])
    rows, films_rows = [], [["film", "machine", "pixel_size_x", "pixel_size_y", "split"]]
    for split, films in splits_of(source).items():
        for film in films.films:
            _copy(film.path, folder / "labeled-data" / "skull")
            image = ["labeled-data", "skull", film.path.name]
            place = image if path_columns == 3 else ["\\".join(image)]
            rows.append([*place, *(_cell(value) for value in film.points.ravel().tolist())])
            films_rows.append([f"skull/{film.id}", film.machine, *film.pixel_size_mm, split])
    _write_rows(folder / "labeled-data" / "skull" / "CollectedData_Anna.csv", [*heads, *rows])
    _write_rows(folder / "films.csv", films_rows)
    return folder


WRITERS = {"coco": write_coco, "csv": write_csv, "long csv": write_long_csv, "deeplabcut": write_deeplabcut}


def _copy(film: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(film, folder / film.name)


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:g}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_rows(path: Path, rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def write_isbi(source: Path, folder: Path) -> Path:
    """The ISBI 2015 layout: RawImage by split, a text file a film; its 19 landmarks in the challenge's order."""
    places = {"train": "TrainingData", "valid": "Test1Data", "test": "Test2Data"}
    for split, films in splits_of(source).items():
        for film in films.films:
            _copy(film.path, folder / "RawImage" / places[split])
            lines = [f"{x:g},{y:g}" for x, y in film.points[[films.symbols.index(symbol) for symbol in ISBI]].tolist()]
            _write(
                folder / "AnnotationsByMD" / "400_senior" / f"{film.id}.txt",
                "\r\n".join([*lines, *"12311113"]) + "\r\n",
            )
    _write_films_csv(source, folder)
    return folder


def write_cl_detection(source: Path, folder: Path) -> Path:
    """The CL-Detection JSON: one list of numbered points, the third number the image's."""
    points = []
    for films in splits_of(source).values():
        for film in films.films:
            _copy(film.path, folder / "images")
            rows = enumerate(film.points.tolist(), 1)
            points += [{"name": str(place), "point": [x, y, int(film.id)]} for place, (x, y) in rows]
    _write(folder / "gt.json", json.dumps({"name": "landmarks", "type": "Multiple points", "points": points}))
    _write_films_csv(source, folder, lambda film: str(int(film.id)))
    return folder


def write_cvat(source: Path, folder: Path) -> Path:
    """CVAT for images 1.1: a skeleton in each image."""
    images = []
    for split, films in splits_of(source).items():
        for film in films.films:
            _copy(film.path, folder / "images" / split)
            rows = zip(films.symbols, film.points.tolist(), strict=True)
            points = "".join(
                f'<points label="{escape(symbol)}" points="{x},{y}" outside="0"/>' for symbol, (x, y) in rows
            )
            width, height = film.size
            head = (
                f'<image id="{len(images)}" name="{film.path.name}" width="{width}" height="{height}" subset="{split}">'
            )
            images.append(f'{head}<skeleton label="skull">{points}</skeleton></image>')
    _write(folder / "annotations.xml", f"<annotations><version>1.1</version><meta/>{''.join(images)}</annotations>")
    _write_films_csv(source, folder)
    return folder


def write_label_studio(source: Path, folder: Path) -> Path:
    """Label Studio's export: points in per cent, images under the names of their upload."""
    tasks = []
    for films in splits_of(source).values():
        for film in films.films:
            _copy(film.path, folder / "images")
            (width, height), rows = film.size, zip(films.symbols, film.points.tolist(), strict=True)
            size = {"original_width": width, "original_height": height}
            values = [
                {"x": 100 * x / width, "y": 100 * y / height, "keypointlabels": [symbol]} for symbol, (x, y) in rows
            ]
            result = [{"type": "keypointlabels", **size, "value": value} for value in values]
            data = {"img": f"/data/upload/3/0a1b2c3d-{film.path.name}"}
            tasks.append({"id": len(tasks), "data": data, "annotations": [{"completed_by": 1, "result": result}]})
    _write(folder / "project-1.json", json.dumps(tasks))
    _write_films_csv(source, folder)
    return folder


def write_labelme(source: Path, folder: Path) -> Path:
    """labelme: a JSON beside each image, in folders of splits."""
    for split, films in splits_of(source).items():
        for film in films.films:
            _copy(film.path, folder / split)
            rows = zip(films.symbols, film.points.tolist(), strict=True)
            shapes = [{"label": symbol, "points": [[x, y]], "shape_type": "point"} for symbol, (x, y) in rows]
            content = {
                "version": "5.1.1",
                "flags": {},
                "shapes": shapes,
                "imagePath": film.path.name,
                "imageData": None,
            }
            content |= {"imageWidth": film.size[0], "imageHeight": film.size[1]}
            _write(folder / split / f"{film.id}.json", json.dumps(content))
    _write_films_csv(source, folder)
    return folder


ISBI = [
    "S",
    "N",
    "Or",
    "Po",
    "A",
    "B",
    "Pog",
    "Me",
    "Gn",
    "Go",
    "LIT",
    "UIT",
    "Ls",
    "Li",
    "Sn",
    "Pog`",
    "PNS",
    "ANS",
    "Ar",
]
# Those whose films may have other landmarks, names or order than the source's.
MORE_WRITERS = {
    "isbi": write_isbi,
    "cldetection": write_cl_detection,
    "cvat": write_cvat,
    "labelstudio": write_label_studio,
    "labelme": write_labelme,
}


def _write_films_csv(source: Path, folder: Path, name=lambda film: film.id) -> None:
    rows = [["film", "machine", "pixel_size_x", "pixel_size_y", "split"]]
    for split, films in splits_of(source).items():
        rows += [[name(film), film.machine, *film.pixel_size_mm, split] for film in films.films]
    _write_rows(folder / "films.csv", rows)
