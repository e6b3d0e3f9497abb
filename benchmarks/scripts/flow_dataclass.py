"""Nested dataclass config from `--train.batch_size 32 --model.width 256`; RealNVP on tabular data, memory summary, nvidia-smi."""

import dataclasses
import math
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn as nn


@dataclass
class ModelCfg:
    dim: int = 64
    width: int = 512
    couplings: int = 8


@dataclass
class TrainCfg:
    batch_size: int = 512
    lr: float = 1e-3
    steps: int = 2000
    val_every: int = 3
    min_memory_gb: float = 4.0


@dataclass
class Cfg:
    model: ModelCfg = field(default_factory=ModelCfg)
    train: TrainCfg = field(default_factory=TrainCfg)
    out: str = "flow.pkl"


def parse(cls, argv):
    cfg = cls()
    it = iter(argv)
    for word in it:
        key, _, value = word.removeprefix("--").partition("=")
        value = value or next(it)
        node = cfg
        *path, last = key.split(".")
        for p in path:
            node = getattr(node, p)
        kinds = {f.name: f.type for f in dataclasses.fields(node)}
        if last not in kinds:
            sys.exit(f"unknown option --{key}")
        setattr(node, last, kinds[last](value))
    return cfg


class Coupling(nn.Module):
    def __init__(self, dim, width, flip):
        super().__init__()
        self.flip, self.half = flip, dim // 2
        self.net = nn.Sequential(
            nn.Linear(self.half, width),
            nn.LeakyReLU(0.1),
            nn.Linear(width, width),
            nn.LeakyReLU(0.1),
            nn.Linear(width, dim),
        )

    def forward(self, x):
        a, b = x.chunk(2, 1)
        if self.flip:
            a, b = b, a
        s, t = self.net(a).chunk(2, 1)
        s = torch.tanh(s)
        b = b * s.exp() + t
        return torch.cat((b, a) if self.flip else (a, b), 1), s.sum(1)


class RealNVP(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.layers = nn.ModuleList(Coupling(cfg.dim, cfg.width, i % 2 == 1) for i in range(cfg.couplings))
        self.register_buffer("mean", torch.zeros(cfg.dim))
        self.register_buffer("cov", torch.eye(cfg.dim))

    def log_prob(self, x):
        logdet = 0
        for layer in self.layers:
            x, ld = layer(x)
            logdet = logdet + ld
        return torch.distributions.MultivariateNormal(self.mean, self.cov).log_prob(x) + logdet


def report_gpu(cfg):
    if not torch.cuda.is_available():
        print("CUDA not available, aborting", file=sys.stderr)
        sys.exit(1)
    props = torch.cuda.get_device_properties(0)
    print(
        f"{props.name}: {props.total_memory / 1e9:.1f} GB, sm_{props.major}{props.minor}, {props.multi_processor_count} SMs"
    )
    if props.total_memory / 1e9 < cfg.train.min_memory_gb:
        sys.exit("need a larger GPU")
    if shutil.which("nvidia-smi"):
        out = subprocess.check_output(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader"], text=True)
        print("used:", out.strip())


def main():
    cfg = parse(Cfg, sys.argv[1:])
    report_gpu(cfg)
    dev = torch.device("cuda", 0)
    rng = np.random.default_rng(0)
    data = torch.as_tensor(
        rng.normal(size=(50_000, cfg.model.dim)) @ rng.normal(size=(cfg.model.dim, cfg.model.dim)), dtype=torch.float32
    )
    mu, sd = data.mean(0), data.std(0)
    data = ((data - mu) / sd).to(dev)
    val, train = data[:2000], data[2000:]
    flow = RealNVP(cfg.model).to(dev)
    opt = torch.optim.NAdam(flow.parameters(), lr=cfg.train.lr)
    best = math.inf
    for step in range(1, cfg.train.steps + 1):
        index = torch.randint(0, len(train), (cfg.train.batch_size,), device=dev)
        loss = -flow.log_prob(train[index]).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % cfg.train.val_every == 0:
            with torch.no_grad():
                nll = -flow.log_prob(val).mean().item()
            if nll < best:
                best = nll
                with open(cfg.out, "wb") as f:
                    pickle.dump({k: v.cpu().numpy() for k, v in flow.state_dict().items()}, f)
            print(
                f"{step} train {loss.item():.3f} val {nll:.3f} alloc {torch.cuda.memory_allocated() / 2**20:.1f} MiB peak {torch.cuda.max_memory_allocated() / 2**20:.1f} MiB"
            )
    print(torch.cuda.memory_summary(abbreviated=True))


if __name__ == "__main__":
    main()
