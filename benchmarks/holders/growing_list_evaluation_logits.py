# cause: growing list; card: 64 MiB; others: 0 MiB; set: written after
import torch
from networks import WideMlp, rows

model = WideMlp(features=128, hidden=128, classes=2000)


@torch.no_grad()
def evaluate(model):
    logits, labels = [], []
    for _ in range(1000):
        x, y = rows(64, 128)
        logits.append(model(x))
        labels.append(y)
    return torch.cat(logits), torch.cat(labels)


evaluate(model.eval())
