# cause: fragmentation; card: 72 MiB; others: 0 MiB; set: looked at
import torch
import torch.nn.functional as F
from networks import ConvNet, images

model = ConvNet(width=16)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
held = []
for size in range(20, 400, 7):
    scratch = torch.empty(size * 40_000, dtype=torch.uint8)
    keep = torch.empty(1_200_000, dtype=torch.uint8)
    held = [*held[-6:], keep]
    x, y = images(4)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    del scratch
