"""Mask detection in the style of torchvision's references/detection: a COCO-like set, aspect-ratio groups."""

import argparse
import math
import sys
from pathlib import Path

import torch
import torchvision
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.transforms import v2


class Shapes(Dataset):
    def __init__(self, count, transforms):
        self.count, self.transforms = count, transforms

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        height, width = (128, 160) if index % 2 else (160, 128)
        image = torch.randint(0, 255, (3, height, width), dtype=torch.uint8, generator=generator)
        boxes, masks = [], torch.zeros(2, height, width, dtype=torch.uint8)
        for number in range(2):
            x, y = (int(torch.randint(0, 60, (1,), generator=generator)) for _ in range(2))
            boxes.append([x, y, x + 40, y + 50])
            masks[number, y : y + 50, x : x + 40] = 1
        target = {
            "boxes": torch.tensor(boxes, dtype=torch.float32),
            "labels": torch.tensor([1, 2]),
            "masks": masks,
            "image_id": index,
            "iscrowd": torch.zeros(2, dtype=torch.int64),
        }
        return self.transforms(image), target


class GroupedBatches(BatchSampler):
    """Batches of images that are all tall, or all wide."""

    def __iter__(self):
        waiting = {0: [], 1: []}
        for index in self.sampler:
            group = waiting[index % 2]
            group.append(index)
            if len(group) == self.batch_size:
                yield list(group)
                group.clear()

    def __len__(self):
        return len(self.sampler) // self.batch_size


def collate(batch):
    return tuple(zip(*batch, strict=False))


def reduced(losses):
    return {name: loss.detach() for name, loss in losses.items()}


def train_one_epoch(model, optimizer, loader, device, epoch, scaler):
    model.train()
    warm_up = None
    if epoch == 0:
        warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, total_iters=min(100, len(loader) - 1))
    for images, targets in loader:
        images = [image.to(device) for image in images]
        targets = [
            {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in one.items()}
            for one in targets
        ]
        with torch.amp.autocast("cuda", enabled=scaler is not None):
            losses = model(images, targets)
            total = sum(losses.values())
        value = sum(reduced(losses).values()).item()
        if not math.isfinite(value):
            print(f"Loss is {value}, stopping training")
            sys.exit(1)
        optimizer.zero_grad()
        if scaler is not None:
            scaler.scale(total).backward()
            scaler.step(optimizer)
            scaler.update()
        else:
            total.backward()
            optimizer.step()
        if warm_up is not None:
            warm_up.step()


@torch.inference_mode()
def evaluate(model, loader, device):
    model.eval()
    found = {}
    for images, targets in loader:
        outputs = model([image.to(device) for image in images])
        outputs = [{name: value.to("cpu") for name, value in one.items()} for one in outputs]
        for target, output in zip(targets, outputs, strict=False):
            keep = output["scores"] > 0.5
            iou = torchvision.ops.box_iou(output["boxes"][keep], target["boxes"])
            found[target["image_id"]] = iou.max().item() if iou.numel() else 0.0
    return sum(found.values()) / max(1, len(found))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-b", "--batch-size", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--output-dir", type=Path, default=Path("detection"))
    args = parser.parse_args()
    args.output_dir.mkdir(exist_ok=True)
    device = torch.device("cuda")
    transforms = v2.Compose([v2.ToDtype(torch.float32, scale=True)])
    data = Shapes(24, transforms)
    loader = DataLoader(
        data,
        batch_sampler=GroupedBatches(RandomSampler(data), args.batch_size, True),
        num_workers=4,
        collate_fn=collate,
    )
    test_loader = DataLoader(Shapes(4, transforms), 1, num_workers=4, collate_fn=collate)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3, min_size=160, max_size=256)
    model.to(device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.02 / 8 * args.batch_size, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [16, 22])
    scaler = torch.amp.GradScaler() if args.amp else None
    for epoch in range(args.epochs):
        train_one_epoch(model, optimizer, loader, device, epoch, scaler)
        scheduler.step()
        torch.save({"model": model.state_dict(), "epoch": epoch}, args.output_dir / f"model_{epoch}.pth")
        print(epoch, evaluate(model, test_loader, device))


if __name__ == "__main__":
    main()
