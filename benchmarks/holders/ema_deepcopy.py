# cause: copy of the network; card: 72 MiB; others: 0 MiB; set: looked at
import copy

import torch
import torch.nn.functional as F
from networks import WideMlp, rows

model = WideMlp(hidden=1280)
average = copy.deepcopy(model)
optimizer = torch.optim.Adam(model.parameters())
for step in range(10):
    x, y = rows(128 << step)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        for mine, theirs in zip(average.parameters(), model.parameters()):
            mine.lerp_(theirs, 0.01)
