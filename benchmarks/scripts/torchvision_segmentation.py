"""Segmentation in the style of torchvision's reference: FCN with an auxiliary loss, confusion matrix on the card."""

import argparse
from pathlib import Path

import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class ConfusionMatrix:
    def __init__(self, num_classes):
        self.num_classes, self.mat = num_classes, None

    def update(self, a, b):
        n = self.num_classes
        if self.mat is None:
            self.mat = torch.zeros((n, n), dtype=torch.int64, device=a.device)
        with torch.inference_mode():
            k = (a >= 0) & (a < n)
            inds = n * a[k].to(torch.int64) + b[k]
            self.mat += torch.bincount(inds, minlength=n**2).reshape(n, n)

    def compute(self):
        h = self.mat.float()
        return torch.diag(h).sum() / h.sum(), torch.diag(h) / (h.sum(1) + h.sum(0) - torch.diag(h))


def criterion(inputs, target):
    losses = {name: nn.functional.cross_entropy(x, target, ignore_index=255) for name, x in inputs.items()}
    return losses["out"] + 0.5 * losses["aux"]


def main(args):
    device = torch.device(args.device)
    data = TensorDataset(torch.rand(64, 3, 160, 160), torch.randint(0, 21, (64, 160, 160)))
    train = DataLoader(data, args.batch_size, shuffle=True, num_workers=args.workers, drop_last=True)
    test = DataLoader(data, 1, num_workers=args.workers)
    model = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True)
    model.to(device)
    groups = [
        {"params": [p for p in model.backbone.parameters() if p.requires_grad]},
        {"params": [p for p in model.classifier.parameters() if p.requires_grad]},
        {"params": [p for p in model.aux_classifier.parameters() if p.requires_grad], "lr": args.lr * 10},
    ]
    optimizer = torch.optim.SGD(groups, lr=args.lr, momentum=0.9, weight_decay=1e-4)
    scaler = torch.cuda.amp.GradScaler() if args.amp else None
    for epoch in range(args.epochs):
        model.train()
        for image, target in train:
            image, target = image.to(device), target.to(device)
            with torch.cuda.amp.autocast(enabled=scaler is not None):
                loss = criterion(model(image), target)
            optimizer.zero_grad()
            if scaler is not None:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            else:
                loss.backward()
                optimizer.step()
            print(epoch, loss.item(), optimizer.param_groups[0]["lr"])
        model.eval()
        matrix = ConfusionMatrix(21)
        with torch.inference_mode():
            for image, target in test:
                image, target = image.to(device), target.to(device)
                matrix.update(target.flatten(), model(image)["out"].argmax(1).flatten())
        print("global correct", matrix.compute()[0].item(), "mean IoU", matrix.compute()[1].mean().item())
        Path(args.output_dir).mkdir(exist_ok=True)
        torch.save({"model": model.state_dict(), "args": args}, Path(args.output_dir) / f"model_{epoch}.pth")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("-b", "--batch-size", default=4, type=int)
    parser.add_argument("--epochs", default=2, type=int)
    parser.add_argument("-j", "--workers", default=2, type=int)
    parser.add_argument("--lr", default=0.01, type=float)
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--output-dir", default="out")
    main(parser.parse_args())
