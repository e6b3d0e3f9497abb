# cause: kept graph; card: 80 MiB; others: 0 MiB; set: written after
from collections import defaultdict

import torch
import torch.nn.functional as F
from networks import WideMlp, rows


def train(model, optimizer, history):
    for _ in range(500):
        x, y = rows(256)
        out = model(x)
        main = F.cross_entropy(out, y)
        entropy = -(model(x + 0.01).softmax(1) * out.detach().log_softmax(1)).sum(1).mean()
        optimizer.zero_grad()
        main.backward()
        optimizer.step()
        history["main"].append(main.item())
        history["entropy"].append(entropy)


network = WideMlp(hidden=512, depth=3)
train(network, torch.optim.AdamW(network.parameters()), defaultdict(list))
