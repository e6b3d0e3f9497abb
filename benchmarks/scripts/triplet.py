# -*- coding: utf-8 -*-
"""Siamese embedding with batch-hard triplets; P x K sampler; recall@1 with torch on the GPU; plain Config class."""

import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, Sampler


class Config:
    P = 12  # identities per batch
    K = 4  # images per identity
    emb_dim = 128
    margin = 0.3
    lr = 3.5e-4
    epochs = 20
    device = "cuda:0"
    image_size = (128, 64)
    ckpt_dir = "checkpoints"
    log_every = 1


class PersonReid(Dataset):
    def __init__(self, ids, per_id):
        self.items = [(i, j) for i in range(ids) for j in range(per_id)]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        pid, cam = self.items[index]
        g = torch.Generator().manual_seed(pid * 1000 + cam)
        return torch.rand(3, *Config.image_size, generator=g), pid, cam


class RandomIdentitySampler(Sampler):
    def __init__(self, dataset, p, k):
        self.p, self.k = p, k
        self.index = {}
        for n, (pid, _) in enumerate(dataset.items):
            self.index.setdefault(pid, []).append(n)

    def __iter__(self):
        pids = list(self.index)
        random.shuffle(pids)
        for start in range(0, len(pids) - self.p + 1, self.p):
            batch = []
            for pid in pids[start : start + self.p]:
                batch.extend(random.sample(self.index[pid], self.k))
            yield batch

    def __len__(self):
        return len(self.index) // self.p


class EmbeddingNet(nn.Module):
    def __init__(self, dim):
        super().__init__()

        def stage(i, o):
            return nn.Sequential(
                nn.Conv2d(i, o, 3, padding=1), nn.InstanceNorm2d(o, affine=True), nn.PReLU(), nn.MaxPool2d(2)
            )

        self.backbone = nn.Sequential(stage(3, 32), stage(32, 64), stage(64, 128), stage(128, 256))
        self.bnneck = nn.BatchNorm1d(256)
        self.fc = nn.Linear(256, dim)

    def forward(self, x):
        f = F.adaptive_max_pool2d(self.backbone(x), 1).flatten(1)
        return F.normalize(self.fc(self.bnneck(f)))


def euclidean_dist(x, y):
    m, n = x.size(0), y.size(0)
    xx = torch.pow(x, 2).sum(1, keepdim=True).expand(m, n)
    yy = torch.pow(y, 2).sum(1, keepdim=True).expand(n, m).t()
    dist = xx + yy - 2 * torch.matmul(x, y.t())
    return dist.clamp(min=1e-12).sqrt()


def hard_example_mining(dist_mat, labels):
    N = dist_mat.size(0)
    is_pos = labels.expand(N, N).eq(labels.expand(N, N).t())
    is_neg = labels.expand(N, N).ne(labels.expand(N, N).t())
    dist_ap, _ = torch.max(dist_mat[is_pos].contiguous().view(N, -1), 1, keepdim=True)
    dist_an, _ = torch.min(dist_mat[is_neg].contiguous().view(N, -1), 1, keepdim=True)
    return dist_ap.squeeze(1), dist_an.squeeze(1)


def train_epoch(net, loader, optimizer, epoch):
    net.train()
    ranking = nn.MarginRankingLoss(margin=Config.margin)
    for step, (imgs, pids, _) in enumerate(loader):
        imgs, pids = imgs.to(Config.device), pids.to(Config.device)
        emb = net(imgs)
        ap, an = hard_example_mining(euclidean_dist(emb, emb), pids)
        y = an.new().resize_as_(an).fill_(1)
        loss = ranking(an, ap, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % Config.log_every == 0:
            frac = (an > ap).float().mean().item()
            print(f"epoch {epoch} step {step} loss {loss.item():.4f} easy {frac:.3f}")


def recall_at_1(net, loader):
    net.eval()
    embs, labels = [], []
    with torch.inference_mode():
        for imgs, pids, _ in loader:
            embs.append(net(imgs.to(Config.device)))
            labels.append(pids)
    embs, labels = torch.cat(embs), torch.cat(labels).numpy()
    dist = torch.cdist(embs, embs)
    dist.fill_diagonal_(float("inf"))
    nearest = dist.argmin(1).cpu().numpy()
    return float((labels[nearest] == labels).mean())


def main():
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    Path(Config.ckpt_dir).mkdir(parents=True, exist_ok=True)
    train_set, query = PersonReid(60, 8), PersonReid(20, 4)
    loader = DataLoader(train_set, batch_sampler=RandomIdentitySampler(train_set, Config.P, Config.K), num_workers=4)
    eval_loader = DataLoader(query, batch_size=32, num_workers=4)
    net = EmbeddingNet(Config.emb_dim).to(Config.device)
    optimizer = torch.optim.Adam(net.parameters(), lr=Config.lr, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [10, 15])
    best = -1
    for epoch in range(Config.epochs):
        t = time.time()
        train_epoch(net, loader, optimizer, epoch)
        scheduler.step()
        r1 = recall_at_1(net, eval_loader)
        print(f"epoch {epoch}: R@1 {r1:.3f} ({time.time() - t:.1f}s)")
        if r1 > best:
            best = r1
            torch.save(net, f"{Config.ckpt_dir}/best.pth")
            np.save(f"{Config.ckpt_dir}/best.npy", np.array([best]))


if __name__ == "__main__":
    main()
