"""Clips of video frames with DeepLabCut labels, drawn: a body that moves before a scene that stays.

Consecutive frames are alike by nature, bodies turn, bend and face both ways: none of that is a fault.
"""

import csv
from pathlib import Path

import cv2
import numpy as np

FRAMES, SIZE = 60, (640, 480)
PARTS = ("nose", "left ear", "right ear", "spine", "hip", "left paw", "right paw", "tail")
# Each part seen from above, its nose to the right; the pixels from the hip.
_BODY = np.array([(60, 0), (42, -14), (42, 14), (25, 0), (0, 0), (28, -22), (28, 22), (-45, 0)], dtype=np.float64)


def write_clip(folder: Path, seed: int, *, step=(4, 50), turn=12.0, bend=3.0, side=False) -> Path:
    """A project of one clip: `step` pixels and `turn` degrees a frame, parts bent by `bend` pixels.

    With `side` the body is seen from the side and walks to the left and to the right.
    """
    random = np.random.default_rng(seed)
    scene = _texture(random, SIZE[::-1], 2.5, 70, 170)
    coat = _texture(random, (160, 200), 3.0, 0, 255)
    images = folder / "labeled-data" / "clip"
    images.mkdir(parents=True)
    lines = [
        ["scorer", *["Anna"] * 16],
        ["bodyparts", *(part for part in PARTS for _ in "xy")],
        ["coords", *["x", "y"] * 8],
    ]
    place, angle, facing = np.array([320.0, 240.0]), 0.0, 1.0
    been: list[np.ndarray] = []
    for frame in range(FRAMES):
        place = _moved(random, place, step, been)
        angle = 0.15 * angle if side else angle + random.normal(0, turn)
        facing = (1.0 if np.sin(frame / 6) > 0 else -1.0) if side else 1.0
        parts = _BODY + random.normal(0, bend, _BODY.shape) + np.array([0, 6.0]) * side
        points = place + parts * [facing, 1] @ _turn(angle)
        picture = _drawn(scene, coat, points, place, angle, facing)
        noisy = np.clip(picture + random.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)
        name = f"img{frame:03d}.png"
        (images / name).write_bytes(cv2.imencode(".png", noisy)[1].tobytes())
        lines.append([f"labeled-data/clip/{name}", *(f"{value:.2f}" for value in points.ravel())])
    with (images / "CollectedData_Anna.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return folder


CLIPS = {
    "from above": {"seed": 0},
    "slow": {"seed": 1, "step": (4, 6), "turn": 3.0, "bend": 1.0},
    "from the side": {"seed": 2, "step": (6, 30), "side": True},
}


def _moved(random, place, step, been):
    while True:
        angle = random.uniform(0, 2 * np.pi)
        found = np.clip(place + random.uniform(*step) * np.array([np.cos(angle), np.sin(angle)]), 90, [550, 390])
        # Of a body that comes back to where it was, two frames are copies.
        if all(np.linalg.norm(found - other) >= step[0] for other in been):
            been.append(found)
            return found


def _texture(random, shape, blur, low, high):
    noise = cv2.GaussianBlur(random.random(shape), (0, 0), blur)
    return cv2.normalize(noise, None, low, high, cv2.NORM_MINMAX)


def _turn(angle):
    radians = np.deg2rad(angle)
    return np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])


def _drawn(scene, coat, points, place, angle, facing):
    """The body as thick limbs between its parts, its coat turning with it."""
    mask = np.zeros(SIZE[::-1], dtype=np.uint8)
    for first, second, width in ((0, 3, 22), (3, 4, 34), (4, 7, 8), (0, 1, 12), (0, 2, 12), (3, 5, 10), (3, 6, 10)):
        ends = [tuple(round(float(value)) for value in points[part]) for part in (first, second)]
        cv2.line(mask, *ends, 255, width, cv2.LINE_AA)
    to_frame = np.column_stack([_turn(angle).T * [facing, 1], place])
    to_frame[:, 2] -= to_frame[:, :2] @ [100, 80]
    worn = cv2.warpAffine(coat, to_frame, SIZE, borderMode=cv2.BORDER_REFLECT)
    share = mask[..., None][..., 0] / 255.0
    return scene * (1 - share) + worn * share
