"""The landmark job: films in, heatmaps out, adaptive wing between, as one picklable Job.

B batch, K landmarks, P photometric parameters, H W image pixels, h w heatmap pixels.

    inputs   {"films": uint8 B1HW, "photometric": float32 BxP}, and float32 BxK "weights" where landmarks are weighed
    targets  float32 BxKx2, (x, y) in image pixels, NaN where missing
    prepared (float32 B1HW, (heatmaps float32 BxKxhxw, weights float32 BxK))
    outputs  BxKxhxw
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vramfit.errors import UsageError
from vramfit.jobs.job import Batch, Job
from vramfit.landmarks.loading import photometric
from vramfit.landmarks.loading.loading_rate import loading_rate
from vramfit.landmarks.model.heatmap import present, render
from vramfit.landmarks.model.loss import adaptive_wing
from vramfit.landmarks.model.network import ALIASES, HeatmapNetwork
from vramfit.landmarks.model.stages import BACKBONE, stage_modules
from vramfit.records import Amp, Lever

_COARSEST_STRIDE = 32
_SIGMA_AT_STRIDE_4 = 1.5


@dataclass(frozen=True, kw_only=True)
class LandmarkOptions:
    """What can be chosen about the landmark job.

    `image_size` is (height, width) of the letterboxed film; `sigma` the Gaussians' standard deviation in heatmap
    pixels, None for 1.5 at stride 4, 3 at 2, 6 at 1; `landmark_weights` one factor of the loss a landmark, None for 1;
    `freeze` the stages that do not learn (see `vramfit.landmarks.model.stages`); `backbone_rate_scale` the backbone's
    learning rate as a share of the head's; `weights` is what training starts from (see `load_weights`), not read when
    the job builds its network.
    """

    model: str = "hrnet_w32"
    image_size: tuple[int, int] = (768, 768)
    landmarks: int = 29
    heatmap_stride: int = 4
    sigma: float | None = None
    landmark_weights: tuple[float, ...] | None = None
    weights: str = "auto"
    amp: Amp | None = "fp16"
    channels_last: bool = False
    learning_rate: float = 1e-3
    backbone_rate_scale: float = 1.0
    freeze: tuple[str, ...] = ()
    weight_decay: float = 1e-4
    clip_norm: float | None = None
    ema_decay: float | None = None
    cudnn_benchmark: bool = False
    levers: tuple[Lever, ...] = ()

    def __post_init__(self) -> None:
        if any(side < 2 * _COARSEST_STRIDE or side % _COARSEST_STRIDE for side in self.image_size):
            size = "x".join(map(str, self.image_size))
            raise UsageError(f"image size {size} does not suit HRNet; use multiples of 32, at least 64.")
        if self.heatmap_stride not in (1, 2, 4):
            raise UsageError(f"heatmap stride {self.heatmap_stride} is not possible; use 1, 2 or 4.")
        if self.sigma is not None and self.sigma <= 0:
            raise UsageError(f"sigma {self.sigma} is not positive; leave it out, or use 1 to 3 heatmap pixels.")
        if self.landmarks < 1:
            raise UsageError(f"{self.landmarks} landmarks cannot be learned; at least 1 is needed.")
        if self.landmark_weights is not None and len(self.landmark_weights) != self.landmarks:
            raise UsageError(f"{len(self.landmark_weights)} landmark weights for {self.landmarks} landmarks.")

        if self.backbone_rate_scale <= 0:
            scale = self.backbone_rate_scale
            raise UsageError(f"backbone rate scale {scale} is not positive; leave it out, or freeze the backbone.")
        stage_modules(self.freeze)

    @property
    def heatmap_sigma(self) -> float:
        """The Gaussians' standard deviation in heatmap pixels."""
        return self.sigma or _SIGMA_AT_STRIDE_4 * 4 / self.heatmap_stride


def landmark_job(options: LandmarkOptions) -> Job:
    """The job of finding landmarks on films; it pickles."""
    return Job(
        model=partial(HeatmapNetwork, options.model, options.landmarks, options.heatmap_stride),
        batch=partial(synthetic_batch, options),
        loss=heatmap_loss,
        optimizer=partial(adamw, learning_rate=options.learning_rate, weight_decay=options.weight_decay),
        prepare=partial(prepare, options),
        amp=options.amp,
        channels_last=options.channels_last,
        clip_norm=options.clip_norm,
        ema_decay=options.ema_decay,
        cudnn_benchmark=options.cudnn_benchmark,
        frozen=stage_modules(options.freeze),
        rate_scales=() if options.backbone_rate_scale == 1 else ((BACKBONE, options.backbone_rate_scale),),
        levers=options.levers,
        loading_rate=partial(loading_rate, options.image_size, options.landmarks),
        name="landmark",
        model_name=ALIASES.get(options.model, options.model),
        image_size=options.image_size,
    )


def synthetic_batch(options: LandmarkOptions, samples: int) -> Batch:
    """Samples as the loader makes them, of no meaning: the same ones every time, and no random state is touched."""
    height, width = options.image_size
    # Grey that varies from pixel to pixel: a flat film makes BatchNorm divide by nothing.
    counter = torch.arange(samples * height * width, dtype=torch.int64)
    films = ((counter * 1103515245 + 12345) >> 16).remainder(256).to(torch.uint8).view(samples, 1, height, width)
    changes = torch.zeros(samples, len(photometric.Photometric._fields))
    share = (torch.arange(samples * options.landmarks * 2, dtype=torch.float32) * 0.618034).frac()
    points = share.view(samples, options.landmarks, 2) * torch.tensor([width - 1.0, height - 1.0])
    return {"films": films, "photometric": changes}, points


def prepare(options: LandmarkOptions, inputs: dict[str, Tensor], targets: Tensor, training: bool) -> Batch:
    """On the card: normalise, change the look when training, render the heatmaps."""
    films, changes = inputs["films"], inputs["photometric"]
    images = photometric.augment(films, changes) if training else photometric.normalise(films)
    heatmaps = render(targets, options.image_size, options.heatmap_stride, options.heatmap_sigma)
    weights = present(targets, options.image_size)
    if options.landmark_weights is not None:
        weights = weights * torch.tensor(options.landmark_weights).to(weights.device, non_blocking=True)
    if "weights" in inputs:
        weights = weights * inputs["weights"]
    return images, (heatmaps, weights)


def heatmap_loss(outputs: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
    """Adaptive wing of BxKxhxw heatmaps against (heatmaps, weights)."""
    heatmaps, weights = targets
    return adaptive_wing(outputs, heatmaps, weights)


def adamw(parameters: Iterable[nn.Parameter], *, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Fused AdamW: no extra copy of the parameters, no wait for the scaler. Biases and norms do not decay."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    fused = all(p.device.type != "meta" for p in parameters)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=fused)
