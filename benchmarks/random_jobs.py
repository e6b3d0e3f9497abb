"""Small networks, losses and batches drawn at random, for `adversarial.py`: what people write, and odder things.

B batch, D features, H W pixels. A seed gives the same job every time.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vramfit.jobs.job import Job

CLASSES = 7


class Function(nn.Module):
    """A function of a BxD tensor, as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Its function of x."""
        return self.function(x)


class Branches(nn.Module):
    """The sum, product or concatenation of several ways through."""

    def __init__(self, how: str, *ways: nn.Module) -> None:
        super().__init__()
        self.how, self.ways = how, nn.ModuleList(ways)

    def forward(self, x: Tensor) -> Tensor:
        """The branches, put together."""
        results = [way(x) for way in self.ways]
        if self.how == "cat":
            return torch.cat(results, 1)
        if self.how == "add_":
            total = results[0].clone()
            for result in results[1:]:
                total += result
            return total
        return results[0] * results[1].sigmoid() if self.how == "gate" else torch.stack(results).mean(0)


class Checkpointed(nn.Module):
    """Keeps nothing of an inner module but its input."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """The inner module, recomputed in training."""
        return checkpoint(self.inner, x, use_reentrant=False) if self.training else self.inner(x)


class Attention(nn.Module):
    """Every sample attends to every other of the batch: BxB scores."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor) -> Tensor:
        """BxD -> BxD."""
        query, key, value = self.project(x).chunk(3, 1)
        return x + (query @ key.T).softmax(1) @ value


class FromSize(nn.Module):
    """Does more once the batch is large."""

    def __init__(self, inner: nn.Module, least: int) -> None:
        super().__init__()
        self.inner, self.least = inner, least

    def forward(self, x: Tensor) -> Tensor:
        """BxD -> BxD."""
        return x + self.inner(x) if len(x) >= self.least else x


def _most(x: Tensor) -> Tensor:
    kept = int(0.7 * len(x))
    return torch.cat([x[:kept] * 2, x[kept:].exp().clamp(max=9)])


def _pairs(x: Tensor) -> Tensor:
    one, other = x.view(2, -1, x.shape[1])
    return torch.cat([one * other, one - other])


def _cut(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, ::2] *= 0.5
    y[:, 1:].add_(1).relu_()
    return y


# Of a BxD tensor; each keeps its shape.
PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "relu_": lambda x: (x + 1).relu_(),
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu_": lambda x: F.silu(x * 1.0, inplace=True),
    "leaky_": lambda x: F.leaky_relu(x + 0.1, inplace=True),
    "softmax": lambda x: x.softmax(1),
    "normalise": lambda x: F.normalize(x, dim=1),
    "standardise": lambda x: (x - x.mean(0)) / (x.std(0) + 1),
    "cut_in_place": _cut,
    "most_of_the_batch": _most,
    "pairs": _pairs,
    "sorted": lambda x: x.sort(1).values,
    "cumulated": lambda x: x.cumsum(1) / x.shape[1],
    "rolled": lambda x: x.roll(1, 0) + x,
    "where": lambda x: torch.where(x > 0, x, x.square()),
    "expanded": lambda x: x.unsqueeze(1).expand(-1, 4, -1).mean(1) * x,
    "repeated": lambda x: x.repeat(1, 3).view(len(x), 3, -1).amax(1),
    "transposed": lambda x: x.T.contiguous().T * 2,
    "padded": lambda x: F.pad(x, (1, 2))[:, 1:-2],
    "no_grad": lambda x: x + x.detach().square().sqrt(),
    "doubled": lambda x: x.double().sin().float(),
    "halved": lambda x: x.half().float() + x,
    "masked": lambda x: x.masked_fill(x < -1, 0.0),
    "indexed": lambda x: x[torch.arange(len(x) - 1, -1, -1, device=x.device)],
    "gathered": lambda x: x.gather(1, torch.zeros(x.shape, dtype=torch.long, device=x.device)) + x,
    "einsum": lambda x: torch.einsum("bi,bi,bj->bj", x, x, x) / 99,
    "similar": lambda x: x @ (x.T @ x).tanh() / 99,
}
# Of outputs BxD and classes B; of the batch in most ways that there are, squares among them.
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda o, t: F.cross_entropy(o[:, :CLASSES], t),
    "nll": lambda o, t: F.nll_loss(o[:, :CLASSES].log_softmax(1), t),
    "focal": lambda o, t: ((1 - (p := o[:, :CLASSES].softmax(1))) ** 2 * -p.log()).gather(1, t[:, None]).mean(),
    "contrastive": lambda o, t: F.cross_entropy(o @ o.T / 9, torch.arange(len(o), device=o.device)) + t.sum() * 0,
    "distances": lambda o, t: torch.cdist(o, o).add(1).log().mean() + t.sum() * 0,
    "differences": lambda o, t: (o[:, None, :9] - o[None, :, :9]).abs().mean() + t.sum() * 0,
    "outer_classes": lambda o, t: ((o @ o.T).sigmoid() - (t[:, None] == t).float()).square().mean(),
    "hinge": lambda o, t: (o[:, :CLASSES] - o.gather(1, t[:, None]) + 1).clamp(min=0).mean(),
    "best": lambda o, t: o.topk(3, 1).values.logsumexp(1).mean() + t.sum() * 0,
    "square_root": lambda o, t: (o.square().sum(1) + t).sqrt().mean(),
    "mean_square": lambda o, t: (o - t[:, None]).square().mean(),
    "two_losses": lambda o, t: F.cross_entropy(o[:, :CLASSES], t) + 0.1 * (o.T @ o).square().mean(),
    "half_batch": lambda o, t: F.cross_entropy(o[::2, :CLASSES], t[::2]) + o[1::2].abs().mean(),
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=1e-3),
    "momentum": partial(torch.optim.SGD, lr=1e-3, momentum=0.9, nesterov=True),
    "adamw": torch.optim.AdamW,
    "amsgrad": partial(torch.optim.Adam, amsgrad=True),
    "rmsprop": partial(torch.optim.RMSprop, momentum=0.5, centered=True),
    "adagrad": torch.optim.Adagrad,
}


