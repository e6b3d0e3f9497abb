"""What can be chosen about the landmark network and its training step; read by the command line, so it loads fast."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self

from vramfit.choices import Amp
from vramfit.errors import UsageError
from vramfit.landmarks.model.stages import stage_modules
from vramfit.options import Options, option
from vramfit.units import parse_image_size

if TYPE_CHECKING:
    from vramfit.records import Lever

_COARSEST_STRIDE = 32
_SIGMA_AT_STRIDE_4 = 1.5
# What a field was called in checkpoints of earlier versions.
_EARLIER_NAMES = {"backbone_rate_scale": "backbone_lr_scale"}


def _read_stages(words: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in words.split(",")) if words else ()


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(Options):
    """The landmark network, and how a step trains it.

    `image_size` is (height, width) of the letterboxed film; `sigma` is None for 1.5 at stride 4, 3 at 2, 6 at 1;
    `coarse_size`, if any, is that of the image on which the first of two stages finds where to look closer;
    `freeze` are stages of `vramfit.landmarks.model.stages`; `weights` is what training starts from (see
    `load_weights`), not read when the job builds its network.
    """

    model: str = option("hrnet", "hrnet or a timm HRNet's name.", metavar="NAME")
    image_size: tuple[int, int] = option(
        (768, 768),
        "Pixels: 768, or height and width as 512x640.",
        flags=("--image-size", "--imgsz"),
        metavar="SIZE",
        read=parse_image_size,
        shown="768",
    )
    loss: Literal["adaptive_wing", "mse"] = option("adaptive_wing", "The loss of the heatmaps.")
    amp: Amp | None = option("fp16", "Mixed precision by its type; fp16 if not given.")
    coarse_size: tuple[int, int] | None = option(
        None,
        "Train a second stage: on crops of the film at --image-size, around points that the network of --weights finds "
        "at this size.",
        metavar="SIZE",
        read=parse_image_size,
        on_resume="fixed",
    )
    crop_size: int = option(
        96, "With --coarse-size, side of the second stage's crops in pixels.", metavar="N", on_resume="fixed"
    )
    heatmap_stride: int = option(4, "Image pixels to a heatmap pixel.", metavar="1|2|4")
    sigma: float | None = option(None, "Standard deviation of the heatmaps' Gaussians, in their pixels.", metavar="X")
    learning_rate: float = option(1e-3, "Highest learning rate.", flags=("--lr",), metavar="X", above=0)
    weight_decay: float = option(1e-4, "AdamW's weight decay.", metavar="X", minimum=0)
    backbone_lr_scale: float = option(
        1.0, "The backbone's learning rate as a share of the head's.", metavar="X", above=0, on_resume="fixed"
    )
    freeze: tuple[str, ...] = option(
        (),
        "Stages that do not learn: stem,stage1,stage2,stage3,stage4 or backbone.",
        metavar="LIST",
        read=_read_stages,
        on_resume="fixed",
    )
    weights: str = option("auto", "Weights to start from.", metavar="auto|imagenet|none|FILE", on_resume="silent")
    clip_norm: float | None = option(
        None, "Largest norm of the gradient.", flags=("--clip-norm", "--clip-grad"), metavar="X"
    )
    ema_decay: float | None = option(
        None,
        "Decay of averaged weights, which are then judged and kept.",
        flags=("--ema-decay", "--model-ema-decay"),
        metavar="X",
    )
    channels_last: bool = option(False, "NHWC memory order.")
    cudnn_benchmark: bool = option(False, "Let cuDNN time its algorithms.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(side < 2 * _COARSEST_STRIDE or side % _COARSEST_STRIDE for side in self.image_size):
            size = "x".join(map(str, self.image_size))
            raise UsageError(f"image size {size} does not suit HRNet; use multiples of 32, at least 64.")
        if self.heatmap_stride not in (1, 2, 4):
            raise UsageError(f"heatmap stride {self.heatmap_stride} is not possible; use 1, 2 or 4.")
        if self.sigma is not None and self.sigma <= 0:
            raise UsageError(f"sigma {self.sigma} is not positive; leave it out, or use 1 to 3 heatmap pixels.")
        stage_modules(self.freeze)
        if self.coarse_size is not None:
            self._check_stages(self.coarse_size)
        elif self.crop_size != NetworkOptions.crop_size:
            raise UsageError(
                f"--crop-size {self.crop_size} is of a second stage; ask for that with --coarse-size, or leave it out."
            )

    def _check_stages(self, coarse: tuple[int, int]) -> None:
        (height, width), side = self.image_size, self.crop_size
        if (
            height * coarse[1] != width * coarse[0]
            or height < coarse[0]
            or any(one % _COARSEST_STRIDE for one in coarse)
        ):
            raise UsageError(
                f"--coarse-size {coarse[0]} {coarse[1]} does not suit --image-size {height} {width}; use multiples of "
                "32 of the same shape, no larger."
            )
        if side % 16 or not 32 <= side <= min(height, width):
            raise UsageError(f"--crop-size {side} is not possible; use a multiple of 16 from 32 to the image's side.")
        if self.freeze or self.backbone_lr_scale != 1:
            raise UsageError("with --coarse-size the first stage does not learn; leave out --freeze and its rate.")

    @property
    def heatmap_sigma(self) -> float:
        """The Gaussians' standard deviation in heatmap pixels."""
        return self.sigma or _SIGMA_AT_STRIDE_4 * 4 / self.heatmap_stride


@dataclass(frozen=True, kw_only=True)
class LandmarkJobOptions(NetworkOptions):
    """All that the landmark job depends on: the network's options, how many landmarks there are, and levers.

    `landmark_weights` is one factor of the loss a landmark, None for 1.
    """

    landmarks: int = 29
    landmark_weights: tuple[float, ...] | None = None
    levers: "tuple[Lever, ...]" = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.landmarks < 1:
            raise UsageError(f"{self.landmarks} landmarks cannot be learned; at least 1 is needed.")
        if self.landmark_weights is not None and len(self.landmark_weights) != self.landmarks:
            raise UsageError(f"{len(self.landmark_weights)} landmark weights for {self.landmarks} landmarks.")

    @classmethod
    def of(cls, network: NetworkOptions, landmarks: int, levers: "tuple[Lever, ...]" = ()) -> Self:
        """The network's options, for so many landmarks."""
        chosen = {one.name: getattr(network, one.name) for one in fields(NetworkOptions)}
        return cls(**chosen, landmarks=landmarks, levers=levers)

    def plain(self) -> dict[str, Any]:
        """These options in types that load with `weights_only`."""
        return {**super().plain(), "levers": [lever.model_dump(mode="json") for lever in self.levers]}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """The options as `plain` wrote them, in this version or an earlier one."""
        from vramfit.records import Lever

        named = {_EARLIER_NAMES.get(name, name): value for name, value in plain.items()}
        named["levers"] = tuple(Lever.model_validate(lever) for lever in named["levers"])
        if named.get("coarse_size") is None:
            named.pop("crop_size", None)  # earlier versions kept one that nothing read
        tuples = ("image_size", "coarse_size", "freeze")
        named |= {name: tuple(named[name]) for name in tuples if named.get(name) is not None}
        return cls(**named)
