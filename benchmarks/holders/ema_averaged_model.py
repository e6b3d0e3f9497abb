# cause: copy of the network; card: 110 MiB; others: 0 MiB; set: written after
import torch
import torch.nn.functional as F
from networks import WideMlp, rows
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

model = WideMlp(features=1024, hidden=1400)
averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for step in range(12):
    x, y = rows(32 << step, 1024)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    averaged.update_parameters(model)