@dataclass(frozen=True)
class Drawn:
    """A random job, the micro-batch to try it at, and what it is made of."""

    job: Job
    micro_batch: int
    parts: tuple[str, ...]


def draw(seed: int) -> Drawn:
    """The random job of a seed."""
    dice = random.Random(seed)
    images = dice.random() < 0.3
    width = dice.choice([64, 96, 256, 500])
    recipe = [dice.randrange(1 << 30) for _ in range(dice.randint(2, 5))]
    loss = dice.choice(sorted(LOSSES))
    names: list[str] = []
    build = partial(_network, recipe, width, images=images)
    torch.manual_seed(seed)
    build(names=names)
    way = dice.choice(["pair", "pair", "dict", "returned"])
    optimizer = dice.choice(sorted(OPTIMIZERS))
    job = Job(
        model=build,
        batch=partial(_batch, way, width, images=images),
        loss=partial(_loss, LOSSES[loss]),
        optimizer=OPTIMIZERS[optimizer],
        clip_norm=dice.choice([None, None, 1.0]),
        frozen=("first",) if dice.random() < 0.2 else (),
        amp=None,
        name=f"random {seed}",
    )
    if way == "returned":
        job = replace(job, model=partial(_returning, build, LOSSES[loss]), loss=None, frozen=())
    micro_batch = dice.choice([2, 6, 16, 34, 60] if images else [2, 10, 64, 150, 300])
    return Drawn(job, micro_batch, (way, optimizer, loss, *names))


def _batch(way: str, width: int, samples: int, *, images: bool) -> Any:
    generator = torch.Generator().manual_seed(samples)
    shape = (samples, 3, 32, 32) if images else (samples, width)
    x, y = torch.randn(shape, generator=generator), torch.randint(CLASSES, (samples,), generator=generator)
    return (x, y) if way == "pair" else {"x": x, "y": y}


def _loss(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Any) -> Tensor:
    return loss(outputs, targets["y"] if isinstance(targets, dict) else targets)


class _Returning(nn.Module):
    """A network that returns its loss."""

    def __init__(self, inner: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.loss = inner, loss

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Loss and logits."""
        outputs = self.inner(x)
        return {"loss": self.loss(outputs, y), "logits": outputs}


def _returning(build: Callable[[], nn.Module], loss: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    return _Returning(build(), loss)


class _Network(nn.Module):
    def __init__(self, first: nn.Module, rest: nn.Module) -> None:
        super().__init__()
        self.first, self.rest = first, rest

    def forward(self, x: Tensor) -> Tensor:
        """BxD outputs."""
        return self.rest(self.first(x))


def _network(recipe: list[int], width: int, *, images: bool, names: list[str] | None = None) -> nn.Module:
    names = [] if names is None else names
    first = _stem(random.Random(recipe[0]), width, names) if images else nn.Linear(width, width)
    blocks = [_block(random.Random(part), width, names, depth=2) for part in recipe]
    return _Network(first, nn.Sequential(*blocks, nn.Linear(width, width)))


def _stem(dice: random.Random, width: int, names: list[str]) -> nn.Module:
    """Bx3xHxW -> BxD by convolutions."""
    channels = dice.choice([8, 24])
    kind = dice.choice(["plain", "strided", "depthwise", "pooled", "up"])
    names.append(f"images {kind}")
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, stride=2 if kind == "strided" else 1)]
    layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=dice.random() < 0.5)]
    if kind == "depthwise":
        layers += [nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.GELU()]
    if kind == "pooled":
        layers += [nn.MaxPool2d(2), nn.Conv2d(channels, channels, 1), nn.Hardswish()]
    if kind == "up":
        layers += [
            nn.AvgPool2d(4),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(channels, channels, 3),
            nn.GroupNorm(4, channels),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, width))


def _block(dice: random.Random, width: int, names: list[str], *, depth: int) -> nn.Module:
    """A random BxD -> BxD."""
    kinds = ["plain", "plain", "plain", "linear", "norm", "batch norm", "attention"]
    kind = dice.choice(kinds if depth == 0 else [*kinds, "branches", "checkpoint", "from size"])
    inner = partial(_block, dice, width, names, depth=depth - 1)
    if kind == "plain":
        name = dice.choice(sorted(PLAIN))
        names.append(name)
        return nn.Sequential(nn.Linear(width, width), Function(PLAIN[name]))
    names.append(kind)
    if kind == "branches":
        how = dice.choice(["cat", "add_", "gate", "stack"])
        ways = Branches(how, inner(), inner())
        return nn.Sequential(ways, nn.Linear(2 * width, width)) if how == "cat" else ways
    made: dict[str, Callable[[], nn.Module]] = {
        "linear": lambda: nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)),
        "norm": lambda: nn.LayerNorm(width),
        "batch norm": lambda: nn.BatchNorm1d(width),
        "attention": lambda: Attention(width),
        "checkpoint": lambda: Checkpointed(nn.Sequential(inner(), inner())),
        "from size": lambda: FromSize(inner(), dice.choice([8, 40, 100])),
    }
    return made[kind]()
