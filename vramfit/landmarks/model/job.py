"""The landmark job: films in, heatmaps out, adaptive wing between, as one picklable Job.

B batch, K landmarks, P photometric parameters, H W image pixels, h w heatmap pixels.

    inputs   {"films": uint8 B1HW, "photometric": float32 BxP}, and float32 BxK "weights" where landmarks are weighed
    targets  float32 BxKx2, (x, y) in image pixels, NaN where missing
    prepared (float32 B1HW, (heatmaps float32 BxKxhxw, weights float32 BxK))
    outputs  BxKxhxw

The second of two stages learns on crops: there the films come with "centres", BxKx2, and heatmaps are of crops.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vramfit.jobs.job import Batch, Job
from vramfit.jobs.param_groups import adamw
from vramfit.landmarks.data.films import Landmark
from vramfit.landmarks.loading import photometric
from vramfit.landmarks.loading.loading_rate import loading_rate
from vramfit.landmarks.model.heatmap import present, render
from vramfit.landmarks.model.loss import adaptive_wing
from vramfit.landmarks.model.network import ALIASES, HeatmapNetwork
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.landmarks.model.stages import BACKBONE, stage_modules
from vramfit.landmarks.model.two_stage import COARSE, StageSizes, TwoStageNetwork, crop_origins, scattered


def landmark_job(options: LandmarkJobOptions) -> Job:
    """The job of finding landmarks on films; it pickles."""
    losses = {"adaptive_wing": heatmap_loss, "mse": squared_error_loss}
    return Job(
        model=_network(options),
        batch=partial(synthetic_batch, options),
        loss=losses[options.loss],
        optimizer=partial(adamw, learning_rate=options.learning_rate, weight_decay=options.weight_decay),
        prepare=partial(prepare, options),
        amp=options.amp,
        channels_last=options.channels_last,
        clip_norm=options.clip_norm,
        ema_decay=options.ema_decay,
        cudnn_benchmark=options.cudnn_benchmark,
        frozen=(COARSE,) if options.coarse_size else stage_modules(options.freeze),
        rate_scales=() if options.backbone_lr_scale == 1 else ((BACKBONE, options.backbone_lr_scale),),
        levers=options.levers,
        loading_rate=partial(loading_rate, options.image_size, options.landmarks),
        name="landmark",
        model_name=ALIASES.get(options.model, options.model),
        image_size=options.image_size,
    )


def _network(options: LandmarkJobOptions) -> Callable[[], nn.Module]:
    """What builds the network: one stage, or two where the whole film is seen small first."""
    if options.coarse_size is None:
        return partial(HeatmapNetwork, options.model, options.landmarks, options.heatmap_stride)
    return partial(TwoStageNetwork, options.model, options.landmarks, _sizes(options, options.coarse_size))


def _sizes(options: LandmarkJobOptions, coarse_size: tuple[int, int]) -> StageSizes:
    return StageSizes(options.image_size, coarse_size, options.crop_size, options.heatmap_stride)


def synthetic_batch(options: LandmarkJobOptions, samples: int) -> Batch:
    """Samples as the loader makes them, of no meaning: the same ones every time, and no random state is touched."""
    height, width = options.image_size
    # Grey that varies from pixel to pixel: a flat film makes BatchNorm divide by nothing.
    counter = torch.arange(samples * height * width, dtype=torch.int64)
    films = ((counter * 1103515245 + 12345) >> 16).remainder(256).to(torch.uint8).view(samples, 1, height, width)
    changes = torch.zeros(samples, len(photometric.Photometric._fields))
    share = (torch.arange(samples * options.landmarks * 2, dtype=torch.float32) * 0.618034).frac()
    points = share.view(samples, options.landmarks, 2) * torch.tensor([width - 1.0, height - 1.0])
    return {"films": films, "photometric": changes}, points


def prepare(options: LandmarkJobOptions, inputs: dict[str, Tensor], targets: Tensor, training: bool) -> Batch:
    """On the card: normalise, change the look when training, render the heatmaps."""
    films, changes = inputs["films"], inputs["photometric"]
    images = photometric.augment(films, changes) if training else photometric.normalise(films)
    seen: dict[str, Tensor] | Tensor = images
    size, places = options.image_size, targets
    if training and options.coarse_size:
        seeds = changes[:, photometric.Photometric._fields.index("noise_seed")]
        centres = scattered(targets, seeds, options.crop_size)
        origins = crop_origins(centres, _sizes(options, options.coarse_size))
        seen, size, places = {"films": images, "centres": centres}, (options.crop_size,) * 2, targets - origins
    heatmaps = render(places, size, options.heatmap_stride, options.heatmap_sigma)
    weights = present(places, size)
    if options.landmark_weights is not None:
        weights = weights * torch.tensor(options.landmark_weights).to(weights.device, non_blocking=True)
    if "weights" in inputs:
        weights = weights * inputs["weights"]
    return seen, (heatmaps, weights)


def heatmap_loss(outputs: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
    """Adaptive wing of BxKxhxw heatmaps against (heatmaps, weights)."""
    heatmaps, weights = targets
    return adaptive_wing(outputs, heatmaps, weights)


def squared_error_loss(outputs: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared error of BxKxhxw heatmaps against (heatmaps, weights), over the pixels of landmarks that count."""
    heatmaps, weights = targets
    errors = (outputs.float() - heatmaps.float()).square().mean(dim=(2, 3))
    return (errors * weights).sum() / weights.sum().clamp(min=1)


def plain_task(
    options: LandmarkJobOptions, landmarks: Iterable[Landmark], shape: NDArray[np.float64]
) -> dict[str, Any]:
    """Options, landmarks and mean shape, Kx2 in image pixels, in types that load with `weights_only`."""
    return {
        "kind": "landmark",
        "options": options.plain(),
        "landmarks": [[landmark.symbol, landmark.title] for landmark in landmarks],
        "mean_shape": shape.tolist(),
    }


def read_plain_task(description: dict[str, Any]) -> tuple[LandmarkJobOptions, tuple[Landmark, ...]]:
    """Options and landmarks as `plain_task` wrote them."""
    landmarks = tuple(Landmark(symbol, title) for symbol, title in description["landmarks"])
    return LandmarkJobOptions.from_plain(description["options"]), landmarks
