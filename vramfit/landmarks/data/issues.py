"""What a check of a film set can find, and how bad each is."""

from typing import Literal

from vramfit.records import Record

Severity = Literal["error", "warning"]

# An error stops training or spoils what it learns or reports; a warning is for someone to look at.
KINDS: dict[str, tuple[Severity, str]] = {
    "missing_folder": ("error", "a folder of the layout is not there, or empty"),
    "empty_split": ("error", "no film trains, or none validates: training needs both, or --folds"),
    "unreadable_film": ("error", "a film is damaged, cut short or no image"),
    "blank_film": ("error", "a film shows nothing"),
    "dark_film": ("warning", "a film of 8 bits shows all that it shows in the lowest quarter of grey"),
    "huge_film": ("warning", "a film has more than 100 million pixels"),
    "wrong_size": ("error", "a film has another size than its set says, as after resizing"),
    "turned_film": ("error", "a film's EXIF tag says that it is to be shown turned or mirrored"),
    "unknown_split": ("error", "a film's split is none of train, valid and test, or not named where others' are"),
    "unknown_file": ("warning", "a file among the films is of no known type"),
    "doubled_film": ("error", "two files of one split have the same id"),
    "repeated_film": ("error", "two films of one split show the same"),
    "leaked_film": ("error", "a film of one split shows the same as, or has the id of, a film of another"),
    "mirrored_film": ("error", "a film faces the other way than the rest"),
    "missing_annotation": ("error", "no rater has marked a film"),
    "missing_rater": ("warning", "one rater has not marked a film"),
    "orphan_annotation": ("warning", "an annotation has no film"),
    "unreadable_annotation": ("error", "an annotation is not JSON, or an entry lacks a name or position"),
    "wrong_id": ("warning", "the ceph_id inside an annotation is not its file's name"),
    "wrong_landmarks": ("error", "an annotation lists other landmarks than the rest"),
    "missing_point": ("warning", "landmarks are listed without a position"),
    "unmarked_landmark": ("warning", "no film has a position for a landmark"),
    "point_outside": ("error", "a landmark lies outside its film"),
    "wrong_unit": ("error", "the points of a set are in another unit than pixels of its films"),
    "swapped_axes": ("error", "the points of a set have x and y swapped"),
    "wrong_origin": ("error", "the points of a set are not counted from the top left corner"),
    "coincident_points": ("error", "two landmarks, or all, are at the same place"),
    "coincident_landmarks": ("warning", "landmarks are at the same place as each other on every film"),
    "repeated_points": ("warning", "films have the very same points, or a landmark is at one place on all of them"),
    "swapped_points": ("error", "two landmarks seem to have each other's place"),
    "outlying_point": ("warning", "a landmark is far from where the shape of the others puts it"),
    "raters_apart": ("warning", "the two raters are far apart on a landmark"),
    "missing_pixel_size": ("error", "a film has no usable pixel size"),
    "odd_pixel_size": ("warning", "a head is far larger or smaller than the rest: the pixel size may be wrong"),
    "conflicting_rows": ("error", "the table of machines says two things of a film"),
    "wrong_mode": ("warning", "the table of machines puts a film into another split"),
    "orphan_row": ("warning", "a row of the table of machines has no film"),
}


class Finding(Record):
    """One thing found: its kind (a key of KINDS), where, and a sentence."""

    kind: str
    severity: Severity
    place: str
    message: str


def finding(kind: str, place: object, message: str) -> Finding:
    """A finding with the severity of its kind."""
    return Finding(kind=kind, severity=KINDS[kind][0], place=str(place), message=message)
