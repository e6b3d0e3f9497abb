"""What a program must know to use a network that left vramfit: the document that every exported file carries.

K landmarks, H W image pixels, h w heatmap pixels, s heatmap stride. The rules are sentences, for whoever writes the
program in another language; docs/export.md has them as a page of numpy, which the tests run against `vramfit infer`.
"""

from typing import Any, Literal

import torch

from vramfit._version import __version__
from vramfit.landmarks.loading.photometric import MEAN, STD
from vramfit.records import Record

# The key of an ONNX file's metadata_props and of a safetensors header.
KEY = "vramfit"
# The name in a .pt2 file's extra_files.
FILE = "vramfit.json"

GREY = (
    "A film is one plane of 8-bit grey, as stored: colours become 0.299 R + 0.587 G + 0.114 B; more than 8 bits, and 8 "
    "of which all but 1 % of what is not black is below 64, are spread so that the tissue's brightest pixel is 255; an "
    "orientation tag is ignored."
)
LETTERBOX = (
    "With image_size H x W: scale = min(W / film_width, H / film_height); inner_width = max(1, round(film_width * "
    "scale)) and inner_height likewise, halves to even; resize the film to that, by averaging over areas where it "
    "shrinks (OpenCV's INTER_AREA) and linearly where it grows; put it at left = (W - inner_width) // 2, top = (H - "
    "inner_height) // 2 of an image of zeros."
)
PIXEL_CENTRES = (
    "A pixel's centre is at whole numbers, the first at 0. x_image = (x_heatmap + 0.5) * heatmap_stride - 0.5; "
    "x_film = (x_image - left + 0.5) * film_width / inner_width - 0.5; y likewise with top and heights."
)
DARK = (
    "Zhang et al., CVPR 2020. Blur each heatmap by a Gaussian of sigma 1.5 (11 x 11, edges repeated); (x, y) is its "
    "highest pixel. Around it take L = ln(max(value, 1e-10)), its central differences over one pixel dx = (L[+1] - "
    "L[-1]) / 2 and over two dxx = (L[+2] - 2 L[0] + L[-2]) / 4, and dxy = (L[+1,+1] - L[+1,-1] - L[-1,+1] + L[-1,-1]) "
    "/ 4. Add -(Hessian^-1 gradient), each part within -1 to 1; add nothing where the determinant is 1e-12 or less, or "
    "the pixel nearer than 2 to a border."
)
CONFIDENCE = "The highest value of the landmark's heatmap before any blur, cut to 0 to 1; not a probability."
PIXEL_SIZE = "The network knows no millimetres: a distance in pixels of the film times that film's own pixel size."
INSIDE, OUTSIDE = "inside the graph: give it the bytes", "not part of the weights: do it before the first layer"


class Normalisation(Record):
    """What is made of the bytes before the first convolution, and whether the file does it itself."""

    mean: float = MEAN
    std: float = STD
    rule: str = "(film / 255 - mean) / std"
    where: str


class NetworkDescription(Record):
    """Input, output and the way from one to the other, what was trained and how good it was.

    `image_size` is (height, width); `landmarks` are (symbol, title) in the order of the heatmaps; `mre_mm` the mean
    radial error on the validation films after `epoch` epochs, None where it is not known; `task` what vramfit itself
    needs to build the network again.
    """

    schema_version: Literal[1] = 1
    vramfit_version: str = __version__
    torch_version: str = str(torch.__version__)
    model: str
    image_size: tuple[int, int]
    input: str
    grey: str = GREY
    letterbox: str = LETTERBOX
    normalisation: Normalisation
    output: str
    heatmap_stride: int
    pixel_centres: str = PIXEL_CENTRES
    decode: Literal["dark"] = "dark"
    decode_rule: str = DARK
    confidence: str = CONFIDENCE
    landmarks: tuple[tuple[str, str], ...]
    pixel_size: str = PIXEL_SIZE
    epoch: int
    mre_mm: float | None
    annotator: str
    task: dict[str, Any]
