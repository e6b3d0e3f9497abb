"""Detection in the style of torchvision's reference: Faster R-CNN, targets as dicts, warm-up, metric logger."""

import argparse
import math
import sys

import torch
import torchvision
from torch.utils.data import DataLoader, Dataset


class Shapes(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        corner = torch.rand(4, 2, generator=generator) * 200
        boxes = torch.cat([corner, corner + 20 + torch.rand(4, 2, generator=generator) * 80], dim=1)
        target = {
            "boxes": boxes,
            "labels": torch.randint(1, 5, (4,), generator=generator),
            "image_id": index,
            "area": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
            "iscrowd": torch.zeros(4, dtype=torch.int64),
        }
        return torch.rand(3, 320, 320, generator=generator), target


def collate_fn(batch):
    return tuple(zip(*batch, strict=True))


def reduce_dict(losses):
    return {k: v.detach() for k, v in losses.items()}


def train_one_epoch(model, optimizer, loader, device, epoch, scaler=None):
    model.train()
    warmup = None
    if epoch == 0:
        iters = min(1000, len(loader) - 1)
        warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0 / 1000, total_iters=iters)
    for images, targets in loader:
        images = [image.to(device) for image in images]
        targets = [{k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in t.items()} for t in targets]
        with torch.amp.autocast("cuda", enabled=scaler is not None):
            loss_dict = model(images, targets)
            losses = sum(loss for loss in loss_dict.values())
        value = sum(reduce_dict(loss_dict).values()).item()
        if not math.isfinite(value):
            print(f"Loss is {value}, stopping training")
            sys.exit(1)
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        if warmup is not None:
            warmup.step()
        print("loss", value, "max mem", torch.cuda.max_memory_allocated() / 1024.0**2)


@torch.inference_mode()
def evaluate(model, loader, device):
    model.eval()
    cpu = torch.device("cpu")
    for images, _ in loader:
        images = [image.to(device) for image in images]
        torch.cuda.synchronize()
        outputs = [{k: v.to(cpu) for k, v in t.items()} for t in model(images)]
        print("boxes", [len(output["boxes"]) for output in outputs])


def main(args):
    device = torch.device(args.device)
    loader = DataLoader(Shapes(), args.batch_size, shuffle=True, num_workers=args.workers, collate_fn=collate_fn)
    model = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    model.to(device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=args.lr, momentum=0.9, weight_decay=1e-4)
    for epoch in range(args.epochs):
        train_one_epoch(model, optimizer, loader, device, epoch)
        evaluate(model, loader, device)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("-b", "--batch-size", default=2, type=int)
    parser.add_argument("--epochs", default=2, type=int)
    parser.add_argument("-j", "--workers", default=4, type=int)
    parser.add_argument("--lr", default=0.02, type=float)
    main(parser.parse_args())
