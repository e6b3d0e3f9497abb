# cause: second network; card: 72 MiB; others: 0 MiB; set: written after
import torch
import torch.nn.functional as F
from networks import WideMlp, rows


def build(seed):
    torch.manual_seed(seed)
    return WideMlp(features=256, hidden=1024)


def main():
    members = []
    for seed in range(12):
        member = build(seed)
        optimizer = torch.optim.SGD(member.parameters(), lr=0.1)
        for _ in range(3):
            x, y = rows(32, 256)
            F.cross_entropy(member(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        members.append(member)
    return members


main()
