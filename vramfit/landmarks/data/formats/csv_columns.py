"""What the columns of a CSV of points stand for: the film, its landmarks and what else is known of it."""

import re
from collections.abc import Iterable, Sequence

# The film, the likeliest first; compared without capitals, spaces and underscores.
FILM = (
    *("film", "image", "file", "filename", "imagepath", "imagename", "imagefile", "imagefilename", "filepath", "path"),
    *("img", "imgpath", "imgname", "picture", "photo", "radiograph", "cephalogram", "frame", "id", "imageid", "imgid"),
    *("cephid", "cephalogramid", "filmid"),
)
SYMBOL = ("symbol", "landmark", "landmark_id", "landmark_name", "keypoint", "bodypart", "point", "label", "name")
# Other names for the columns of pixel sizes, all in mm.
_PIXEL_SIZES = {
    **dict.fromkeys(("pixelsize", "pixelsizemm", "pixelspacing", "pixelspacingmm", "mmperpixel"), "pixel_size"),
    **{f"{name}{axis}": f"pixel_size_{axis}" for name in ("pixelsize", "pixelspacing", "spacing") for axis in "xy"},
}
_NO_LANDMARKS = {"pixelsize", "pixelspacing", "spacing", "bbox", "box", "crop", "resolution"}

# How people write a landmark and its axis, the strictest first.
_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        r"(?P<name>.+)[_ .](?P<axis>[xy])",  # S_x
        r"(?P<axis>[xy])[_ .\-:](?P<name>.+)",  # x_S
        r"(?P<axis>[xy])(?P<name>\d+)",  # x1
        r"(?P<name>.*\d)(?P<axis>[xy])",  # p1x
        r"(?P<name>.+?)[ _]?[\-:/\[(](?P<axis>[xy])[\])]?",  # S-x, S (x)
    )
)
_UNIT = re.compile(r"[ _]*[\[(]?(?:px|pixels?)[\])]?$", re.IGNORECASE)


def plain(column: str) -> str:
    """A column's name without capitals and what stands between its words."""
    return re.sub(r"[^a-z0-9*]", "", column.lower())


def canonical(column: str) -> str:
    """The name that the reader knows a column by: that of a pixel size, or its own in small letters."""
    return _PIXEL_SIZES.get(plain(column), column.lower())


def film_column(columns: Sequence[str]) -> str:
    """The column that names the film, empty if none does."""
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(plain(column), column)
    return next((by_name[name] for name in FILM if name in by_name), "")


def symbol_column(columns: Sequence[str]) -> str:
    """The column that names the landmark of a line, empty if none does."""
    return next((name for name in SYMBOL if name in columns), "")


def landmark_columns(columns: Iterable[str]) -> dict[str, dict[str, str]]:
    """The columns of each landmark by axis, in the form that most of them are written in.

    In the strict form `S_x` a landmark may lack an axis, which is for the caller to say; in the others a column without
    its fellow is something else.
    """
    columns = list(columns)
    strict, *loose = (_in_form(form, columns) for form in _FORMS)
    others = [{name: axes for name, axes in found.items() if len(axes) == 2} for found in loose]
    return max((strict, *others), key=lambda found: sum(len(axes) == 2 for axes in found.values()))


def _in_form(form: re.Pattern[str], columns: Sequence[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for column in columns:
        match = form.fullmatch(_UNIT.sub("", column))
        if match and plain(match["name"]) not in _NO_LANDMARKS:
            found.setdefault(match["name"], {})[match["axis"].lower()] = column
    return found
