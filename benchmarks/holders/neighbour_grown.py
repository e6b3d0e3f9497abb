# cause: other processes; card: 80 MiB; others: 24 MiB; set: looked at
import torch
import torch.nn.functional as F
from networks import ConvNet, images

model = ConvNet(width=32)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(10):
    x, y = images(8 + 4 * step)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
