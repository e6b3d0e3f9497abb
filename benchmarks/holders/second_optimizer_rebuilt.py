# cause: second optimizer; card: 100 MiB; others: 0 MiB; set: looked at
import torch
import torch.nn.functional as F
from networks import WideMlp, rows

model = WideMlp(hidden=1024, depth=2)
history = []
for stage in range(6):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001 / (stage + 1))
    history.append(optimizer)
    for step in range(3):
        x, y = rows(64)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
