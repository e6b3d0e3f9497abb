# cause: kept graph; card: 80 MiB; others: 0 MiB; set: written after
import torch
from torch import nn

critic = nn.Sequential(
    nn.Conv2d(3, 24, 3, 2, 1),
    nn.LeakyReLU(0.2),
    nn.Conv2d(24, 48, 3, 2, 1),
    nn.LeakyReLU(0.2),
    nn.Flatten(),
    nn.Linear(3072, 1),
)
optimizer = torch.optim.Adam(critic.parameters(), betas=(0.0, 0.9))
penalties = []
for step in range(500):
    real, fake = torch.randn(16, 3, 32, 32), torch.randn(16, 3, 32, 32)
    mixed = (0.5 * real + 0.5 * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
    penalty = (slope.flatten(1).norm(dim=1) - 1).pow(2).mean()
    penalties.append(penalty)
    loss = critic(fake).mean() - critic(real).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
