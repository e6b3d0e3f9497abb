# cause: fragmentation; card: 512 MiB; others: 0 MiB; set: looked at
import random

import torch

random.seed(3)
pool = [torch.empty(random.randint(4_000_000, 50_000_000), dtype=torch.uint8) for _ in range(14)]
for turn in range(400):
    place = random.randrange(len(pool))
    pool[place] = None
    pool[place] = torch.empty(random.randint(1_100_000, 24_000_000), dtype=torch.uint8)
    if turn % 20 == 19:
        big = torch.empty((60 + turn // 2) << 20, dtype=torch.uint8)
        del big
