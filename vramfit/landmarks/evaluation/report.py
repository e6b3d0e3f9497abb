"""The document of an evaluation: all that `vramfit evaluate` says of a checkpoint."""

from typing import Literal

from pydantic import Field

from vramfit._version import __version__
from vramfit.landmarks.data.films import Unit
from vramfit.landmarks.data.raters import Annotator
from vramfit.landmarks.evaluation.certainty import Kept
from vramfit.landmarks.evaluation.measures import MeasureError
from vramfit.landmarks.evaluation.metrics import Evaluation, PixelSizes
from vramfit.landmarks.evaluation.relative import RelativeScores
from vramfit.landmarks.evaluation.statistics import RESAMPLES, SEED
from vramfit.landmarks.model.decode import Method
from vramfit.records import Record


class EvaluationReport(Record):
    """Everything that can be said of a checkpoint on one split.

    `ensemble` are the other checkpoints whose points were averaged with this one's.
    `views` is how often each film was seen, a little turned, for a mean of its points.
    `landmarks` are those judged, symbol and title, `left_out` the checkpoint's others; `raters` the network judged by
    each rater alone, on the films that each marked, and by their `mean`, empty for a single rater; `baseline` the mean
    training position of each landmark, which sees no film; `inter_rater` one rater judged by the other, None where no
    film has both; `film_mre_mm` the MRE of each film and `errors_mm` its radial errors in the order of `landmarks`,
    None where no point is known; intervals are at 95 %, from `resamples` draws of films with seed `seed`.
    `unit` is px where no film has a pixel size: `film_mre_px` and `errors_px` then stand in place of those in mm, and
    `relative` measures errors by the size of what is marked. `measures` are those of cephalometry that the landmarks
    allow, by name; `certainty` how the regions of a calibrated network held, over all its landmarks, and
    `certainty_note` why a calibration says nothing of points found this way. `leaked` names films that show the same as
    one that the checkpoint was trained on, and which; None where it knows none.
    """

    schema_version: Literal[1] = 1
    vramfit_version: str = __version__
    checkpoint: str
    ensemble: tuple[str, ...] = ()
    epoch: int
    model: str
    image_size: tuple[int, int]
    trained_on_annotator: str
    dataset: str
    split: str
    annotator: Annotator
    mean_rounds_up: bool
    decode: Method
    views: int = 1
    films: int
    landmarks: dict[str, str]
    left_out: tuple[str, ...]
    pixel_sizes: PixelSizes
    loss: float
    evaluation: Evaluation
    raters: dict[str, Evaluation]
    baseline: Evaluation
    inter_rater: Evaluation | None
    resamples: int = RESAMPLES
    seed: int = SEED
    leaked: dict[str, str] | None
    unit: Unit = "mm"
    relative: RelativeScores | None = None
    measures: dict[str, MeasureError] = Field(default_factory=dict)
    certainty: Kept | None = None
    certainty_note: str | None = None
    film_mre_mm: dict[str, float | None]
    errors_mm: dict[str, tuple[float | None, ...]]
    film_mre_px: dict[str, float | None] = Field(default_factory=dict)
    errors_px: dict[str, tuple[float | None, ...]] = Field(default_factory=dict)
    skipped: dict[str, str]

    @property
    def film_mre(self) -> dict[str, float | None]:
        """The MRE of each film in the report's unit."""
        return self.film_mre_mm if self.unit == "mm" else self.film_mre_px

    @property
    def errors(self) -> dict[str, tuple[float | None, ...]]:
        """The radial errors of each film in the report's unit."""
        return self.errors_mm if self.unit == "mm" else self.errors_px
