"""Masked-LM pretraining over a mixture of shards: IterableDataset sharded by worker, batches by token budget, shell env."""

import dataclasses
import glob
import gzip
import json
import os
import random
import time

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

MAX_STEPS = int(os.environ.get("MAX_STEPS", 500))
TOKENS_PER_BATCH = int(os.environ.get("TOKENS_PER_BATCH", 4096))


@dataclasses.dataclass
class Args:
    data_dir: str = "shards"
    vocab: int = 8000
    dim: int = 256
    depth: int = 4
    mask_prob: float = 0.15
    lr: float = 5e-4
    eval_every: int = 50


def write_shards(folder, n=4, docs=120):
    os.makedirs(folder, exist_ok=True)
    rng = random.Random(0)
    for s in range(n):
        with gzip.open(f"{folder}/{'abcd'[s]}.jsonl.gz", "wt") as f:
            for _ in range(docs):
                f.write(json.dumps({"ids": [rng.randrange(5, 8000) for _ in range(rng.randrange(20, 320))]}) + "\n")


class Mixture(IterableDataset):
    def __init__(self, files, weights, max_len=256):
        self.files, self.weights, self.max_len = files, weights, max_len

    def _stream(self, path):
        while True:
            with gzip.open(path, "rt") as f:
                for line in f:
                    yield json.loads(line)["ids"][: self.max_len]

    def __iter__(self):
        info = get_worker_info()
        wid, n = (info.id, info.num_workers) if info else (0, 1)
        rng = random.Random(wid)
        files = [(f, w) for i, (f, w) in enumerate(zip(self.files, self.weights)) if i % n == wid] or list(
            zip(self.files, self.weights)
        )
        streams = [self._stream(f) for f, _ in files]
        pending, longest = [], 0
        while True:
            ids = next(rng.choices(streams, [w for _, w in files])[0])
            if (len(pending) + 1) * max(longest, len(ids)) > TOKENS_PER_BATCH:
                yield self.collate(pending)
                pending, longest = [], 0
            pending.append(torch.tensor(ids))
            longest = max(longest, len(ids))

    @staticmethod
    def collate(seqs):
        ids = pad_sequence(seqs, batch_first=True, padding_value=0)
        return ids, ids.ne(0)


class Bert(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.tok, self.pos = nn.Embedding(a.vocab, a.dim, padding_idx=0), nn.Embedding(256, a.dim)
        layer = nn.TransformerEncoderLayer(a.dim, 8, 4 * a.dim, activation="gelu", batch_first=True)
        self.enc = nn.TransformerEncoder(layer, a.depth)
        self.out = nn.Linear(a.dim, a.vocab)

    def forward(self, ids, mask):
        x = self.tok(ids) + self.pos(torch.arange(ids.size(1), device=ids.device))
        return self.out(self.enc(x, src_key_padding_mask=~mask))


def mask_tokens(ids, mask, a):
    labels = ids.clone()
    chosen = torch.bernoulli(torch.full(ids.shape, a.mask_prob, device=ids.device)).bool() & mask
    labels[~chosen] = -100
    replace = torch.bernoulli(torch.full(ids.shape, 0.8, device=ids.device)).bool() & chosen
    ids = ids.clone()
    ids[replace] = 4
    return ids, labels


def main():
    a = Args()
    if not glob.glob(os.path.join(a.data_dir, "*.gz")):
        write_shards(a.data_dir)
    files = sorted(glob.glob(os.path.join(a.data_dir, "*.gz")))
    loader = DataLoader(Mixture(files, [4, 3, 2, 1]), batch_size=None, num_workers=2, prefetch_factor=4)
    assert torch.cuda.device_count() >= 1
    device = torch.device("cuda", torch.cuda.current_device())
    model = Bert(a).to(device)
    opt = torch.optim.AdamW(model.parameters(), lr=a.lr, betas=(0.9, 0.98), fused=True)
    warm = torch.optim.lr_scheduler.LambdaLR(opt, lambda s: min(1.0, (s + 1) / 100))
    step, tokens, start = 0, 0, time.perf_counter()
    batches = iter(loader)
    while step < MAX_STEPS:
        ids, mask = (t.to(device, non_blocking=True) for t in next(batches))
        inputs, labels = mask_tokens(ids, mask, a)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logits = model(inputs, mask)
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        gnorm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        warm.step()
        step += 1
        tokens += mask.sum().item()
        print(
            json.dumps(
                {
                    "step": step,
                    "loss": loss.item(),
                    "gnorm": gnorm.item(),
                    "tps": tokens / (time.perf_counter() - start),
                }
            )
        )
        if step % a.eval_every == 0:
            torch.save({"model": model.state_dict(), "step": step}, "last.pt")
            os.replace("last.pt", f"step_{step}.pt")


if __name__ == "__main__":
    main()
