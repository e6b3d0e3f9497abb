# cause: copy of the network; card: 110 MiB; others: 0 MiB; set: written after
import torch
import torch.nn.functional as F
from networks import WideMlp, rows

model = WideMlp(features=1024, hidden=1400)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
best, best_weights = float("inf"), None
for step in range(12):
    x, y = rows(64 << step, 1024)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if loss.item() < best:
        best = loss.item()
        best_weights = {name: value.clone() for name, value in model.state_dict().items()}
