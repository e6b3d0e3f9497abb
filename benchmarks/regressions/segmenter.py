"""An encoder and decoder for segmentation, trained with AdamW in half precision: what regressions are planted in."""

import torch
from torch import Tensor, nn
from torch.nn import functional

import vramfit

WIDTH = 32
SIDE = 96


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.first(x)), inplace=True)
        return functional.relu(self.second(x), inplace=True)


class Segmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([Block(3, WIDTH), Block(WIDTH, 2 * WIDTH), Block(2 * WIDTH, 4 * WIDTH)])
        self.decoder = nn.ModuleList([Block(6 * WIDTH, 2 * WIDTH), Block(3 * WIDTH, WIDTH)])
        self.head = nn.Conv2d(WIDTH, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = functional.interpolate(skips.pop(), scale_factor=1)
        for block in self.decoder:
            x = functional.interpolate(x, scale_factor=2)
            x = block(torch.cat([x, skips.pop()], 1))
        return self.head(x)


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets)


def batch(n: int) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 3, SIDE, SIDE), torch.zeros(n, SIDE, SIDE, dtype=torch.int64)


def job() -> vramfit.Job:
    return vramfit.Job(
        model=Segmenter,
        batch=batch,
        loss=loss,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        amp="fp16",
    )
