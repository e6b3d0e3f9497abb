# Apex/DALI-era ImageNet script: data_prefetcher with a side stream, fast_collate, GradScaler with unscale_, CUDA events.
import argparse
import math
import shutil
import time

import numpy as np
import torch
import torch.backends.cudnn as cudnn
import torch.nn as nn
import torch.nn.parallel
import torch.utils.data
import torchvision.models as models
import torchvision.transforms as transforms
from PIL import Image

model_names = sorted(
    n for n in models.__dict__ if n.islower() and not n.startswith("__") and callable(models.__dict__[n])
)
parser = argparse.ArgumentParser(description="PyTorch ImageNet Training")
parser.add_argument("--arch", "-a", metavar="ARCH", default="resnet18", choices=model_names)
parser.add_argument("-j", "--workers", default=4, type=int, metavar="N")
parser.add_argument("--epochs", default=90, type=int)
parser.add_argument("-b", "--batch-size", default=32, type=int, metavar="N", help="mini-batch size per process")
parser.add_argument("--lr", "--learning-rate", default=0.1, type=float)
parser.add_argument("--print-freq", "-p", default=10, type=int)
parser.add_argument("--prof", default=-1, type=int)
args = parser.parse_args()
cudnn.benchmark = True
best_prec1 = 0
assert torch.cuda.is_available(), "this script needs a GPU"
assert torch.backends.cudnn.enabled, "Amp requires cudnn backend to be enabled."


class FakeImages(torch.utils.data.Dataset):
    def __init__(self, n, transform):
        self.n, self.transform = n, transform

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        img = Image.fromarray(np.random.RandomState(i).randint(0, 255, (160, 180, 3), dtype=np.uint8))
        return self.transform(img), i % 1000


def fast_collate(batch):
    imgs = [img[0] for img in batch]
    targets = torch.tensor([target[1] for target in batch], dtype=torch.int64)
    w, h = imgs[0].size
    tensor = torch.zeros((len(imgs), 3, h, w), dtype=torch.uint8)
    for i, img in enumerate(imgs):
        nump_array = np.rollaxis(np.array(img, dtype=np.uint8), 2)
        tensor[i] += torch.from_numpy(nump_array.copy())
    return tensor, targets


class data_prefetcher:
    def __init__(self, loader):
        self.loader = iter(loader)
        self.stream = torch.cuda.Stream()
        self.mean = torch.tensor([0.485 * 255, 0.456 * 255, 0.406 * 255]).cuda().view(1, 3, 1, 1)
        self.std = torch.tensor([0.229 * 255, 0.224 * 255, 0.225 * 255]).cuda().view(1, 3, 1, 1)
        self.preload()

    def preload(self):
        try:
            self.next_input, self.next_target = next(self.loader)
        except StopIteration:
            self.next_input = None
            self.next_target = None
            return
        with torch.cuda.stream(self.stream):
            self.next_input = self.next_input.cuda(non_blocking=True)
            self.next_target = self.next_target.cuda(non_blocking=True)
            self.next_input = self.next_input.float()
            self.next_input = self.next_input.sub_(self.mean).div_(self.std)

    def next(self):
        torch.cuda.current_stream().wait_stream(self.stream)
        input = self.next_input
        target = self.next_target
        if input is not None:
            input.record_stream(torch.cuda.current_stream())
        if target is not None:
            target.record_stream(torch.cuda.current_stream())
        self.preload()
        return input, target


class AverageMeter(object):
    def __init__(self):
        self.reset()

    def reset(self):
        self.val = self.avg = self.sum = self.count = 0

    def update(self, val, n=1):
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.sum / self.count


def accuracy(output, target, topk=(1,)):
    maxk = max(topk)
    _, pred = output.topk(maxk, 1, True, True)
    pred = pred.t()
    correct = pred.eq(target.view(1, -1).expand_as(pred))
    return [correct[:k].reshape(-1).float().sum(0, keepdim=True).mul_(100.0 / target.size(0)) for k in topk]


