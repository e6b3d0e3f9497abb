"""Ways to spoil a copy of a film set in 'Aariz layout, one for each kind of fault that a check finds."""

import json
import re
import shutil

import cv2
import numpy as np

from vramfit.landmarks.data.formats.aariz import MACHINES_FILE
from vramfit.landmarks.data.image import read_film

RATERS = "Annotations/Cephalometric Landmarks"


class Damage:
    """A copy of a film set, and ways to spoil it."""

    def __init__(self, root):
        self.root = root

    def film(self, number, split="train"):
        return self.root / split / "Cephalograms" / f"{number:03d}.png"

    def mark(self, number, rater="Senior", split="train"):
        return self.root / split / RATERS / f"{rater} Orthodontists" / f"{number:03d}.json"

    def write(self, path, pixels):
        path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())

    def marks(self):
        """Number, rater and split of every annotation."""
        files = self.root.glob(f"*/{RATERS}/*/*.json")
        return [(int(file.stem), file.parent.name.split()[0], file.relative_to(self.root).parts[0]) for file in files]

    def edit(self, number, change, rater="Senior", split="train"):
        content = json.loads(self.mark(number, rater, split).read_text())
        places = {entry["symbol"]: entry["value"] for entry in content["landmarks"]}
        content = change(content, places) or content
        self.mark(number, rater, split).write_text(json.dumps(content))

    def table(self, pattern, replacement):
        path = self.root / MACHINES_FILE
        path.write_text(re.sub(pattern, replacement, path.read_text(), flags=re.MULTILINE))


def swap(content, places):
    first, second = dict(places["Go"]), dict(places["Me"])
    places["Go"].update(second)
    places["Me"].update(first)


def mirror(damage):
    width = read_film(damage.film(9)).shape[1]

    def turn(content, places):
        for value in places.values():
            value["x"] = width - 1 - value["x"]

    for rater in ("Junior", "Senior"):
        damage.edit(9, turn, rater)


def move(symbol, x, y):
    def change(content, places):
        places[symbol]["x"] += x
        places[symbol]["y"] += y

    return change


def forget(symbol):
    return lambda content, places: places[symbol].update(x=None)


def copy_film(damage, number, path):
    damage.write(path, read_film(damage.film(number)))


def new_film(damage, split, number):
    """A copy of film 4 under another id, marked like it and with a row of its own."""
    damage.write(damage.film(number, split).with_suffix(".jpg"), read_film(damage.film(4)))
    for rater in ("Junior", "Senior"):
        content = json.loads(damage.mark(4, rater).read_text())
        damage.mark(number, rater, split).write_text(json.dumps({**content, "ceph_id": f"{number:03d}"}))
    damage.table(r"\Z", f"{number:03d},M,1.0,jpg,{split}\n")


def every_point(damage, change):
    """Change the (x, y) of every point of every film by a function of it and the film's (width, height)."""
    for number, rater, split in damage.marks():
        size = read_film(damage.film(number, split)).shape[::-1]

        def move(content, places, size=size):
            for value in places.values():
                value["x"], value["y"] = change(value["x"], value["y"], *size)

        damage.edit(number, move, rater, split)


def turn_by_tag(damage, number, tag):
    """A film's file says that it is to be shown turned, as telephones do."""
    content = cv2.imencode(".jpg", read_film(damage.film(number)))[1].tobytes()
    block = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + bytes([0, tag]) + bytes(6)
    segment = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
    damage.film(number).unlink()
    damage.film(number).with_suffix(".jpg").write_bytes(content[:2] + segment + content[2:])


def put(symbol, place, share):
    """A landmark at one place on a share of the annotations, as programs write what cannot be seen."""

    def plant(damage):
        marks = sorted(damage.marks())
        for number, rater, split in marks[:: max(1, round(1 / share))]:
            damage.edit(number, lambda content, places: places[symbol].update(x=place[0], y=place[1]), rater, split)

    return plant


def change_film(damage, number, split, change):
    damage.write(damage.film(number, split), change(read_film(damage.film(number, split))))


def copy_changed(split, number, change):
    """A changed copy of film 4 under another id, marked like it."""

    def plant(damage):
        new_film(damage, split, number)
        path = damage.film(number, split).with_suffix(".jpg")
        damage.write(path, change(read_film(path)))

    return plant


def copy_points(damage, numbers, first=4):
    """Films of the training split with the points of one of them."""
    for number, rater, split in damage.marks():
        if split == "train" and (numbers is None or number in numbers):
            content = json.loads(damage.mark(first, rater).read_text())
            damage.mark(number, rater).write_text(json.dumps({**content, "ceph_id": f"{number:03d}"}))


def put_on(symbol, other):
    """A landmark at the place of another one on every film."""
    return lambda damage: [
        damage.edit(number, lambda content, places: places[symbol].update(places[other]), rater, split)
        for number, rater, split in damage.marks()
    ]


