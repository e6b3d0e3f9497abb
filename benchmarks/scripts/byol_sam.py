"""BYOL with a SAM optimizer (two forward-backward passes a step) and a momentum target; two views per image."""

import argparse
import copy
import math
import os

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import models
from torchvision.transforms import v2


class SAM(torch.optim.Optimizer):
    def __init__(self, params, base_optimizer, rho=0.05, **kwargs):
        defaults = dict(rho=rho, **kwargs)
        super(SAM, self).__init__(params, defaults)
        self.base_optimizer = base_optimizer(self.param_groups, **kwargs)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self, zero_grad=False):
        norm = self._grad_norm()
        for group in self.param_groups:
            scale = group["rho"] / (norm + 1e-12)
            for p in group["params"]:
                if p.grad is None:
                    continue
                self.state[p]["old_p"] = p.data.clone()
                p.add_(p.grad * scale.to(p))
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad=False):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.data = self.state[p]["old_p"]
        self.base_optimizer.step()
        if zero_grad:
            self.zero_grad()

    def _grad_norm(self):
        shared_device = self.param_groups[0]["params"][0].device
        return torch.norm(
            torch.stack(
                [
                    p.grad.norm(p=2).to(shared_device)
                    for g in self.param_groups
                    for p in g["params"]
                    if p.grad is not None
                ]
            ),
            p=2,
        )


class TwoViews(Dataset):
    def __init__(self, n=256):
        self.n = n
        self.aug = v2.Compose(
            [v2.RandomResizedCrop(96, scale=(0.2, 1.0)), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.2, 0.1)]
        )

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        img = torch.rand(3, 112, 112, generator=torch.Generator().manual_seed(i))
        return [self.aug(img), self.aug(img)]


def mlp(i, h, o):
    return nn.Sequential(nn.Linear(i, h), nn.BatchNorm1d(h), nn.ReLU(inplace=True), nn.Linear(h, o))


class BYOL(nn.Module):
    def __init__(self, momentum=0.996):
        super().__init__()
        backbone = models.resnet18(weights=None)
        backbone.fc = nn.Identity()
        self.online = nn.Sequential(backbone, mlp(512, 1024, 128))
        self.target = copy.deepcopy(self.online)
        self.predictor = mlp(128, 512, 128)
        self.m = momentum
        for p in self.target.parameters():
            p.requires_grad = False

    @torch.no_grad()
    def update_target(self):
        for o, t in zip(self.online.parameters(), self.target.parameters()):
            t.data.mul_(self.m).add_(o.data, alpha=1 - self.m)

    def forward(self, views):
        x = torch.cat(views, dim=0)
        p1, p2 = self.predictor(self.online(x)).chunk(2)
        with torch.no_grad():
            z1, z2 = self.target(x).chunk(2)
        loss = lambda p, z: 2 - 2 * F.cosine_similarity(p, z.detach(), dim=-1).mean()
        return loss(p1, z2) + loss(p2, z1)


def main(args):
    torch.backends.cudnn.benchmark = True
    model = BYOL().cuda(args.device)
    loader = DataLoader(TwoViews(), batch_size=args.bs, shuffle=True, drop_last=True, num_workers=args.nw)
    optimizer = SAM(
        filter(lambda p: p.requires_grad, model.parameters()),
        torch.optim.SGD,
        lr=args.lr,
        momentum=0.9,
        weight_decay=1e-4,
    )
    total = args.epochs * len(loader)
    it = 0
    for epoch in range(args.epochs):
        for views in loader:
            views = [v.cuda(args.device, non_blocking=True) for v in views]
            model.m = 1 - (1 - 0.996) * (math.cos(math.pi * it / total) + 1) / 2
            loss = model(views)
            loss.backward()
            optimizer.first_step(zero_grad=True)
            model(views).backward()
            optimizer.second_step(zero_grad=True)
            model.update_target()
            it += 1
            print(f"{epoch} {it} {loss.item():.4f} {torch.cuda.max_memory_reserved() >> 20}MB")
        os.makedirs(args.out, exist_ok=True)
        torch.save(model.online[0].state_dict(), os.path.join(args.out, "backbone.pth"))


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--bs", type=int, default=32)
    ap.add_argument("--nw", type=int, default=8)
    ap.add_argument("--lr", type=float, default=0.05)
    ap.add_argument("--epochs", type=int, default=100)
    ap.add_argument("--device", type=int, default=0)
    ap.add_argument("--out", default="runs/byol")
    main(ap.parse_args())
