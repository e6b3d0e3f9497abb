"""Drawing a made-up lateral skull film from its landmarks.

Everything is drawn where the landmarks say, in mm, and mapped to pixels by a 2x3 affine: a network that finds the
structures finds the landmarks.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vramfit.landmarks.sample.anatomy import Array, Random, Skull

# OpenCV takes whole numbers with this many bits behind the point.
_SHIFT = 5


class Canvas:
    """A film under exposure: float32 grey, brighter where more of the rays were held back."""

    def __init__(self, size: tuple[int, int], to_pixels: Array) -> None:
        self.grey = np.zeros((size[1], size[0]), dtype=np.float32)
        self.to_pixels = to_pixels
        self.pixels_per_mm = float(np.hypot(*to_pixels[:, 0]))

    def fill(self, outline: Array, level: float, *, blur_mm: float = 0.4) -> None:
        """Hold back a share of the rays inside a closed outline; a negative level lets them through."""
        self._expose(outline, level, blur_mm, width_mm=None)

    def line(self, path: Array, level: float, *, width_mm: float = 1.0, blur_mm: float = 0.3) -> None:
        """Hold back a share of the rays along a path."""
        self._expose(path, level, blur_mm, width_mm=width_mm)

    def _expose(self, path: Array, level: float, blur_mm: float, *, width_mm: float | None) -> None:
        import cv2

        pixels = path @ self.to_pixels[:, :2].T + self.to_pixels[:, 2]
        margin = 4 * (blur_mm + (width_mm or 0)) * self.pixels_per_mm + 2
        low = np.maximum(np.floor(pixels.min(axis=0) - margin), 0).astype(int)
        high = np.minimum(np.ceil(pixels.max(axis=0) + margin) + 1, self.grey.shape[::-1]).astype(int)
        if np.any(low >= high):
            return
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), dtype=np.uint8)
        fixed = np.round((pixels - low) * 2**_SHIFT).astype(np.int32)
        if width_mm is None:
            cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, _SHIFT)
        else:
            thickness = max(1, round(width_mm * self.pixels_per_mm))
            cv2.polylines(mask, [fixed], False, 255, thickness, cv2.LINE_AA, _SHIFT)
        soft = cv2.GaussianBlur(mask, (0, 0), max(0.3, blur_mm * self.pixels_per_mm)).astype(np.float32) / 255
        part = self.grey[low[1] : high[1], low[0] : high[0]]
        part += soft * level * ((1 - part) if level > 0 else part)


def draw_film(skull: Skull, size: tuple[int, int], to_pixels: Array, random: Random) -> NDArray[np.uint8]:
    """The film of a skull: uint8 of (width, height) pixels, with the exposure and grain of one shot."""
    canvas = Canvas(size, to_pixels)
    _soft_tissue(canvas, skull)
    _cranium(canvas, skull)
    _vertebrae(canvas, skull)
    _mandible(canvas, skull.points)
    _maxilla(canvas, skull.points)
    _teeth(canvas, skull.points)
    return _expose(canvas.grey, random)


def curve(points: Sequence[Sequence[float] | Array], *, closed: bool = False, steps: int = 12) -> Array:
    """A Catmull-Rom spline through points, as a path."""
    knots = np.asarray(points, dtype=np.float64)
    ends = (knots[-1:], knots[:2]) if closed else (2 * knots[:1] - knots[1:2], 2 * knots[-1:] - knots[-2:-1])
    padded = np.concatenate([ends[0], knots, ends[1]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    pieces = []
    for before, start, stop, after in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        bend = 2 * before - 5 * start + 4 * stop - after
        twist = 3 * (start - stop) + after - before
        pieces.append(0.5 * (2 * start + (stop - before) * t + bend * t**2 + twist * t**3))
    return np.concatenate(pieces if closed else [*pieces, knots[-1:]])


def arc(centre: Array, radii: tuple[float, float], degrees: tuple[float, float]) -> Array:
    """Part of an ellipse, from one angle to another, clockwise on the film."""
    angles = np.deg2rad(np.linspace(*degrees, 48))
    return centre + np.column_stack([np.cos(angles), np.sin(angles)]) * radii


def _soft_tissue(canvas: Canvas, skull: Skull) -> None:
    p = skull.points
    crown = arc(*_braincase(skull, 7), (185, 340))[::6]
    nose = [p["N`"], (p["N`"] + p["Pn"]) / 2 + [-1.5, 0], p["Pn"], p["Sn"] + [5, -3], p["Sn"]]
    mouth = (p["Ls"] + p["Li"]) / 2 + [-6, 0]
    lips = [p["Ls"] + [-3, -6], p["Ls"], mouth, p["Li"], (p["Li"] + p["Pog`"]) / 2 + [-6, -1]]
    chin = [p["Pog`"], p["Gn"] + [9, 9], p["Me"] + [-6, 11]]
    neck = [p["Me"] + [-38, 16], p["Me"] + [-48, 60], p["Go"] + [-70, 90], p["Po"] + [-66, 30]]
    canvas.fill(curve([*crown, *nose, *lips, *chin, *neck], closed=True), 0.3, blur_mm=0.5)


def _cranium(canvas: Canvas, skull: Skull) -> None:
    p = skull.points
    vault = arc(*_braincase(skull, 0), (150, 385))
    canvas.fill(np.concatenate([vault, [p["N"], p["S"], p["Ar"] + [-14, 6]]]), 0.17, blur_mm=1)
    canvas.line(vault, 0.5, width_mm=3)
    canvas.line(arc(*_braincase(skull, -5), (150, 375)), 0.35, width_mm=1.5)
    frontal = curve([vault[-1], p["N"] + [2, -12], p["N"]])
    nasal_bone = np.array([p["N"], p["N"] + [6, 11], p["N"] + [11, 24], p["N"] + [4, 12]])
    canvas.line(frontal, 0.5, width_mm=2.5)
    canvas.fill(nasal_bone, 0.5, blur_mm=0.3)
    base = curve([p["N"] + [-3, 2], p["S"] + [30, -6], p["S"] + [8, -7]])
    canvas.line(base, 0.4, width_mm=1.5)
    canvas.line(arc(p["S"], (6, 6.5), (-35, 215)), 0.6, width_mm=1.5)
    canvas.fill(arc(p["S"], (4.5, 5), (0, 360)), -0.3, blur_mm=0.5)
    canvas.line(curve([p["S"] + [-7, -3], p["S"] + [-12, 14], p["Ar"], p["Ar"] + [-9, 15]]), 0.5, width_mm=2.2)
    canvas.line(arc(p["Or"] + np.array([2.0, -18.0]), (17, 18), (20, 200)), 0.5, width_mm=1.6)
    canvas.fill(arc(p["Po"] + np.array([0.0, 4.5]), (4, 4.5), (0, 360)), -0.55, blur_mm=0.3)
    canvas.line(arc(p["Po"] + np.array([0.0, 4.5]), (4.3, 4.8), (0, 360)), 0.5, width_mm=0.8)


def _braincase(skull: Skull, beyond_mm: float) -> tuple[Array, tuple[float, float]]:
    """Centre and radii of the vault, from its outer edge on."""
    centre = (skull.points["S"] + skull.points["N"]) / 2 + [-42.0, -28.0]
    reach = float(skull.points["N"][0] - centre[0]) * skull.cranium
    return centre, (reach * 1.06 + beyond_mm, reach * 0.9 + beyond_mm)


def _vertebrae(canvas: Canvas, skull: Skull) -> None:
    lean = np.deg2rad(skull.neck_tilt)
    along = np.array([-np.sin(lean) - 0.12, 1.0])
    for number in range(4):
        middle = skull.points["Ar"] + [-22, 30] + along * 19 * number
        corners = middle + np.array([[-8, -7], [8, -6], [9, 7], [-8, 7]])
        canvas.fill(curve(corners, closed=True), 0.32, blur_mm=0.6)
        canvas.line(curve([*corners, corners[0]]), 0.3, width_mm=1)


def _mandible(canvas: Canvas, p: dict[str, Array]) -> None:
    behind = [p["Co"], p["Co"] + [-5, 4], p["Ar"], (p["Ar"] + p["Go"]) / 2 + [1, 0], p["Go"]]
    below = [p["Go"] * 0.55 + p["Me"] * 0.45 + [0, 2], p["Me"], p["Gn"], p["Pog"]]
    front = [p["B"], p["LIT"] * 0.45 + p["LIA"] * 0.55 + [4, 0]]
    ridge = [p["LIT"] * 0.4 + p["LIA"] * 0.6 + [-5, 0], p["LPM"] + [0, 9], p["LMT"] + [-6, 8]]
    ramus = [p["R"], p["R"] + [1, -22], p["R"] + [-8, -24], p["Co"] + [5, 3]]
    outline = curve([*behind, *below, *front, *ridge, *ramus], closed=True)
    canvas.fill(outline, 0.28, blur_mm=0.5)
    canvas.line(np.concatenate([outline, outline[:1]]), 0.42, width_mm=1.5)
    canvas.line(curve([p["Me"] + [-2, -3], p["Pog"] + [-4, 0], p["B"] + [-4, 2]]), 0.3, width_mm=1.5)


def _maxilla(canvas: Canvas, p: dict[str, Array]) -> None:
    cavity = curve([p["PNS"] + [6, -5], p["Or"] + [-12, 4], p["N"] + [2, 24], p["ANS"] + [-4, -5]], closed=True)
    canvas.fill(cavity, -0.3, blur_mm=1.5)
    ridge = [p["UIA"] * 0.35 + p["UIT"] * 0.65 + [3, -2], p["UPM"] + [0, -10], p["UMT"] + [-6, -10]]
    roof = [p["PNS"], p["PNS"] * 0.5 + p["ANS"] * 0.5 + [0, -1], p["ANS"]]
    outline = np.concatenate([curve(roof), curve([p["ANS"], p["A"], *ridge, p["PNS"]])])
    canvas.fill(outline, 0.26, blur_mm=0.5)
    canvas.line(curve(roof), 0.55, width_mm=1.6)
    canvas.line(curve([p["ANS"], p["A"], ridge[0]]), 0.5, width_mm=1.2)
    canvas.fill(np.array([p["PNS"], p["PNS"] + [5, -1.5], p["PNS"] + [5, 2]]), 0.5, blur_mm=0.3)


def _teeth(canvas: Canvas, p: dict[str, Array]) -> None:
    for apex, tip in (("UIA", "UIT"), ("LIA", "LIT")):
        axis = p[tip] - p[apex]
        side = np.array([-axis[1], axis[0]]) / np.linalg.norm(axis)
        shape = [(0, 0.6), (0.45, 2.3), (0.72, 3.2), (0.9, 1.8), (1, 0.4)]
        edges = [[p[apex] + axis * along + side * half * sign for along, half in shape] for sign in (1, -1)]
        canvas.fill(np.array(edges[0] + edges[1][::-1]), 0.55, blur_mm=0.25)
    for tip, down, width in (("UPM", -1, 3.2), ("LPM", 1, 3.2), ("UMT", -1, 5.0), ("LMT", 1, 5.0)):
        steps = [(-width, 2.5), (-width * 0.9, 8), (-1.5, 18), (0, 9), (1.5, 18), (width * 0.9, 8), (width, 2.5)]
        crown = [p[tip], *(p[tip] + [across, along * down] for across, along in steps)]
        canvas.fill(np.array(crown), 0.5, blur_mm=0.25)


def _expose(grey: NDArray[np.float32], random: Random) -> NDArray[np.uint8]:
    import cv2

    height, width = grey.shape
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    slope = random.normal(0, 0.03, 2).astype(np.float32)
    film = grey ** np.float32(random.uniform(0.8, 1.25)) * np.float32(random.uniform(0.85, 1.05))
    film += np.float32(random.uniform(0.02, 0.1)) + slope[0] * x + slope[1] * y[:, None]
    grain = random.standard_normal((height, width), dtype=np.float32)
    film += cv2.GaussianBlur(grain, (0, 0), 0.7) * np.float32(random.uniform(0.02, 0.05))
    return (film.clip(0, 1) * 255).astype(np.uint8)
