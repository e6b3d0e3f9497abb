"""python -m segkit.train configs/unet.yaml [--options data.samples_per_gpu=8]"""

import argparse
import itertools
import json
import os
import os.path as osp
import time

import torch
import yaml
from torch.utils.data import DataLoader

from .registry import DATASETS, MODELS


def merge(a, b):
    for k, v in b.items():
        a[k] = merge(a[k], v) if isinstance(v, dict) and isinstance(a.get(k), dict) else v
    return a


def load_config(path):
    with open(path) as f:
        cfg = yaml.safe_load(f)
    if "_base_" in cfg:
        cfg = merge(load_config(osp.join(osp.dirname(path), cfg.pop("_base_"))), cfg)
    return cfg


class DictAction(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, dict(v.split("=", 1) for v in values))


def infinite(loader):
    while True:
        yield from loader


def parse_losses(losses):
    total = sum(v.mean() for v in losses.values())
    return total, {k: v.item() for k, v in losses.items()}


@torch.no_grad()
def evaluate(model, loader, num_classes):
    model.eval()
    hist = torch.zeros(num_classes, num_classes, device="cuda")
    for data in loader:
        pred, gt = model(data["img"].cuda()), data["gt"].cuda()
        valid = gt != 255
        idx = num_classes * gt[valid] + pred[valid]
        hist += torch.bincount(idx, minlength=num_classes**2).reshape(num_classes, num_classes)
    iou = hist.diag() / (hist.sum(0) + hist.sum(1) - hist.diag()).clamp(min=1)
    model.train()
    return iou.mean().item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("--work-dir")
    parser.add_argument("--options", nargs="+", action=DictAction, default={})
    args = parser.parse_args()
    cfg = load_config(args.config)
    for key, value in args.options.items():
        node = cfg
        *path, last = key.split(".")
        for p in path:
            node = node[p]
        node[last] = yaml.safe_load(value)
    work_dir = args.work_dir or cfg["work_dir"]
    os.makedirs(work_dir, exist_ok=True)
    with open(osp.join(work_dir, "config.yaml"), "w") as f:
        yaml.safe_dump(cfg, f)
    log = open(osp.join(work_dir, time.strftime("%Y%m%d_%H%M%S") + ".log.json"), "a")
    model = MODELS.build(cfg["model"]).cuda()
    opt_cfg = dict(cfg["optimizer"])
    optimizer = getattr(torch.optim, opt_cfg.pop("type"))(model.parameters(), **opt_cfg)
    data = cfg["data"]
    train_loader = DataLoader(
        DATASETS.build(data["train"]),
        data["samples_per_gpu"],
        shuffle=True,
        num_workers=data["workers_per_gpu"],
        drop_last=True,
    )
    val_loader = DataLoader(DATASETS.build(data["val"], test_mode=True), 1, num_workers=1)
    scaler = torch.amp.GradScaler("cuda", enabled=cfg["fp16"])
    runner = cfg["runner"]
    for it, batch in zip(itertools.count(1), infinite(train_loader)):
        with torch.amp.autocast("cuda", enabled=cfg["fp16"]):
            losses = model(batch["img"].cuda(), return_loss=True, gt=batch["gt"].cuda())
            loss, log_vars = parse_losses(losses)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if it % runner["log_interval"] == 0:
            log_vars.update(iter=it, loss=loss.item(), memory=int(torch.cuda.max_memory_allocated() / 1024**2))
            log.write(json.dumps(log_vars) + "\n")
            log.flush()
            print(log_vars)
        if it % runner["val_interval"] == 0:
            print("mIoU", evaluate(model, val_loader, cfg["model"]["num_classes"]))
            torch.save(model.state_dict(), osp.join(work_dir, f"iter_{it}.pth"))
        if it >= runner["max_iters"]:
            break


if __name__ == "__main__":
    main()
