"""Training entry point: a Trainer class with checkpoints, resume, EMA and TensorBoard."""

import argparse
import copy
import logging
import os
import random
import time

import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
logger = logging.getLogger(__name__)


def seed_everything(seed):
    random.seed(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


class SEBlock(nn.Module):
    def __init__(self, c, r=8):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(c, c // r), nn.ReLU(inplace=True), nn.Linear(c // r, c), nn.Sigmoid())

    def forward(self, x):
        w = self.fc(x.mean((2, 3)))
        return x * w[:, :, None, None]


class SEResBlock(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(i, o, 3, s, 1, bias=False),
            nn.BatchNorm2d(o),
            nn.ReLU(inplace=True),
            nn.Conv2d(o, o, 3, 1, 1, bias=False),
            nn.BatchNorm2d(o),
            SEBlock(o),
        )
        self.skip = nn.Identity() if i == o and s == 1 else nn.Conv2d(i, o, 1, s, bias=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.body(x) + self.skip(x))


class SEResNet(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True))
        self.layers = nn.Sequential(SEResBlock(32, 32, 1), SEResBlock(32, 64, 2), SEResBlock(64, 128, 2))
        self.head = nn.Linear(128, num_classes)

    def forward(self, x):
        return self.head(self.layers(self.stem(x)).mean((2, 3)))


class ModelEMA:
    def __init__(self, model, decay=0.9998):
        self.module = copy.deepcopy(model).eval()
        self.decay = decay
        for p in self.module.parameters():
            p.requires_grad_(False)

    @torch.no_grad()
    def update(self, model):
        msd = model.state_dict()
        for k, v in self.module.state_dict().items():
            if v.dtype.is_floating_point:
                v *= self.decay
                v += (1.0 - self.decay) * msd[k].detach()


class Trainer:
    def __init__(self, args):
        self.args = args
        if not torch.cuda.is_available():
            raise RuntimeError("CUDA is required")
        self.device = torch.device(f"cuda:{args.gpu}")
        torch.cuda.set_device(self.device)
        logger.info("Using %s", torch.cuda.get_device_name(self.device))
        self.model = SEResNet(args.num_classes).to(self.device)
        self.ema = ModelEMA(self.model)
        self.criterion = nn.CrossEntropyLoss().to(self.device)
        self.optimizer = optim.SGD(self.model.parameters(), lr=args.lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
        self.train_loader, self.val_loader = self.build_loaders()
        self.scheduler = OneCycleLR(self.optimizer, args.lr, total_steps=args.epochs * len(self.train_loader))
        self.writer = SummaryWriter(os.path.join(args.output_dir, "tb"))
        self.start_epoch, self.best_acc, self.global_step = 0, 0.0, 0
        last = os.path.join(args.output_dir, "last.pth")
        if args.resume and os.path.isfile(last):
            self.load(last)

    def build_loaders(self):
        n = self.args.num_samples
        x, y = torch.randn(n, 3, 64, 64), torch.randint(0, self.args.num_classes, (n,))
        split = int(n * 0.9)
        train = TensorDataset(x[:split], y[:split])
        val = TensorDataset(x[split:], y[split:])
        kw = dict(batch_size=self.args.batch_size, num_workers=self.args.workers, pin_memory=True)
        return DataLoader(train, shuffle=True, drop_last=True, **kw), DataLoader(val, **kw)

    def save(self, name):
        torch.save(
            {
                "epoch": self.epoch,
                "model": self.model.state_dict(),
                "ema": self.ema.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "best": self.best_acc,
            },
            os.path.join(self.args.output_dir, name),
        )

    def load(self, path):
        ckpt = torch.load(path, map_location=self.device)
        self.model.load_state_dict(ckpt["model"])
        self.ema.module.load_state_dict(ckpt["ema"])
        self.optimizer.load_state_dict(ckpt["optimizer"])
        self.scheduler.load_state_dict(ckpt["scheduler"])
        self.start_epoch, self.best_acc = ckpt["epoch"] + 1, ckpt["best"]
        logger.info("resumed from %s (epoch %d)", path, self.start_epoch)

    def train_one_epoch(self):
        self.model.train()
        tic, running = time.time(), 0.0
        for i, (images, target) in enumerate(self.train_loader):
            images = images.to(self.device, non_blocking=True)
            target = target.to(self.device, non_blocking=True)
            loss = self.criterion(self.model(images), target)
            if not torch.isfinite(loss):
                raise ValueError(f"loss is {loss.item()}")
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optimizer.step()
            self.scheduler.step()
            self.ema.update(self.model)
            running += loss.item()
            self.global_step += 1
            if i % 10 == 0:
                self.writer.add_scalar("train/loss", running / (i + 1), self.global_step)
                self.writer.add_scalar("train/lr", self.scheduler.get_last_lr()[0], self.global_step)
                logger.info("epoch %d [%d/%d] loss %.4f", self.epoch, i, len(self.train_loader), running / (i + 1))
        logger.info("epoch took %.1f s", time.time() - tic)

    @torch.no_grad()
    def validate(self):
        net = self.ema.module
        net.eval()
        correct = total = 0
        for images, target in self.val_loader:
            out = net(images.to(self.device))
            correct += (out.argmax(1).cpu() == target).sum().item()
            total += target.numel()
        return 100.0 * correct / total

    def fit(self):
        for self.epoch in range(self.start_epoch, self.args.epochs):
            self.train_one_epoch()
            acc = self.validate()
            self.writer.add_scalar("val/acc", acc, self.epoch)
            self.save("last.pth")
            if acc > self.best_acc:
                self.best_acc = acc
                self.save("best.pth")
            logger.info("epoch %d acc %.2f best %.2f", self.epoch, acc, self.best_acc)
        self.writer.close()


def parse_args():
    p = argparse.ArgumentParser()
    p.add_argument("--batch-size", "-b", default=64, type=int)
    p.add_argument("--epochs", default=10, type=int)
    p.add_argument("--lr", default=0.1, type=float)
    p.add_argument("--gpu", default=0, type=int)
    p.add_argument("--workers", "-j", default=4, type=int)
    p.add_argument("--num-classes", default=100, type=int)
    p.add_argument("--num-samples", default=600, type=int)
    p.add_argument("--output-dir", default="./output")
    p.add_argument("--resume", action="store_true")
    p.add_argument("--seed", default=42, type=int)
    return p.parse_args()


if __name__ == "__main__":
    args = parse_args()
    seed_everything(args.seed)
    os.makedirs(args.output_dir, exist_ok=True)
    Trainer(args).fit()
