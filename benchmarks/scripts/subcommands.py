"""A command-line tool with subcommands `prepare`, `train` and `evaluate`: a recurrent tagger on packed sequences."""

import argparse
import json
import logging
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset

log = logging.getLogger("tagger")


class Sentences(Dataset):
    def __init__(self, file):
        self.rows = [json.loads(line) for line in Path(file).read_text().splitlines()]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        return torch.tensor(row["words"]), torch.tensor(row["tags"])


def collate(samples):
    samples = sorted(samples, key=lambda sample: -len(sample[0]))
    words, tags = zip(*samples, strict=False)
    lengths = torch.tensor([len(one) for one in words])
    return pad_sequence(words, True), pad_sequence(tags, True, -100), lengths


class Tagger(nn.Module):
    def __init__(self, words=500, tags=9, width=128):
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        self.rnn = nn.LSTM(width, width, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.head = nn.Linear(2 * width, tags)

    def forward(self, words, lengths):
        packed = pack_padded_sequence(self.embedding(words), lengths, batch_first=True)
        hidden, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.head(hidden)


def prepare(args):
    generator = torch.Generator().manual_seed(0)
    args.folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 120), ("dev", 24)):
        with (args.folder / f"{split}.jsonl").open("w") as file:
            for _ in range(count):
                length = int(torch.randint(5, 40, (1,), generator=generator))
                words = torch.randint(1, 500, (length,), generator=generator).tolist()
                file.write(json.dumps({"words": words, "tags": [word % 9 for word in words]}) + "\n")


def train(args):
    if not (args.folder / "train.jsonl").exists():
        prepare(args)
    device = "cuda:0"
    loader = DataLoader(Sentences(args.folder / "train.jsonl"), args.batch, True, collate_fn=collate)
    model = Tagger().to(device)
    optimizer = torch.optim.Adam(model.parameters(), args.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 10))
    best = float("inf")
    for epoch in range(args.epochs):
        model.train()
        for words, tags, lengths in loader:
            scores = model(words.to(device), lengths)
            loss = nn.functional.cross_entropy(scores.flatten(0, 1), tags.to(device).flatten(), ignore_index=-100)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_value_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
        score = evaluate(args, model)
        log.info("epoch %d: %.4f, %.0f MB", epoch, score, torch.cuda.memory_reserved() / 1e6)
        if score < best:
            best = score
            torch.save(model.state_dict(), args.folder / "best.pt")


@torch.inference_mode()
def evaluate(args, model=None):
    if model is None:
        model = Tagger().cuda()
        model.load_state_dict(torch.load(args.folder / "best.pt", map_location="cuda"))
    model.eval()
    total = 0.0
    for words, tags, lengths in DataLoader(Sentences(args.folder / "dev.jsonl"), args.batch, collate_fn=collate):
        scores = model(words.cuda(), lengths)
        total += nn.functional.cross_entropy(scores.transpose(1, 2), tags.cuda(), ignore_index=-100).item()
    return total


def main():
    logging.basicConfig(level=logging.INFO, handlers=[logging.FileHandler("tagger.log"), logging.StreamHandler()])
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    for function in (prepare, train, evaluate):
        command = commands.add_parser(function.__name__)
        command.set_defaults(function=function)
        command.add_argument("--folder", type=Path, default=Path("corpus"))
        command.add_argument("-b", "--batch", type=int, default=8)
        if function is train:
            command.add_argument("--lr", type=float, default=1e-3)
            command.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
