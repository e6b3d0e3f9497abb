"""Image classifier for torchrun in torchvision's style: SyncBatchNorm, samplers, EMA, metric logger."""

import argparse
import os
import time
from collections import deque

import torch
import torch.distributed as dist
import torchvision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


class SmoothedValue:
    def __init__(self, window=20):
        self.deque, self.total, self.count = deque(maxlen=window), 0.0, 0

    def update(self, value, n=1):
        self.deque.append(value)
        self.count += n
        self.total += value * n

    def synchronize_between_processes(self):
        values = torch.tensor([self.count, self.total], dtype=torch.float64, device="cuda")
        dist.barrier()
        dist.all_reduce(values)
        count, total = values.tolist()
        self.count, self.total = int(count), total

    @property
    def average(self):
        return self.total / max(1, self.count)


def setup():
    args = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
    torch.cuda.set_device(args[2])
    dist.init_process_group(backend="nccl", init_method="env://", world_size=args[1], rank=args[0])
    dist.barrier(device_ids=[args[2]])
    return args


def save_on_master(*args):
    if dist.get_rank() == 0:
        torch.save(*args)


def evaluate(model, criterion, loader, device):
    model.eval()
    loss_meter = SmoothedValue()
    with torch.inference_mode():
        for image, target in loader:
            image, target = image.to(device, non_blocking=True), target.to(device, non_blocking=True)
            loss_meter.update(criterion(model(image), target).item(), len(image))
    loss_meter.synchronize_between_processes()
    return loss_meter.average


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", "-b", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--sync-bn", action="store_true")
    parser.add_argument("--output-dir", default="output")
    args = parser.parse_args()
    rank, world, gpu = setup()
    os.makedirs(args.output_dir, exist_ok=True)
    device = torch.device("cuda", gpu)
    data = TensorDataset(torch.randn(256, 3, 64, 64), torch.randint(0, 10, (256,)))
    sampler, test_sampler = DistributedSampler(data), DistributedSampler(data, shuffle=False)
    loader = DataLoader(data, args.batch_size, sampler=sampler, num_workers=2, pin_memory=True)
    test_loader = DataLoader(data, args.batch_size, sampler=test_sampler, num_workers=2, pin_memory=True)
    model = torchvision.models.resnet18(num_classes=10).to(device)
    if args.sync_bn:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model = nn.parallel.DistributedDataParallel(model, device_ids=[gpu])
    without_ddp = model.module
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 * world, momentum=0.9, nesterov=True, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    scaler = torch.amp.GradScaler() if args.amp else None
    average = torch.optim.swa_utils.AveragedModel(
        without_ddp, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99)
    )
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        model.train()
        began = time.time()
        for image, target in loader:
            image, target = image.to(device), target.to(device)
            with torch.amp.autocast("cuda", enabled=scaler is not None):
                loss = criterion(model(image), target)
            optimizer.zero_grad()
            if scaler is not None:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            else:
                loss.backward()
                optimizer.step()
            average.update_parameters(without_ddp)
        scheduler.step()
        result = evaluate(average, criterion, test_loader, device)
        if rank == 0:
            print(f"epoch {epoch}: {result:.3f}, {time.time() - began:.1f} s, {torch.cuda.max_memory_allocated()} B")
        checkpoint = {"model": without_ddp.state_dict(), "optimizer": optimizer.state_dict(), "args": args}
        save_on_master(checkpoint, os.path.join(args.output_dir, "checkpoint.pth"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
