"""What can be chosen about a training run."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vramfit.errors import UsageError
from vramfit.landmarks.data.films import Annotator
from vramfit.landmarks.model.job import LandmarkOptions
from vramfit.records import Amp, Lever
from vramfit.units import parse_size

DeviceChoice = Literal["auto", "cuda", "cpu"]
# What a resumed run may change without becoming another one; its batch is told of by itself.
_INCIDENTAL = (
    "batch_size",
    "auto_batch",
    "profile",
    "resume",
    "save_dir",
    "log_dir",
    "device",
    "num_workers",
    "pin_memory",
    "cache_dir",
    "grow_back",
    "fresh",
    "emulated_bf16",
    "film_format",
    "weights",
    "vram",
    "reserve",
    "gpu",
    "save_every",
    "keep",
    "save_every_steps",
    "save_every_minutes",
    "watermark",
)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """A training run.

    `film_format` is the format of the film set, None to detect it.
    `batch_size` is the effective batch, None to take the profile's, what `auto_batch` finds, or 6; `image_size` is
    (height, width); `warmup_epochs` may be a fraction; `save_every` the epochs between periodic checkpoints, of which
    the newest `keep` stay; `save_every_steps` and `save_every_minutes` (0 for never) write checkpoint_latest.pth within
    an epoch; `difficulty` is the power of a landmark's running error by which it is weighed; `patience` the epochs
    without a better one after which the run stops; `fold` of `folds` holds the films to validate on; `num_workers` and
    `pin_memory` are None to choose them by what is measured; `resume` is `latest` or a file; `grow_back` takes larger
    micro-batches again some time after an OOM; `fresh` measures anew whatever an earlier probe found; `emulated_bf16`
    takes bf16 on a card that computes it in float32; `watermark` is the share of the budget above which a warning is
    due.
    """

    dataset_path: Path
    model: str = "hrnet"
    image_size: tuple[int, int] = (768, 768)
    batch_size: int | None = None
    epochs: int = 200
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_epochs: float = 10
    loss: Literal["adaptive_wing"] = "adaptive_wing"
    amp: Amp | None = "fp16"
    emulated_bf16: bool = False
    heatmap_stride: int = 4
    sigma: float | None = None
    weights: str = "auto"
    freeze: tuple[str, ...] = ()
    backbone_lr_scale: float = 1.0
    clip_norm: float | None = None
    ema_decay: float | None = None
    channels_last: bool = False
    cudnn_benchmark: bool = False
    compile: bool = False
    film_format: str | None = None
    annotator: Annotator = "mean"
    difficulty: float = 0.0
    patience: int | None = None
    folds: int | None = None
    fold: int | None = None
    skip_bad: bool = False
    augmentation: str = "standard"
    auto_batch: bool = False
    profile: str | None = None
    vram: str | None = None
    reserve: str | None = None
    gpu: str | None = None
    device: DeviceChoice = "auto"
    seed: int = 0
    num_workers: int | None = None
    pin_memory: bool | None = None
    save_dir: Path = Path("checkpoints")
    log_dir: Path = Path("logs")
    cache_dir: Path | None = None
    resume: str | None = None
    save_every: int = 10
    keep: int = 3
    save_every_steps: int | None = None
    save_every_minutes: float = 10.0
    grow_back: bool = False
    fresh: bool = False
    watermark: float = 0.95

    def __post_init__(self) -> None:
        _require(self.batch_size is None or self.batch_size >= 1, "batch_size", self.batch_size, "use 1 or more")
        for name in ("epochs", "save_every", "keep"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "use a whole number above 0")
        _require(self.learning_rate > 0, "lr", self.learning_rate, "use a positive number")
        _require(self.backbone_lr_scale > 0, "backbone_lr_scale", self.backbone_lr_scale, "use a positive number")
        _require(self.difficulty >= 0, "difficulty", self.difficulty, "use 0 or more")
        _require(self.patience is None or self.patience >= 1, "patience", self.patience, "use 1 or more")
        self._check_folds()
        _require(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "use 0 or more")
        _require(self.num_workers is None or self.num_workers >= 0, "num_workers", self.num_workers, "use 0 or more")
        steps = self.save_every_steps
        _require(steps is None or steps >= 1, "save_every_steps", steps, "use 1 or more")
        for size in (self.vram, self.reserve):
            if size is not None:
                parse_size(size)
        if self.auto_batch and self.profile:
            raise UsageError("--auto-batch and --profile each choose the batch; give one of them.")
        if self.gpu and self.profile:
            raise UsageError("--gpu and --profile each name the card that is planned for; give one of them.")

    def _check_folds(self) -> None:
        _require(self.folds is None or self.folds >= 2, "folds", self.folds, "use 2 or more")
        if self.fold is not None:
            _require(self.folds is not None, "fold", self.fold, "name it with --folds")
            _require(1 <= self.fold <= (self.folds or 0), "fold", self.fold, f"use 1 to {self.folds}")

    def landmark_options(self, landmarks: int, levers: tuple[Lever, ...] = ()) -> LandmarkOptions:
        """The job's own options."""
        return LandmarkOptions(
            model=self.model,
            image_size=self.image_size,
            landmarks=landmarks,
            heatmap_stride=self.heatmap_stride,
            sigma=self.sigma,
            weights=self.weights,
            amp=self.amp,
            channels_last=self.channels_last,
            learning_rate=self.learning_rate,
            backbone_rate_scale=self.backbone_lr_scale,
            freeze=self.freeze,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            ema_decay=self.ema_decay,
            cudnn_benchmark=self.cudnn_benchmark,
            levers=levers,
        )

    def require_same_run(self, config: dict[str, Any]) -> None:
        """Refuse to go on with other parameters to learn, in other groups, or other films, than a checkpoint's.

        Raises:
            UsageError: names the option.

        """
        # The seed deals the films to folds.
        for name in ("freeze", "backbone_lr_scale", "folds", "fold", *(["seed"] if self.folds else [])):
            mine, theirs = getattr(self, name), config.get(name, type(self).__dataclass_fields__[name].default)
            if _comparable(mine) != _comparable(theirs):
                option = name.replace("_", "-")
                raise UsageError(
                    f"--{option} is {_as_typed(mine)} here and {_as_typed(theirs)} in the checkpoint; resume with its "
                    "own, or begin a new run from its weights with --weights FILE."
                )

    def plain(self) -> dict[str, Any]:
        """These options in types that load with `weights_only`."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    def changes_from(self, config: dict[str, Any]) -> list[str]:
        """What differs from the options of a checkpoint, as `name old -> new`, where it changes the result."""
        mine = self.plain()
        return [
            f"{name} {config[name]} -> {value}"
            for name, value in mine.items()
            if name not in _INCIDENTAL and name in config and _comparable(config[name]) != _comparable(value)
        ]


def _as_typed(value: Any) -> str:
    words = ",".join(value) if isinstance(value, (list, tuple)) else str("" if value is None else value)
    return words or "not given"


def _comparable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _require(sound: bool, name: str, value: object, advice: str) -> None:
    if not sound:
        raise UsageError(f"--{name.replace('_', '-')} {value} makes no sense; {advice}.")
