"""Networks that the scripts beside this file train."""

import torch
from torch import nn


class ConvNet(nn.Module):
    def __init__(self, width=24, classes=10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class WideMlp(nn.Module):
    def __init__(self, features=512, hidden=1024, classes=10, depth=2):
        super().__init__()
        layers = [nn.Linear(features, hidden), nn.ReLU()]
        for _ in range(depth - 1):
            layers += [nn.Linear(hidden, hidden), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.out = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.out(self.body(x))


def images(n=8, size=32):
    return torch.randn(n, 3, size, size), torch.randint(0, 10, (n,))


def rows(n=64, features=512):
    return torch.randn(n, features), torch.randint(0, 10, (n,))
