"""The network: a timm HRNet with one grey input channel and the HRNetV2 head (Sun et al., 2019).

B batch, K landmarks, H W image pixels, s heatmap stride.
"""

import difflib
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vramfit.errors import DataError, UsageError

ALIASES = {"hrnet": "hrnet_w32"}
FEATURE_STRIDE = 4
HUB_PATIENCE_S = 5.0


class HeatmapNetwork(nn.Module):
    """Films to heatmaps: float B1HW -> BxKx(H/s)x(W/s).

    Four feature maps at strides 4, 8, 16 and 32 are brought to stride 4, joined, mixed by a 1x1 convolution and turned
    into one heatmap a landmark. A smaller stride upsamples the heatmaps: the last convolution is 1x1, so to
    upsample before it would give the same and cost more.
    """

    def __init__(self, model: str, landmarks: int, heatmap_stride: int = FEATURE_STRIDE) -> None:
        super().__init__()
        self.backbone = _backbone(model)
        channels = sum(self.backbone.feature_info.channels())
        last = nn.Conv2d(channels, landmarks, 1)
        # Heatmaps are nearly empty: begin with empty ones.
        for parameter in last.parameters():
            nn.init.normal_(parameter, std=0.001)
        self.head = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True), last
        )
        raisers = [nn.Upsample(scale_factor=2**level, mode="bilinear", align_corners=False) for level in (1, 2, 3)]
        self.raisers = nn.ModuleList(raisers)
        self.upsampling = FEATURE_STRIDE // heatmap_stride

    def forward(self, films: Tensor) -> Tensor:
        """Heatmaps of films."""
        heatmaps: Tensor = self.head(self._joined(films))
        if self.upsampling > 1:
            heatmaps = F.interpolate(heatmaps, scale_factor=self.upsampling, mode="bilinear", align_corners=False)
        return heatmaps

    def _joined(self, films: Tensor) -> Tensor:
        """All features at stride 4; a function of its own, so that what it joins is gone before the head runs."""
        finest, *coarser = self.backbone(films)
        raised = [raiser(features) for raiser, features in zip(self.raisers, coarser, strict=True)]
        return torch.cat([finest, *raised], dim=1)


def model_names() -> tuple[str, ...]:
    """The names that `HeatmapNetwork` takes: aliases and every HRNet of timm."""
    import timm

    return (*ALIASES, *timm.list_models("hrnet*"))


def full_name(model: str) -> str:
    """The timm name of a model.

    Raises:
        UsageError: no HRNet has this name; names the nearest.

    """
    name = ALIASES.get(model, model)
    if name not in model_names():
        nearest = ", ".join(difflib.get_close_matches(model, model_names(), 3, cutoff=0.3)) or "hrnet_w32"
        raise UsageError(f"no HRNet is called '{model}'; the nearest are {nearest}.")
    return name


def load_weights(network: HeatmapNetwork, model: str, source: str) -> str:
    """Give a network weights to start from; it is only here that the internet may be asked.

    Args:
        network: on any device; changed in place.
        model: its name, to find the ImageNet weights of its backbone.
        source: `none`; `imagenet`, or fail; `auto`, ImageNet if it answers within 5 s; or a checkpoint or safetensors
            file.

    Returns:
        One sentence of what was loaded, or why nothing was.

    Raises:
        DataError: a file that is no checkpoint of this network, or ImageNet weights that cannot be had.

    """
    if source == "none":
        return "Weights: random."
    if source not in ("auto", "imagenet"):
        return _load_file(network, Path(source))
    name = full_name(model)
    try:
        state = _for_grey(_imagenet_weights(name), network.backbone.state_dict())
        network.backbone.load_state_dict(state)
    except Exception as error:  # whatever the hub client raises; the reason is passed on
        reason = f"the ImageNet weights of {name} could not be had ({_first_line(error)})"
        if source == "imagenet":
            raise DataError(f"{reason}; use --weights none or --weights FILE.") from None
        return f"Weights: random, for {reason}; expect slower learning."
    return f"Weights: ImageNet, {name}."


def _backbone(model: str) -> Any:
    import timm

    return timm.create_model(
        full_name(model), features_only=True, feature_location="", out_indices=(1, 2, 3, 4), in_chans=1
    )


def _imagenet_weights(name: str) -> dict[str, Tensor]:
    """The state of timm's pretrained model of colour pictures.

    A thread asks, for name look-ups take no time limit. It only downloads: a network built there would draw random
    numbers while training already does.
    """
    found: dict[str, Any] = {}
    thread = threading.Thread(target=_ask_hub, args=(name, found), daemon=True)
    thread.start()
    thread.join(HUB_PATIENCE_S)
    if "state" not in found:
        raise found.get("error") or TimeoutError(f"no answer within {HUB_PATIENCE_S:.0f} s")
    state: dict[str, Tensor] = found["state"]
    return state


def _ask_hub(name: str, found: dict[str, Any]) -> None:
    from timm.models import get_pretrained_cfg, load_state_dict_from_hf

    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # its retries are ours to report, once
    try:
        config: Any = get_pretrained_cfg(name)
        found["state"] = load_state_dict_from_hf(config.hf_hub_id, weights_only=True)
    except Exception as error:  # handed to the thread that waits
        found["error"] = error


def _for_grey(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights for one grey channel: a grey picture is three equal colours, so the first kernels add up."""
    grey = {**state, "conv1.weight": state["conv1.weight"].sum(dim=1, keepdim=True)}
    return {key: grey[key] for key in wanted}


def _load_file(network: HeatmapNetwork, path: Path) -> str:
    state = read_state(path)
    mine = network.state_dict()
    fitting = {key: value for key, value in state.items() if key in mine and mine[key].shape == value.shape}
    wanted = [key for key in mine if key.startswith("backbone.")]
    missing = [key for key in wanted if key not in fitting]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(wanted)} backbone weights do not fit this model (first: '{missing[0]}'); "
            "use a checkpoint of the same --model."
        )
    network.load_state_dict(fitting, strict=False)
    left = len(mine) - len(fitting)
    return f"Weights: {path}" + (f", but for {left} of the head that differ in shape." if left else ".")


def read_state(path: Path) -> Mapping[str, Tensor]:
    """The weights of a checkpoint or safetensors file, the averaged ones where it has them.

    Raises:
        DataError: no such file, or none of weights.

    """
    try:
        content = _load(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such weights file; use auto, imagenet, none or a checkpoint.") from None
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(f"{path}: not a readable checkpoint ({_first_line(error)}).") from None
    state = content.get("average") or content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path}: holds no weights under 'model'; use a checkpoint made by `vramfit train`.")
    return state


def _load(path: Path) -> Any:
    """What a checkpoint or a safetensors file holds; neither runs code when it is opened."""
    if path.suffix.lower() != ".safetensors":
        return torch.load(path, map_location="cpu", weights_only=True)
    from safetensors.torch import load

    return load(path.read_bytes())


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
