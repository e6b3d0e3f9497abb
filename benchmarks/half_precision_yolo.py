"""YOLOv5 n and m with four classes and YOLOv8 s with ten, as plain layers: what AutoBatch's tables were measured with.

The tables print the number of parameters, which says how many classes there were. B3HW images in, one tensor a scale
out.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn


class Conv(nn.Sequential):
    """Convolution, BatchNorm, SiLU in place."""

    def __init__(
        self, wide_in: int, wide_out: int, kernel: int = 1, stride: int = 1, padding: int | None = None
    ) -> None:
        super().__init__(
            nn.Conv2d(wide_in, wide_out, kernel, stride, kernel // 2 if padding is None else padding, bias=False),
            nn.BatchNorm2d(wide_out),
            nn.SiLU(inplace=True),
        )


class Bottleneck(nn.Module):
    """Two convolutions, added to their input where `shortcut`."""

    def __init__(self, wide: int, first: int, *, shortcut: bool) -> None:
        super().__init__()
        self.one, self.two = Conv(wide, wide, first), Conv(wide, wide, 3)
        self.shortcut = shortcut

    def forward(self, value: Tensor) -> Tensor:
        """BCHW to BCHW."""
        result: Tensor = self.two(self.one(value))
        return value + result if self.shortcut else result


class C3(nn.Module):
    """Bottlenecks on one half of the channels, a convolution on the other (YOLOv5)."""

    def __init__(self, wide_in: int, wide_out: int, depth: int, *, shortcut: bool = True) -> None:
        super().__init__()
        half = wide_out // 2
        self.one, self.two, self.out = Conv(wide_in, half), Conv(wide_in, half), Conv(2 * half, wide_out)
        self.inner = nn.Sequential(*(Bottleneck(half, 1, shortcut=shortcut) for _ in range(depth)))

    def forward(self, value: Tensor) -> Tensor:
        """BCHW to BDHW."""
        result: Tensor = self.out(torch.cat((self.inner(self.one(value)), self.two(value)), 1))
        return result


class C2f(nn.Module):
    """Bottlenecks one after the other, all of whose results are joined (YOLOv8)."""

    def __init__(self, wide_in: int, wide_out: int, depth: int, *, shortcut: bool = True) -> None:
        super().__init__()
        half = wide_out // 2
        self.one, self.out = Conv(wide_in, 2 * half), Conv((2 + depth) * half, wide_out)
        self.inner = nn.ModuleList(Bottleneck(half, 3, shortcut=shortcut) for _ in range(depth))

    def forward(self, value: Tensor) -> Tensor:
        """BCHW to BDHW."""
        parts = list(self.one(value).chunk(2, 1))
        for inner in self.inner:
            parts.append(inner(parts[-1]))
        result: Tensor = self.out(torch.cat(parts, 1))
        return result


class SPPF(nn.Module):
    """Three poolings one after the other, joined."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.one, self.out = Conv(wide, wide // 2), Conv(wide * 2, wide)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, value: Tensor) -> Tensor:
        """BCHW to BCHW."""
        parts = [self.one(value)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        result: Tensor = self.out(torch.cat(parts, 1))
        return result


Block = Callable[..., nn.Module]


class Yolo(nn.Module):
    """Backbone and two-way pyramid of YOLOv5 or YOLOv8; `wide` are the channels of strides 2 to 32."""

    def __init__(
        self, wide: tuple[int, ...], depth: tuple[int, ...], version: int, heads: Callable[..., nn.Module]
    ) -> None:
        super().__init__()
        block: Block = C3 if version == 5 else C2f
        stem = Conv(3, wide[0], 6, 2, 2) if version == 5 else Conv(3, wide[0], 3, 2)
        self.stem = nn.Sequential(stem, Conv(wide[0], wide[1], 3, 2), block(wide[1], wide[1], depth[0]))
        self.down = nn.ModuleList(
            nn.Sequential(Conv(wide[n], wide[n + 1], 3, 2), block(wide[n + 1], wide[n + 1], depth[n]))
            for n in (1, 2, 3)
        )
        self.pool = SPPF(wide[4])
        last, neck = version == 5, depth[0]
        # YOLOv5 narrows before it upsamples, and keeps what it narrowed for the way down.
        self.narrow = nn.ModuleList((Conv(wide[4], wide[3]), Conv(wide[3], wide[2])) if last else ())
        up = (wide[3] * 2, wide[2] * 2) if last else (wide[4] + wide[3], wide[3] + wide[2])
        self.up = nn.ModuleList(block(i, o, neck, shortcut=False) for i, o in zip(up, (wide[3], wide[2]), strict=True))
        self.again = nn.ModuleList((Conv(wide[2], wide[2], 3, 2), Conv(wide[3], wide[3], 3, 2)))
        back = (wide[2] * 2, wide[3] * 2) if last else (wide[2] + wide[3], wide[3] + wide[4])
        self.back = nn.ModuleList(block(i, o, neck, shortcut=False) for i, o in zip(back, wide[3:], strict=True))
        self.heads = heads(wide[2:])
        self.upsample = nn.Upsample(scale_factor=2.0, mode="nearest")

    def forward(self, image: Tensor) -> list[Tensor]:
        """One tensor of boxes and classes for each of strides 8, 16 and 32."""
        value, levels = self.stem(image), []
        for down in self.down:
            value = down(value)
            levels.append(value)
        value = self.pool(value)
        kept = [value]
        for number, up in enumerate(self.up):
            if self.narrow:
                value = kept[-1] = self.narrow[number](value)
            value = up(torch.cat((self.upsample(value), levels[1 - number]), 1))
            kept.append(value)
        scales = [value]
        for again, back, earlier in zip(self.again, self.back, (kept[1], kept[0]), strict=True):
            value = back(torch.cat((again(value), earlier), 1))
            scales.append(value)
        result: list[Tensor] = self.heads(scales)
        return result


class Anchored(nn.ModuleList):
    """YOLOv5's heads: a convolution a scale, three anchors each."""

    def __init__(self, classes: int, wide: tuple[int, ...]) -> None:
        super().__init__(nn.Conv2d(channels, 3 * (classes + 5), 1) for channels in wide)

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        """(B, 3, H, W, 5 + classes) a scale."""
        results = []
        for head, value in zip(self, scales, strict=True):
            out = head(value)
            results.append(out.unflatten(1, (3, -1)).permute(0, 1, 3, 4, 2).contiguous())
        return results


class Decoupled(nn.Module):
    """YOLOv8's heads: boxes as distributions of 16 bins a side, and classes, from convolutions of their own."""

    def __init__(self, classes: int, wide: tuple[int, ...]) -> None:
        super().__init__()
        boxes, kinds = max(16, wide[0] // 4, 64), max(wide[0], min(classes, 100))
        self.boxes = nn.ModuleList(self._head(channels, boxes, 64) for channels in wide)
        self.kinds = nn.ModuleList(self._head(channels, kinds, classes) for channels in wide)
        self.bins = nn.Conv2d(16, 1, 1, bias=False).requires_grad_(False)

    @staticmethod
    def _head(wide_in: int, wide: int, wide_out: int) -> nn.Sequential:
        return nn.Sequential(Conv(wide_in, wide, 3), Conv(wide, wide, 3), nn.Conv2d(wide, wide_out, 1))

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        """(B, 64 + classes, H, W) a scale."""
        heads = zip(self.boxes, self.kinds, scales, strict=True)
        return [torch.cat((boxes(value), kinds(value)), 1) for boxes, kinds, value in heads]


# Name -> (how the network is made, height and width of the images).
YOLO_MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "YOLOv5n": (partial(Yolo, (16, 32, 64, 128, 256), (1, 2, 3, 1), 5, partial(Anchored, 4)), 416),
    "YOLOv5m": (partial(Yolo, (48, 96, 192, 384, 768), (2, 4, 6, 2), 5, partial(Anchored, 4)), 416),
    "YOLOv8s": (partial(Yolo, (32, 64, 128, 256, 512), (1, 2, 2, 1), 8, partial(Decoupled, 10)), 640),
}
