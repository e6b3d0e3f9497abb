# cause: growing list; card: 96 MiB; others: 0 MiB; set: written after
import torch
import torch.nn.functional as F
from networks import ConvNet, images

features = []
model = ConvNet(width=16)
model.features[0].register_forward_hook(lambda module, inputs, output: features.append(output.detach()))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(50):
    for step in range(10):
        x, y = images(16)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
