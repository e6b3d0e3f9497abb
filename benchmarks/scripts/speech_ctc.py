"""Speech recognition with CTC: batches by length, packed recurrent layers, lengths through the network, error rate."""

import argparse
import json
import os

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler


class Utterances(Dataset):
    def __init__(self, count, seed, labels=28):
        rng = np.random.default_rng(seed)
        self.frames = rng.integers(120, 600, count)
        self.labels = [rng.integers(1, labels + 1, length // 16) for length in self.frames]

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        return torch.from_numpy(rng.standard_normal((self.frames[index], 80), dtype=np.float32)), torch.from_numpy(
            self.labels[index]
        )


class BucketBatchSampler(Sampler):
    """Batches of at most `max_frames` padded frames, of utterances that are alike in length."""

    def __init__(self, lengths, max_frames):
        self.batches, batch = [], []
        for index in np.argsort(lengths)[::-1]:
            if batch and lengths[batch[0]] * (len(batch) + 1) > max_frames:
                self.batches.append(batch)
                batch = []
            batch.append(int(index))
        self.batches.append(batch)

    def __iter__(self):
        for position in torch.randperm(len(self.batches)).tolist():
            yield self.batches[position]

    def __len__(self):
        return len(self.batches)


def collate(samples):
    samples.sort(key=lambda sample: len(sample[0]), reverse=True)
    feats, labels = zip(*samples)
    feat_lens = torch.tensor([len(f) for f in feats])
    label_lens = torch.tensor([len(label) for label in labels])
    return pad_sequence(feats, batch_first=True), feat_lens, torch.cat(labels), label_lens


class SpecAugment(nn.Module):
    def forward(self, x):
        if not self.training:
            return x
        n, t, f = x.shape
        start = torch.randint(0, f - 15, (n, 1, 1), device=x.device)
        bins = torch.arange(f, device=x.device).view(1, 1, f)
        return x.masked_fill((bins >= start) & (bins < start + 15), 0.0)


class Acoustic(nn.Module):
    def __init__(self, hidden=256, layers=3, classes=29):
        super().__init__()
        self.augment = SpecAugment()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 32, (11, 41), stride=(2, 2), padding=(5, 20)),
            nn.BatchNorm2d(32),
            nn.Hardtanh(0, 20, inplace=True),
            nn.Conv2d(32, 32, (11, 21), stride=(1, 2), padding=(5, 10)),
            nn.BatchNorm2d(32),
            nn.Hardtanh(0, 20, inplace=True),
        )
        self.rnn = nn.LSTM(32 * 20, hidden, layers, batch_first=True, bidirectional=True, dropout=0.1)
        self.fc = nn.Sequential(nn.LayerNorm(2 * hidden), nn.Linear(2 * hidden, classes))

    def forward(self, x, lengths):
        x = self.conv(self.augment(x).unsqueeze(1))
        lengths = (lengths + 1) // 2
        n, c, t, f = x.shape
        mask = torch.arange(t, device=x.device)[None, :] >= lengths.to(x.device)[:, None]
        x = x.masked_fill(mask[:, None, :, None], 0.0).permute(0, 2, 1, 3).reshape(n, t, c * f)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True)
        x, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.fc(x).log_softmax(-1), lengths


def edit_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def greedy(log_probs, lengths):
    texts = []
    for path, length in zip(log_probs.argmax(-1).cpu().tolist(), lengths.tolist()):
        path = path[:length]
        texts.append([c for c, before in zip(path, [0, *path]) if c != 0 and c != before])
    return texts


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--max-frames", type=int, default=6000)
    ap.add_argument("--epochs", type=int, default=2)
    ap.add_argument("--exp-dir", default="exp/ctc")
    ap.add_argument("--resume", default="")
    args = ap.parse_args()
    os.makedirs(args.exp_dir, exist_ok=True)
    with open(os.path.join(args.exp_dir, "args.json"), "w") as f:
        json.dump(vars(args), f)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    train_set, dev_set = Utterances(200, 1), Utterances(20, 2)
    sampler = BucketBatchSampler(train_set.frames, args.max_frames)
    train_loader = DataLoader(train_set, batch_sampler=sampler, collate_fn=collate, num_workers=1)
    dev_loader = DataLoader(dev_set, batch_size=10, collate_fn=collate)
    model = Acoustic().to(device)
    ctc = nn.CTCLoss(blank=0, reduction="sum", zero_infinity=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=5e-4, steps_per_epoch=len(train_loader), epochs=args.epochs
    )
    first = 0
    if args.resume:
        state = torch.load(args.resume, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"] + 1
    for epoch in range(first, args.epochs):
        model.train()
        for step, (feats, feat_lens, labels, label_lens) in enumerate(train_loader):
            feats, labels = feats.to(device), labels.to(device)
            log_probs, out_lens = model(feats, feat_lens)
            loss = ctc(log_probs.transpose(0, 1), labels, out_lens, label_lens) / len(feats)
            if not torch.isfinite(loss):
                print("skipping a batch: the loss is not finite")
                continue
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            scheduler.step()
            if step % 10 == 0:
                print(f"epoch {epoch} step {step} loss {loss.item():.3f} norm {norm.item():.2f}")
        model.eval()
        errors = words = 0
        with torch.inference_mode():
            for feats, feat_lens, labels, label_lens in dev_loader:
                log_probs, out_lens = model(feats.to(device), feat_lens)
                for text, truth in zip(greedy(log_probs, out_lens), torch.split(labels, label_lens.tolist())):
                    errors += edit_distance(text, truth.tolist())
                    words += len(truth)
        print(f"epoch {epoch} error rate {errors / words:.3f}")
        torch.save(
            {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch},
            os.path.join(args.exp_dir, f"epoch{epoch}.pt"),
        )


if __name__ == "__main__":
    main()
