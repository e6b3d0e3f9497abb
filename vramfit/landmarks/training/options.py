"""What can be chosen about a landmark run: the engine's options, the network's, and those of the film set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vramfit.errors import UsageError
from vramfit.landmarks.data.raters import Annotator
from vramfit.landmarks.model.options import NetworkOptions
from vramfit.options import OptionInfo, option
from vramfit.training.run_options import RunOptions

Augmentation = Literal["none", "light", "standard", "strong", "elastic"]


def require_chance(artefacts: float) -> None:
    """Refuse what is no chance of artefacts.

    Raises:
        UsageError: not within 0 to 1.

    """
    if not 0 <= artefacts <= 1:
        raise UsageError(f"--artefacts {artefacts} is not a chance; use 0 to 1, such as 0.1.")


@dataclass(frozen=True, kw_only=True)
class LandmarkOptions(RunOptions, NetworkOptions):
    """A landmark training run; `fold` of `folds` holds the films to validate on."""

    dataset_path: Path = option(help="A film set: a folder or file; docs/formats.md.", metavar="PATH")
    film_format: str | None = option(
        None,
        "The film set's format, if it is not to be detected.",
        flags=("--format",),
        metavar="NAME",
        on_resume="silent",
    )
    annotator: Annotator = option("mean", "Whose points to learn.")
    augmentation: Augmentation = option("standard", "How far films are changed.")
    artefacts: float = option(
        0.0,
        "Chance of each artefact of archives on a film: negative, collimation, marker, metal.",
        metavar="X",
    )
    skip_bad: bool = option(False, "Leave out films that cannot be used, and list them.")
    folds: int | None = option(
        None,
        "Deal the films of train and valid to N folds; without --fold runs all.",
        metavar="N",
        minimum=2,
        on_resume="fixed",
    )
    fold: int | None = option(None, "Validate on this fold, train on the others.", metavar="N", on_resume="fixed")
    mixed_precision: bool = False  # whether --mixed-precision named it, as the old guide's lines do; no option itself
    cache_dir: Path | None = option(None, "Where decoded films are kept.", metavar="FOLDER", on_resume="silent")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_chance(self.artefacts)
        if self.fold is None:
            return
        if self.folds is None:
            raise UsageError(f"--fold {self.fold} makes no sense; name it with --folds.")
        if not 1 <= self.fold <= self.folds:
            raise UsageError(f"--fold {self.fold} makes no sense; use 1 to {self.folds}.")

    @property
    def follows_guide(self) -> bool:
        """Whether the run is written as the old guide's command lines are: a batch by hand, and --mixed_precision."""
        return self.batch_size is not None and self.mixed_precision

    def is_fixed(self, name: str, info: OptionInfo) -> bool:
        """The seed, too, where it deals the films to folds."""
        return super().is_fixed(name, info) or (name == "seed" and self.folds is not None)
