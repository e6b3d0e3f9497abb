# cause: second network; card: 40 MiB; others: 0 MiB; set: looked at
import torch
import torch.nn.functional as F
from networks import WideMlp, rows

kept = []
for fold in range(5):
    model = WideMlp(hidden=896)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(4):
        x, y = rows()
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    kept.append(model)