FAULTS = {
    "missing_folder": lambda d: shutil.rmtree(d.root / "test"),
    "unreadable_film": lambda d: d.film(2).write_bytes(d.film(2).read_bytes()[:3000]),
    "dark_film": lambda d: d.write(d.film(2), read_film(d.film(2)) // 8),
    "blank_film": lambda d: d.write(d.film(2), np.full_like(read_film(d.film(2)), 90)),
    "unknown_file": lambda d: (d.root / "train/Cephalograms/scan.gif").write_bytes(b"GIF89a"),
    "doubled_film": lambda d: copy_film(d, 3, d.film(3).with_suffix(".bmp")),
    "repeated_film": lambda d: new_film(d, "train", 977),
    "leaked_film": lambda d: new_film(d, "test", 978),
    "mirrored_film": mirror,
    "missing_annotation": lambda d: [d.mark(5, rater).unlink() for rater in ("Junior", "Senior")],
    "missing_rater": lambda d: d.mark(5, "Junior").unlink(),
    "orphan_annotation": lambda d: shutil.copy(d.mark(5), d.mark(999)),
    "unreadable_annotation": lambda d: d.mark(5).write_text("{"),
    "wrong_id": lambda d: d.edit(6, lambda content, places: {**content, "ceph_id": "007"}),
    "wrong_landmarks": lambda d: d.edit(6, lambda content, places: content["landmarks"][1].update(symbol="Nn")),
    "missing_point": lambda d: d.edit(6, lambda content, places: places["N"].update(x=None)),
    "unmarked_landmark": lambda d: [d.edit(n, forget("N"), rater, split) for n, rater, split in d.marks()],
    "point_outside": lambda d: d.edit(6, move("N", 1500, 0)),
    "turned_film": lambda d: turn_by_tag(d, 6, 6),
    "wrong_unit": lambda d: every_point(d, lambda x, y, width, height: (x / width, y / height)),
    "swapped_axes": lambda d: every_point(d, lambda x, y, width, height: (y, x)),
    "wrong_origin": lambda d: every_point(d, lambda x, y, width, height: (x, height - 1 - y)),
    "coincident_points": lambda d: d.edit(6, lambda content, places: places["N"].update(places["Ar"])),
    "coincident_landmarks": put_on("UIA", "UIT"),
    "repeated_points": lambda d: copy_points(d, {12}),
    "swapped_points": lambda d: d.edit(7, swap),
    "outlying_point": lambda d: d.edit(7, move("PNS", -22, 14)),
    "raters_apart": lambda d: d.edit(8, move("B", -9, -9), "Junior"),
    "missing_pixel_size": lambda d: d.table(r"^(011,[^,]*),[^,]*", r"\1,"),
    "odd_pixel_size": lambda d: d.table(r"^(011,[^,]*),[^,]*", r"\1,0.3"),
    "conflicting_rows": lambda d: d.table(r"\Z", "012,Another,0.5,png,train\n"),
    "wrong_mode": lambda d: d.table(r"^(013,.*),train", r"\1,test"),
    "orphan_row": lambda d: d.table(r"\Z", "500,Another,0.5,png,train\n"),
}

# Faults as people have them: the kind that each is found as.
MORE_FAULTS = {
    "per cent": ("wrong_unit", lambda d: every_point(d, lambda x, y, w, h: (100 * x / w, 100 * y / h))),
    "half resolution": ("wrong_unit", lambda d: every_point(d, lambda x, y, w, h: (x / 2, y / 2))),
    "quarter resolution": ("wrong_unit", lambda d: every_point(d, lambda x, y, w, h: (x / 4, y / 4))),
    "two thirds of the resolution": ("wrong_unit", lambda d: every_point(d, lambda x, y, w, h: (x / 1.5, y / 1.5))),
    "twice the resolution": ("wrong_unit", lambda d: every_point(d, lambda x, y, w, h: (2 * x, 2 * y))),
    "per mille of one side": ("wrong_unit", lambda d: every_point(d, lambda x, y, w, h: (x / 1000, y / 1000))),
    "origin at the right": ("wrong_origin", lambda d: every_point(d, lambda x, y, w, h: (w - 1 - x, y))),
    "origin at the bottom right": ("wrong_origin", lambda d: every_point(d, lambda x, y, w, h: (w - 1 - x, h - 1 - y))),
    "(-1, -1) on 5 %": ("missing_point", put("N", (-1, -1), 0.05)),
    "(0, 0) on 5 %": ("missing_point", put("N", (0, 0), 0.05)),
    "(-999, -999) on 5 %": ("missing_point", put("N", (-999, -999), 0.05)),
    "NaN as a word on 5 %": ("missing_point", put("N", ("NaN", "NaN"), 0.05)),
    "(-1, -1) on all": ("unmarked_landmark", put("N", (-1, -1), 1)),
    "(0, 0) on all": ("unmarked_landmark", put("N", (0, 0), 1)),
    "x alone is -5": ("point_outside", put("N", (-5, 90), 0.05)),
    "words for numbers": ("unreadable_annotation", put("N", ("left", "up"), 0.05)),
    "decimal commas in JSON": ("unreadable_annotation", put("N", ("93,5", "71,25"), 0.05)),
    **{
        f"EXIF orientation {tag}": ("turned_film", lambda d, tag=tag: turn_by_tag(d, 6, tag))
        for tag in (2, 3, 4, 5, 7, 8)
    },
    "half resolution on one film": (
        "odd_pixel_size",
        lambda d: [
            d.edit(9, lambda c, places: [v.update(x=v["x"] / 2, y=v["y"] / 2) for v in places.values()] and None, rater)
            for rater in ("Junior", "Senior")
        ],
    ),
    "a text file called PNG": ("unreadable_film", lambda d: d.film(2).write_text("not found")),
    "all landmarks of a film at one place": (
        "coincident_points",
        lambda d: d.edit(6, lambda c, places: [value.update(x=90, y=70) for value in places.values()] and None),
    ),
    "all landmarks of all films at one place": (
        "coincident_points",
        lambda d: every_point(d, lambda x, y, w, h: (w // 2, h // 2)),
    ),
    "a landmark at one place on all films": ("repeated_points", put("N", (90, 70), 1)),
    "the points of one film on all": ("repeated_points", lambda d: copy_points(d, None)),
    "a negative in another split": ("leaked_film", copy_changed("test", 978, lambda film: 255 - film)),
    "a smaller copy in the same split": ("repeated_film", copy_changed("train", 977, lambda film: film[::1] // 2 + 60)),
}
