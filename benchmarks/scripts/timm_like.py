"""Classification in the style of timm's train.py: model EMA, mixup, channels_last, a YAML of arguments is written."""

import argparse
import logging
import os
import time
from collections import OrderedDict

import numpy as np
import timm
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import AverageMeter, CheckpointSaver, ModelEmaV2, NativeScaler, accuracy
from torch.utils.data import DataLoader, Dataset

_logger = logging.getLogger("train")
parser = argparse.ArgumentParser(description="training")
parser.add_argument("--model", default="resnet18")
parser.add_argument("-b", "--batch-size", type=int, default=16)
parser.add_argument("--img-size", type=int, default=128)
parser.add_argument("--opt", default="lamb")
parser.add_argument("--lr", type=float, default=5e-3)
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--amp", action="store_true")
parser.add_argument("--channels-last", action="store_true")
parser.add_argument("--model-ema", action="store_true")
parser.add_argument("--mixup", type=float, default=0.2)
parser.add_argument("--output", default="output")


class Images(Dataset):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return 256

    def __getitem__(self, index):
        return np.random.randint(0, 255, (3, self.size, self.size), dtype=np.uint8), index % 100


def fast_collate(batch):
    return torch.stack([torch.from_numpy(x) for x, _ in batch]), torch.tensor([y for _, y in batch])


class PrefetchLoader:
    def __init__(self, loader, device):
        self.loader, self.device = loader, device
        self.mean = torch.tensor([123.675, 116.28, 103.53], device=device).view(1, 3, 1, 1)
        self.std = torch.tensor([58.395, 57.12, 57.375], device=device).view(1, 3, 1, 1)

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        input = target = None
        first, stream = True, torch.cuda.Stream()
        for next_input, next_target in self.loader:
            with torch.cuda.stream(stream):
                next_input = next_input.to(self.device, non_blocking=True)
                next_target = next_target.to(self.device, non_blocking=True)
                next_input = next_input.float().sub_(self.mean).div_(self.std)
            if not first:
                yield input, target
            else:
                first = False
            torch.cuda.current_stream().wait_stream(stream)
            input, target = next_input, next_target
        yield input, target


def main():
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    device = torch.device("cuda")
    torch.backends.cudnn.benchmark = True
    model = timm.create_model(args.model, pretrained=False, num_classes=100, drop_path_rate=0.1)
    model.to(device=device)
    if args.channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt=args.opt, lr=args.lr, weight_decay=0.02)
    scaler = NativeScaler() if args.amp else None
    ema = ModelEmaV2(model, decay=0.999) if args.model_ema else None
    loader = DataLoader(
        Images(args.img_size), args.batch_size, shuffle=True, num_workers=4, collate_fn=fast_collate, drop_last=True
    )
    train_loader, eval_loader = PrefetchLoader(loader, device), PrefetchLoader(loader, device)
    mixup_fn = Mixup(mixup_alpha=args.mixup, num_classes=100)
    loss_fn, validate_loss_fn = SoftTargetCrossEntropy().to(device), torch.nn.CrossEntropyLoss().to(device)
    output_dir = os.path.join(args.output, time.strftime("%Y%m%d-%H%M%S"))
    os.makedirs(output_dir, exist_ok=True)
    saver = CheckpointSaver(
        model=model, optimizer=optimizer, args=args, model_ema=ema, amp_scaler=scaler,
        checkpoint_dir=output_dir, recovery_dir=output_dir, decreasing=False, max_history=2,
    )  # fmt: skip
    for epoch in range(args.epochs):
        model.train()
        losses_m, batch_time_m, end = AverageMeter(), AverageMeter(), time.time()
        for input, target in train_loader:
            input, target = mixup_fn(input, target)
            if args.channels_last:
                input = input.contiguous(memory_format=torch.channels_last)
            with torch.amp.autocast("cuda", enabled=args.amp):
                loss = loss_fn(model(input), target)
            optimizer.zero_grad()
            if scaler is not None:
                scaler(loss, optimizer, clip_grad=1.0, parameters=model.parameters())
            else:
                loss.backward()
                optimizer.step()
            if ema is not None:
                ema.update(model)
            torch.cuda.synchronize()
            losses_m.update(loss.item(), input.size(0))
            batch_time_m.update(time.time() - end)
            end = time.time()
        model.eval()
        top1_m = AverageMeter()
        with torch.no_grad():
            for input, target in eval_loader:
                with torch.amp.autocast("cuda", enabled=args.amp):
                    output = model(input)
                validate_loss_fn(output, target)
                acc1, _ = accuracy(output, target, topk=(1, 5))
                top1_m.update(acc1.item(), output.size(0))
        metrics = OrderedDict([("loss", losses_m.avg), ("top1", top1_m.avg)])
        _logger.info(metrics)
        saver.save_checkpoint(epoch, metric=metrics["top1"])


if __name__ == "__main__":
    main()
