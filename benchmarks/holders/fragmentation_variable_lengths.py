# cause: fragmentation; card: 400 MiB; others: 0 MiB; set: written after
import random

import torch
from torch import nn

random.seed(1)
layer = nn.Linear(64, 64)
kept = []
for batch in range(300):
    length = random.randint(2000, 60000)
    x = torch.empty(length, 64)
    kept.append(torch.empty(random.randint(3000, 9000), 64))
    if len(kept) > 40:
        kept.pop(random.randrange(len(kept)))
    with torch.no_grad():
        y = layer(x)
    if batch % 10 == 9:
        longest = torch.empty(100_000 + 4_000 * batch, 64)
        del longest
