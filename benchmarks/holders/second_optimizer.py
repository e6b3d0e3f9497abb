# cause: second optimizer; card: 64 MiB; others: 0 MiB; set: looked at
import torch
import torch.nn.functional as F
from networks import WideMlp, rows

model = WideMlp(hidden=1024, depth=2)
warmup = torch.optim.Adam(model.parameters(), lr=1e-4)
main = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(12):
    x, y = rows(64)
    loss = F.cross_entropy(model(x), y)
    model.zero_grad()
    loss.backward()
    if step < 3:
        warmup.step()
    else:
        main.step()
    extra = torch.randn(1 << 18 << step)