def train(train_loader, model, criterion, optimizer, scaler, epoch):
    batch_time, losses, top1, top5 = AverageMeter(), AverageMeter(), AverageMeter(), AverageMeter()
    model.train()
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    end = time.time()
    prefetcher = data_prefetcher(train_loader)
    input, target = prefetcher.next()
    i = 0
    while input is not None:
        i += 1
        adjust_learning_rate(optimizer, epoch, i, len(train_loader))
        start.record()
        with torch.cuda.amp.autocast():
            output = model(input)
            loss = criterion(output, target)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        stop.record()
        if i % args.print_freq == 0 or i == 1:
            prec1, prec5 = accuracy(output.data, target, topk=(1, 5))
            losses.update(loss.item(), input.size(0))
            top1.update(prec1.item(), input.size(0))
            top5.update(prec5.item(), input.size(0))
            torch.cuda.synchronize()
            batch_time.update((time.time() - end) / args.print_freq)
            end = time.time()
            print(
                f"Epoch: [{epoch}][{i}/{len(train_loader)}]\tTime {batch_time.val:.3f}\tgpu {start.elapsed_time(stop):.1f} ms\t"
                f"Speed {args.batch_size / batch_time.val:.1f}\tLoss {losses.val:.4f}\tPrec@1 {top1.val:.2f}"
            )
        input, target = prefetcher.next()


def validate(val_loader, model, criterion):
    top1 = AverageMeter()
    model.eval()
    prefetcher = data_prefetcher(val_loader)
    input, target = prefetcher.next()
    while input is not None:
        with torch.no_grad():
            output = model(input)
            loss = criterion(output, target)
        (prec1,) = accuracy(output.data, target)
        top1.update(prec1.item(), input.size(0))
        input, target = prefetcher.next()
    print(f" * Prec@1 {top1.avg:.3f} loss {loss.item():.3f}")
    return top1.avg


def adjust_learning_rate(optimizer, epoch, step, len_epoch):
    lr = args.lr * 0.5 * (1 + math.cos(math.pi * (epoch + step / len_epoch) / args.epochs))
    for param_group in optimizer.param_groups:
        param_group["lr"] = lr


def save_checkpoint(state, is_best, filename="checkpoint.pth.tar"):
    torch.save(state, filename)
    if is_best:
        shutil.copyfile(filename, "model_best.pth.tar")


def main():
    global best_prec1
    model = models.__dict__[args.arch]().cuda()
    criterion = nn.CrossEntropyLoss().cuda()
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9, weight_decay=1e-4)
    scaler = torch.cuda.amp.GradScaler()
    train_set = FakeImages(
        256, transforms.Compose([transforms.RandomResizedCrop(128), transforms.RandomHorizontalFlip()])
    )
    val_set = FakeImages(64, transforms.Compose([transforms.Resize(144), transforms.CenterCrop(128)]))
    kw = dict(
        batch_size=args.batch_size,
        num_workers=args.workers,
        pin_memory=True,
        collate_fn=fast_collate,
        persistent_workers=args.workers > 0,
    )
    train_loader = torch.utils.data.DataLoader(train_set, shuffle=True, **kw)
    val_loader = torch.utils.data.DataLoader(val_set, **kw)
    for epoch in range(args.epochs):
        train(train_loader, model, criterion, optimizer, scaler, epoch)
        prec1 = validate(val_loader, model, criterion)
        is_best = prec1 > best_prec1
        best_prec1 = max(prec1, best_prec1)
        save_checkpoint(
            {
                "epoch": epoch + 1,
                "arch": args.arch,
                "state_dict": model.state_dict(),
                "best_prec1": best_prec1,
                "optimizer": optimizer.state_dict(),
            },
            is_best,
        )


if __name__ == "__main__":
    main()
