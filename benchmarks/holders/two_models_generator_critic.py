# cause: second network; card: 96 MiB; others: 0 MiB; set: written after
import torch
from torch import nn


def mlp(*widths):
    layers = []
    for before, after in zip(widths, widths[1:]):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


generator = mlp(64, 1400, 1400, 784)
critic = mlp(784, 1300, 1300, 1)
first = torch.optim.SGD(generator.parameters(), lr=0.01)
second = torch.optim.SGD(critic.parameters(), lr=0.01)
for step in range(20):
    fake = generator(torch.randn(64 << step, 64))
    loss = critic(fake.detach()).mean() - critic(torch.randn(64, 784)).mean()
    second.zero_grad()
    loss.backward()
    second.step()
    loss = -critic(fake).mean()
    first.zero_grad()
    loss.backward()
    first.step()
