"""A recurrent tagger driven by a JSON config with dotted overrides, packed sequences, subcommands."""

import argparse
import json
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader

DEFAULT = {
    "data": {"batch": 16, "vocab": 500},
    "model": {"hidden": 128, "layers": 2},
    "train": {"lr": 0.1, "epochs": 2},
}


def load(path, overrides):
    config = json.loads(Path(path).read_text()) if path else json.loads(json.dumps(DEFAULT))
    for override in overrides:
        key, value = override.split("=")
        section, name = key.split(".")
        config[section][name] = json.loads(value)
    return config


class Tagger(nn.Module):
    def __init__(self, vocab, hidden, layers):
        super().__init__()
        self.embed = nn.Embedding(vocab, hidden, padding_idx=0)
        self.rnn = nn.LSTM(hidden, hidden, layers, batch_first=True, bidirectional=True, dropout=0.2)
        self.out = nn.Linear(2 * hidden, 17)

    def forward(self, ids, lengths):
        packed = pack_padded_sequence(self.embed(ids), lengths.cpu(), batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.out(hidden)


def collate(batch):
    lengths = torch.tensor([len(ids) for ids in batch])
    return pad_sequence(batch, batch_first=True), lengths


def train(config):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = [torch.randint(1, config["data"]["vocab"], (10 + n % 30,)) for n in range(200)]
    loader = DataLoader(data, batch_size=config["data"]["batch"], shuffle=True, collate_fn=collate)
    model = Tagger(config["data"]["vocab"], **config["model"]).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=config["train"]["lr"], momentum=0.9)
    for epoch in range(config["train"]["epochs"]):
        total = 0.0
        for ids, lengths in loader:
            ids, lengths = ids.to(device), lengths.to(device)
            scores = model(ids, lengths)
            loss = nn.functional.cross_entropy(scores.flatten(0, 1), (ids % 17).flatten(), ignore_index=0)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            total += float(loss)
        print(json.dumps({"epoch": epoch, "loss": total / len(loader)}))
        with open("log.jsonl", "a") as log:
            log.write(json.dumps({"epoch": epoch, "loss": total}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser("fit")
    fit.add_argument("--config")
    fit.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    train(load(arguments.config, arguments.overrides))
