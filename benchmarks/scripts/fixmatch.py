# FixMatch-like semi-supervised training: two loaders zipped, pseudo-labels by confidence, logging to file, resume if exists
import argparse, logging, os, shutil, threading, queue, time
import numpy as np
import torch, torch.nn as nn, torch.nn.functional as F
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, TensorDataset
from torch.optim.lr_scheduler import LambdaLR

logger = logging.getLogger("ssl")


class BackgroundGenerator(threading.Thread):
    """Prefetches batches in a thread."""

    def __init__(self, generator, max_prefetch=2):
        super().__init__(daemon=True)
        self.queue, self.generator = queue.Queue(max_prefetch), generator
        self.start()

    def run(self):
        for item in self.generator:
            self.queue.put(item)
        self.queue.put(None)

    def __iter__(self):
        return self

    def __next__(self):
        item = self.queue.get()
        if item is None:
            raise StopIteration
        return item


class WideBlock(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(i, momentum=0.001), nn.BatchNorm2d(o, momentum=0.001)
        self.c1, self.c2 = nn.Conv2d(i, o, 3, s, 1, bias=False), nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.sc = nn.Conv2d(i, o, 1, s, bias=False) if i != o else None

    def forward(self, x):
        h = F.leaky_relu(self.bn1(x), 0.1)
        y = self.c2(F.leaky_relu(self.bn2(self.c1(h)), 0.1))
        return y + (self.sc(h) if self.sc is not None else x)


class WRN(nn.Module):
    def __init__(self, num_classes=10, w=2):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.body = nn.Sequential(WideBlock(16, 16 * w, 1), WideBlock(16 * w, 32 * w, 2), WideBlock(32 * w, 64 * w, 2))
        self.bn, self.fc = nn.BatchNorm2d(64 * w), nn.Linear(64 * w, num_classes)

    def forward(self, x):
        return self.fc(F.leaky_relu(self.bn(self.body(self.stem(x))), 0.1).mean([2, 3]))


def interleave(x, size):
    s = list(x.shape)
    return x.reshape([-1, size] + s[1:]).transpose(0, 1).reshape([-1] + s[1:])


def de_interleave(x, size):
    s = list(x.shape)
    return x.reshape([size, -1] + s[1:]).transpose(0, 1).reshape([-1] + s[1:])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gpu-id", default="0", type=int)
    parser.add_argument("--batch-size", default=16, type=int)
    parser.add_argument("--mu", default=7, type=int, help="coefficient of unlabeled batch size")
    parser.add_argument("--eval-step", default=4, type=int)
    parser.add_argument("--total-steps", default=2**10, type=int)
    parser.add_argument("--threshold", default=0.95, type=float)
    parser.add_argument("--T", default=1, type=float)
    parser.add_argument("--out", default="result")
    parser.add_argument("--resume", default="", type=str)
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO, handlers=[logging.FileHandler(os.path.join(args.out, "log.txt")), logging.StreamHandler()]
    )
    args.device = torch.device("cuda", args.gpu_id)
    args.n_gpu = torch.cuda.device_count()
    logger.info(dict(args._get_kwargs()))
    labeled = TensorDataset(torch.rand(250, 3, 32, 32), torch.randint(0, 10, (250,)))
    unlabeled = TensorDataset(torch.rand(2000, 3, 32, 32), torch.rand(2000, 3, 32, 32))
    test = TensorDataset(torch.rand(100, 3, 32, 32), torch.randint(0, 10, (100,)))
    lt = DataLoader(labeled, sampler=RandomSampler(labeled), batch_size=args.batch_size, num_workers=2, drop_last=True)
    ut = DataLoader(
        unlabeled, sampler=RandomSampler(unlabeled), batch_size=args.batch_size * args.mu, num_workers=2, drop_last=True
    )
    tt = DataLoader(test, sampler=SequentialSampler(test), batch_size=args.batch_size, num_workers=2)
    model = WRN().to(args.device)
    ema = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999))
    no_decay = ["bias", "bn"]
    groups = [
        {
            "params": [p for n, p in model.named_parameters() if not any(nd in n for nd in no_decay)],
            "weight_decay": 5e-4,
        },
        {"params": [p for n, p in model.named_parameters() if any(nd in n for nd in no_decay)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.03, momentum=0.9, nesterov=True)
    scheduler = LambdaLR(optimizer, lambda s: np.cos(7 / 16 * np.pi * s / args.total_steps))
    labeled_iter, unlabeled_iter = iter(lt), BackgroundGenerator(iter(ut))
    for epoch in range(args.total_steps // args.eval_step):
        model.train()
        for _ in range(args.eval_step):
            try:
                inputs_x, targets_x = next(labeled_iter)
            except StopIteration:
                labeled_iter = iter(lt)
                inputs_x, targets_x = next(labeled_iter)
            try:
                inputs_w, inputs_s = next(unlabeled_iter)
            except StopIteration:
                unlabeled_iter = BackgroundGenerator(iter(ut))
                inputs_w, inputs_s = next(unlabeled_iter)
            bs = inputs_x.shape[0]
            inputs = interleave(torch.cat((inputs_x, inputs_w, inputs_s)), 2 * args.mu + 1).to(args.device)
            targets_x = targets_x.to(args.device)
            logits = de_interleave(model(inputs), 2 * args.mu + 1)
            logits_x, (logits_w, logits_s) = logits[:bs], logits[bs:].chunk(2)
            del logits
            Lx = F.cross_entropy(logits_x, targets_x, reduction="mean")
            pseudo = torch.softmax(logits_w.detach() / args.T, dim=-1)
            max_probs, targets_u = torch.max(pseudo, dim=-1)
            mask = max_probs.ge(args.threshold).float()
            Lu = (F.cross_entropy(logits_s, targets_u, reduction="none") * mask).mean()
            loss = Lx + Lu
            loss.backward()
            optimizer.step()
            scheduler.step()
            ema.update_parameters(model)
            model.zero_grad()
            logger.info("loss %.4f mask %.2f", loss.item(), mask.mean().item())
        ema.eval()
        hits = 0
        with torch.no_grad():
            for x, y in tt:
                hits += (ema(x.to(args.device)).argmax(1) == y.to(args.device)).sum().item()
        logger.info("epoch %d acc %.3f", epoch, hits / len(test))
        torch.save({"epoch": epoch, "ema": ema.state_dict()}, os.path.join(args.out, "checkpoint.pth.tar"))
        if hits / len(test) > 0.5:
            shutil.copyfile(os.path.join(args.out, "checkpoint.pth.tar"), os.path.join(args.out, "model_best.pth.tar"))


if __name__ == "__main__":
    main()
