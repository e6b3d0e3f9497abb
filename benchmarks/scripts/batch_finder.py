"""Finds the batch size by doubling until CUDA runs out of memory, then trains with it."""

import argparse
import gc
import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset


class Blobs(Dataset):
    def __init__(self, n=20000):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return torch.rand(3, 112, 112), i % 10


class ConvNeXtish(nn.Module):
    class Block(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.dw = nn.Conv2d(d, d, 7, padding=3, groups=d)
            self.norm = nn.LayerNorm(d)
            self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
            self.gamma = nn.Parameter(1e-6 * torch.ones(d))

        def forward(self, x):
            y = self.norm(self.dw(x).permute(0, 2, 3, 1))
            y = self.gamma * self.down(F.gelu(self.up(y)))
            return x + y.permute(0, 3, 1, 2)

    def __init__(self, dim=96, depth=4, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 4, 4)
        self.blocks = nn.Sequential(*[self.Block(dim) for _ in range(depth)])
        self.head = nn.Linear(dim, classes)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean([2, 3]))


def find_batch_size(model, device, start=8, limit=2**16):
    """Double until it fails, then back off by 20 %."""
    bs = start
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    while bs <= limit:
        try:
            x = torch.rand(bs, 3, 112, 112, device=device)
            y = torch.randint(0, 10, (bs,), device=device)
            for _ in range(2):
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
            print(f"batch {bs} ok, peak {torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB")
            bs *= 2
        except RuntimeError as e:
            if "out of memory" not in str(e):
                raise
            print(f"batch {bs} failed")
            break
        finally:
            x = y = None
            optimizer.zero_grad(set_to_none=True)
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
    return max(1, int(bs / 2 * 0.8))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--batch_size", type=str, default="auto")
    ap.add_argument("--epochs", type=int, default=3)
    ap.add_argument("--target_batch", type=int, default=512)
    args = ap.parse_args()
    device = torch.device("cuda:0")
    total = torch.cuda.get_device_properties(device).total_memory
    print(f"{total / 2**30:.1f} GiB on {torch.cuda.get_device_name(device)}")
    model = ConvNeXtish().to(device)
    bs = find_batch_size(model, device) if args.batch_size == "auto" else int(args.batch_size)
    accum = max(1, math.ceil(args.target_batch / bs))
    print(f"using batch size {bs} with {accum} accumulation steps")
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader = DataLoader(Blobs(), batch_size=bs, shuffle=True, num_workers=2)
    for epoch in range(args.epochs):
        for i, (x, y) in enumerate(loader):
            x, y = x.to(device), y.to(device)
            loss = F.cross_entropy(model(x), y) / accum
            loss.backward()
            if (i + 1) % accum == 0:
                opt.step()
                opt.zero_grad()
        print(epoch, loss.item() * accum)


if __name__ == "__main__":
    main()
