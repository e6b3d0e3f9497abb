# cause: forgotten no_grad; card: 64 MiB; others: 0 MiB; set: looked at
import torch
import torch.nn.functional as F
from networks import ConvNet, images

model = ConvNet()
optimizer = torch.optim.Adam(model.parameters())
for step in range(5):
    x, y = images(8)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

model.eval()
outputs = []
for batch in range(100):
    x, _ = images(8)
    outputs.append(model(x))
