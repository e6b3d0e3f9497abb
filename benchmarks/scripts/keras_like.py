"""A small Keras for PyTorch: compile(), fit(), callbacks, history; the batch size is an argument of fit()."""

import json
import os

import numpy as np
import torch
from torch import nn


class Callback:
    def on_train_begin(self, model): ...
    def on_epoch_begin(self, epoch): ...
    def on_batch_end(self, batch, logs): ...
    def on_epoch_end(self, epoch, logs): ...


class ModelCheckpoint(Callback):
    def __init__(self, filepath, monitor="val_loss"):
        self.filepath, self.monitor, self.best = filepath, monitor, np.inf

    def on_train_begin(self, model):
        self.model = model

    def on_epoch_end(self, epoch, logs):
        if logs[self.monitor] < self.best:
            self.best = logs[self.monitor]
            torch.save(self.model.module.state_dict(), self.filepath.format(epoch=epoch, **logs))


class EarlyStopping(Callback):
    def __init__(self, monitor="val_loss", patience=3):
        self.monitor, self.patience, self.wait, self.best = monitor, patience, 0, np.inf

    def on_train_begin(self, model):
        self.model = model

    def on_epoch_end(self, epoch, logs):
        self.wait = 0 if logs[self.monitor] < self.best else self.wait + 1
        self.best = min(self.best, logs[self.monitor])
        self.model.stop_training = self.wait >= self.patience


class CSVLogger(Callback):
    def __init__(self, path):
        self.path = path

    def on_epoch_end(self, epoch, logs):
        with open(self.path, "a") as f:
            f.write(json.dumps({"epoch": epoch, **logs}) + "\n")


class Model:
    def __init__(self, module):
        self.device = torch.device("cuda:0")
        self.module = module.to(self.device)
        self.stop_training = False

    def compile(self, optimizer, loss, metrics=()):
        self.optimizer, self.loss, self.metrics = optimizer(self.module.parameters()), loss, metrics

    def _batches(self, arrays, batch_size, shuffle):
        n = len(arrays[0])
        order = np.random.permutation(n) if shuffle else np.arange(n)
        for s in range(0, n, batch_size):
            index = order[s : s + batch_size]
            yield [torch.from_numpy(a[index]).to(self.device) for a in arrays]

    def train_on_batch(self, x, y):
        self.module.train()
        self.optimizer.zero_grad()
        out = self.module(x)
        loss = self.loss(out, y)
        loss.backward()
        self.optimizer.step()
        return {"loss": float(loss), **{m.__name__: float(m(out, y)) for m in self.metrics}}

    def evaluate(self, x, y, batch_size=256):
        self.module.eval()
        totals = {}
        with torch.no_grad():
            for xb, yb in self._batches((x, y), batch_size, False):
                out = self.module(xb)
                logs = {"loss": float(self.loss(out, yb)), **{m.__name__: float(m(out, yb)) for m in self.metrics}}
                for k, v in logs.items():
                    totals[k] = totals.get(k, 0) + v * len(xb)
        return {k: v / len(x) for k, v in totals.items()}

    def fit(self, x, y, batch_size=32, epochs=1, validation_data=None, callbacks=(), verbose=1):
        history = []
        for c in callbacks:
            c.on_train_begin(self)
        for epoch in range(epochs):
            for c in callbacks:
                c.on_epoch_begin(epoch)
            for b, (xb, yb) in enumerate(self._batches((x, y), batch_size, True)):
                logs = self.train_on_batch(xb, yb)
                for c in callbacks:
                    c.on_batch_end(b, logs)
                if verbose:
                    print(f"\r{epoch + 1}/{epochs} - " + " - ".join(f"{k}: {v:.4f}" for k, v in logs.items()), end="")
            if validation_data is not None:
                logs.update({f"val_{k}": v for k, v in self.evaluate(*validation_data).items()})
            history.append(logs)
            for c in callbacks:
                c.on_epoch_end(epoch, logs)
            if self.stop_training:
                break
        return history


def accuracy(out, y):
    return (out.argmax(-1) == y).float().mean()


class TextCNN(nn.Module):
    def __init__(self, vocab=5000, dim=128, classes=4):
        super().__init__()
        self.emb = nn.Embedding(vocab, dim, padding_idx=0)
        self.convs = nn.ModuleList(nn.Conv1d(dim, 100, k) for k in (3, 4, 5))
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(300, classes)

    def forward(self, x):
        x = self.emb(x).transpose(1, 2)
        x = torch.cat([torch.relu(c(x)).max(-1).values for c in self.convs], 1)
        return self.fc(self.drop(x))


def load_data(path="corpus.npz"):
    if not os.path.exists(path):
        rng = np.random.default_rng(0)
        np.savez(path, x=rng.integers(1, 5000, (3000, 200)), y=rng.integers(0, 4, 3000))
    with np.load(path) as f:
        return f["x"], f["y"]


x, y = load_data()
model = Model(TextCNN())
model.compile(optimizer=lambda p: torch.optim.RMSprop(p, lr=1e-3), loss=nn.CrossEntropyLoss(), metrics=[accuracy])
history = model.fit(
    x[:2500],
    y[:2500],
    batch_size=64,
    epochs=20,
    validation_data=(x[2500:], y[2500:]),
    callbacks=[
        ModelCheckpoint("model.{epoch:02d}-{val_loss:.2f}.pt"),
        EarlyStopping(patience=2),
        CSVLogger("history.jsonl"),
    ],
)
print(history[-1])
