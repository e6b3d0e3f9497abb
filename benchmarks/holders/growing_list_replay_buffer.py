# cause: growing list; card: 96 MiB; others: 0 MiB; set: looked at
import torch
import torch.nn.functional as F
from networks import WideMlp

policy = WideMlp(features=4096, hidden=256, classes=4)
optimizer = torch.optim.Adam(policy.parameters())
buffer = []
state = torch.randn(16, 4096)
for step in range(2000):
    with torch.no_grad():
        action = policy(state).argmax(1)
    following = torch.randn(16, 4096)
    buffer.append((state, action, following))
    state = following
    if step % 4 == 3:
        states, actions, _ = buffer[step // 2]
        loss = F.cross_entropy(policy(states), actions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
