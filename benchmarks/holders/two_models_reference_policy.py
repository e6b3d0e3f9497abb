# cause: second network; card: 80 MiB; others: 0 MiB; set: written after
import torch
from torch import nn


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(4000, 256)
        self.body = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256))
        self.out = nn.Linear(256, 4000)

    def forward(self, tokens):
        return self.out(self.body(self.embed(tokens))).log_softmax(-1)


policy = Policy()
reference = Policy()
reference.load_state_dict(policy.state_dict())
reference.eval().requires_grad_(False)
optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
for step in range(12):
    tokens = torch.randint(0, 4000, (4, 4 << step))
    with torch.no_grad():
        old = reference(tokens)
    loss = (policy(tokens) - old).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
