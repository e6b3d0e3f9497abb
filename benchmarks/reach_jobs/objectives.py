"""Losses and batches of many shapes: pairs, kernels, lattices, crops, augmentation, agents, and sizes drawn at random."""

import math
import random

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from .styles import case, images, job, mlp, own, tokens


def encoder(width=64):
    return torchvision.models.resnet18(num_classes=width)


def views(n):
    return {"one": torch.randn(n, 3, 64, 64), "other": torch.randn(n, 3, 64, 64)}


# ---- self-supervision


@case(8)
def variance_and_covariance():
    class Learning(nn.Module):
        def __init__(self):
            super().__init__()
            self.network, self.expand = (
                encoder(),
                nn.Sequential(nn.Linear(64, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 512)),
            )

        def forward(self, one, other):
            a, b = self.expand(self.network(one)), self.expand(self.network(other))
            loss = 25 * F.mse_loss(a, b)
            for side in (a, b):
                covariance = torch.cov(side.T)
                off = covariance.flatten()[:-1].view(511, 513)[:, 1:].flatten()
                loss = loss + 25 * F.relu(1 - (side.var(0) + 1e-4).sqrt()).mean() + off.square().sum() / 512
            return loss

    return own(Learning, views)


@case(4)
def siamese_without_negatives():
    class Learning(nn.Module):
        def __init__(self):
            super().__init__()
            self.network, self.predict = (
                encoder(),
                nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 64)),
            )

        def forward(self, one, other):
            a, b = self.network(one), self.network(other)
            return -sum(F.cosine_similarity(self.predict(x), y.detach()).mean() for x, y in ((a, b), (b, a))) / 2

    return own(Learning, views)


@case(2)
def crops_of_many_sizes():
    """Two large and four small crops as a list, joined by size (DINO), with a centre that follows."""

    class Learning(nn.Module):
        def __init__(self):
            super().__init__()
            self.student, self.teacher = encoder(), encoder().requires_grad_(False)
            self.register_buffer("centre", torch.zeros(1, 64))

        def forward(self, crops):
            sizes = torch.tensor([crop.shape[-1] for crop in crops])
            _, counts = torch.unique_consecutive(sizes, return_counts=True)
            start, found = 0, []
            for end in counts.cumsum(0).tolist():
                found.append(self.student(torch.cat(crops[start:end])))
                start = end
            found = torch.cat(found).chunk(len(crops))
            with torch.no_grad():
                for mine, theirs in zip(self.student.parameters(), self.teacher.parameters()):
                    theirs.lerp_(mine, 0.004)
                wanted = self.teacher(torch.cat(crops[:2]))
                targets = ((wanted - self.centre) / 0.04).softmax(-1).chunk(2)
                self.centre = self.centre * 0.9 + wanted.mean(0, keepdim=True) * 0.1
            losses = [
                -(target * (one / 0.1).log_softmax(-1)).sum(-1).mean()
                for a, target in enumerate(targets)
                for b, one in enumerate(found)
                if a != b
            ]
            return sum(losses) / len(losses)

    def batch(n):
        return {"crops": [torch.randn(n, 3, 64, 64) for _ in range(2)] + [torch.randn(n, 3, 32, 32) for _ in range(4)]}

    return own(Learning, batch)


@case(4)
def masked_patches():
    """A random quarter of the patches is seen; the rest is asked for."""

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside, self.places = nn.Linear(192, 64), nn.Parameter(torch.randn(1, 64, 64))
            self.encode, self.decode = mlp(64, 256, 64), mlp(64, 256, 192)
            self.mask = nn.Parameter(torch.zeros(1, 1, 64))

        def forward(self, pictures):
            patches = F.unfold(pictures, 8, stride=8).transpose(1, 2)
            count = patches.shape[1]
            order = torch.rand(len(patches), count, device=patches.device).argsort(1)
            back, kept = order.argsort(1), order[:, : count // 4]
            values = self.inside(patches) + self.places
            values = self.encode(values.gather(1, kept[..., None].expand(-1, -1, 64)))
            whole = torch.cat([values, self.mask.expand(len(values), count - values.shape[1], -1)], 1)
            whole = whole.gather(1, back[..., None].expand_as(whole)) + self.places
            hidden = torch.ones(len(values), count, device=values.device)
            hidden[:, : count // 4] = 0
            hidden = hidden.gather(1, back)
            return ((self.decode(whole) - patches).square().mean(-1) * hidden).sum() / hidden.sum()

    return own(Masked, lambda n: {"pictures": torch.rand(n, 3, 64, 64)})


@case(8)
def supervised_contrast():
    def loss(found, labels):
        found = F.normalize(found.view(len(labels), 2, -1), dim=-1)
        whole = torch.cat(found.unbind(1))
        same = labels.repeat(2)[:, None] == labels.repeat(2)
        own_place = torch.eye(len(whole), dtype=torch.bool, device=whole.device)
        scores = (whole @ whole.T / 0.1).masked_fill(own_place, -1e9)
        logs = scores - scores.logsumexp(1, keepdim=True)
        good = same & ~own_place
        return -(logs * good).sum(1).div(good.sum(1).clamp(min=1)).mean()

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = encoder()

        def forward(self, pictures):
            return self.network(pictures.flatten(0, 1))

    return job(Both, lambda n: (torch.randn(n, 2, 3, 32, 32), torch.randint(3, (n,))), loss)


@case(8)
def nearest_neighbours_of_a_queue():
    class Learning(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = encoder()
            self.register_buffer("queue", F.normalize(torch.randn(256, 64), dim=1))
            self.at = 0

        def forward(self, one, other):
            a, b = F.normalize(self.network(one)), F.normalize(self.network(other))
            with torch.no_grad():
                near = self.queue[(a @ self.queue.T).argmax(1)]
            loss = F.cross_entropy(near @ b.T / 0.1, torch.arange(len(a), device=a.device))
            with torch.no_grad():
                place = (self.at + torch.arange(len(a), device=a.device)) % len(self.queue)
                self.queue[place] = a.detach()
                self.at = (self.at + len(a)) % len(self.queue)
            return loss

    return own(Learning, views)


# ---- pairs, kernels and transport: what grows with the square of the batch


@case(16)
def pairs_of_half_a_batch():
    def loss(found, labels):
        half = len(found) // 2
        apart = F.pairwise_distance(found[:half], found[half : 2 * half])
        same = (labels[:half] == labels[half : 2 * half]).float()
        return (same * apart.square() + (1 - same) * F.relu(1 - apart).square()).mean()

    return job(encoder, images(64), loss)


@case(64)
def every_pair_once():
    def loss(found, wanted):
        a, b = torch.triu_indices(len(found), len(found), 1, device=found.device)
        margin = (found[a] - found[b]).squeeze(-1)
        return F.softplus(-margin * (wanted[a] - wanted[b]).sign()).mean() + 0.01 * F.pdist(found).mean()

    return job(lambda: mlp(64, 128, 1), lambda n: (torch.randn(n, 64), torch.randn(n)), loss)


@case(32)
def every_triplet():
    def loss(found, labels):
        apart = torch.cdist(found, found)
        same = labels[:, None] == labels
        other = ~torch.eye(len(found), dtype=torch.bool, device=found.device)
        valid = (same & other)[:, :, None] & ~same[:, None]
        hinge = F.relu(apart[:, :, None] - apart[:, None] + 0.2) * valid
        return hinge.sum() / (hinge > 1e-16).sum().clamp(min=1)

    return job(lambda: mlp(64, 128, 32), lambda n: (torch.randn(n, 64), torch.randint(8, (n,))), loss)


@case(64)
def gaussian_process():
    class Process(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.noise = mlp(16, 64, 8), nn.Parameter(torch.zeros(()))

        def forward(self, values, wanted):
            kernel = torch.exp(-torch.cdist(*[self.features(values)] * 2).square() / 2)
            kernel = kernel + (self.noise.exp() + 1e-3) * torch.eye(len(values), device=values.device)
            factor = torch.linalg.cholesky(kernel)
            solved = torch.cholesky_solve(wanted[:, None], factor)
            return (wanted @ solved).squeeze() / 2 + factor.diagonal().log().sum()

    return own(Process, lambda n: {"values": torch.randn(n, 16), "wanted": torch.randn(n)})


@case(64)
def transport_between_batches():
    """Sinkhorn's distance and the discrepancy of means, under several kernels."""

    def loss(found, wanted):
        price = torch.cdist(found, wanted).square()
        a = b = torch.zeros(len(found), device=found.device)
        level = -math.log(len(found))
        for _ in range(10):
            a = 0.1 * (level - torch.logsumexp((b - price) / 0.1, 1))
            b = 0.1 * (level - torch.logsumexp((a[:, None] - price) / 0.1, 0))
        plan = torch.exp((a[:, None] + b - price) / 0.1)
        whole = torch.cat([found, wanted])
        apart = (whole[None] - whole[:, None]).square().sum(2)
        kernel = sum(torch.exp(-apart / width) for width in (0.5, 1.0, 2.0, 4.0))
        sign = torch.cat([torch.ones(len(found), device=found.device), -torch.ones(len(wanted), device=found.device)])
        return (plan * price).sum() + (kernel * sign * sign[:, None]).mean()

    return job(lambda: mlp(16, 64, 16), lambda n: (torch.randn(n, 16), torch.randn(n, 16)), loss)


@case(8)
def style_and_content():
    """Gram matrices and features of a frozen network's stages."""

    class Transfer(nn.Module):
        def __init__(self):
            super().__init__()
            self.paint = nn.Sequential(
                nn.Conv2d(3, 16, 9, padding=4),
                nn.InstanceNorm2d(16, affine=True),
                nn.ReLU(),
                nn.Conv2d(16, 3, 9, padding=4),
            )
            self.seen = torchvision.models.vgg11().features[:11].requires_grad_(False).eval()

        def stages(self, pictures):
            found = []
            for layer in self.seen:
                pictures = layer(pictures)
                if isinstance(layer, nn.ReLU):
                    found.append(pictures)
            return found

        def forward(self, pictures):
            painted = self.paint(pictures)
            mine, theirs = self.stages(painted), self.stages(pictures)
            grams = [[one.flatten(2) @ one.flatten(2).mT / one[0].numel() for one in side] for side in (mine, theirs)]
            rough = painted.diff(dim=2).abs().mean() + painted.diff(dim=3).abs().mean()
            return F.mse_loss(mine[-1], theirs[-1]) + sum(map(F.mse_loss, *grams)) + 1e-3 * rough

    return own(Transfer, lambda n: {"pictures": torch.rand(n, 3, 64, 64)})


# ---- lattices and sequences


@case(2)
def transducer():
    """The lattice of a transducer in plain torch: every time with every letter."""

    class Speech(nn.Module):
        def __init__(self):
            super().__init__()
            self.hear, self.tell, self.join = nn.Conv1d(20, 64, 5, 2, 2), nn.Embedding(40, 64), nn.Linear(64, 40)

        def forward(self, sounds, letters):
            heard = self.hear(sounds).transpose(1, 2)
            told = self.tell(F.pad(letters, (1, 0))).cumsum(1)
            logs = self.join(torch.tanh(heard[:, :, None] + told[:, None])).log_softmax(-1)
            blank, label = (
                logs[..., 0],
                logs[:, :, :-1].gather(3, letters[:, None, :, None].expand(-1, logs.shape[1], -1, 1)).squeeze(3),
            )
            row = F.pad(label[:, 0].cumsum(1), (1, 0))
            for t in range(1, logs.shape[1]):
                new = [row[:, 0] + blank[:, t - 1, 0]]
                for u in range(1, row.shape[1]):
                    new.append(torch.logaddexp(row[:, u] + blank[:, t - 1, u], new[-1] + label[:, t, u - 1]))
                row = torch.stack(new, 1)
            return -(row[:, -1] + blank[:, -1, -1]).mean()

    return own(Speech, lambda n: {"sounds": torch.randn(n, 20, 40), "letters": torch.randint(1, 40, (n, 6))})


@case(8)
def pointers():
    """Points back at its input, never twice, drawn at random and rewarded by the way's length."""

    class Pointing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside, self.cell, self.q = nn.Linear(2, 64), nn.Linear(128, 64), nn.Linear(64, 64)

        def forward(self, towns):
            values = self.inside(towns)
            state, last = values.mean(1), values.mean(1)
            seen = torch.zeros(towns.shape[:2], dtype=torch.bool, device=towns.device)
            logs, way = [], []
            for _ in range(towns.shape[1]):
                state = torch.tanh(self.cell(torch.cat([state, last], -1)))
                scores = 10 * torch.tanh(torch.einsum("bnd,bd->bn", values, self.q(state)))
                chances = scores.masked_fill(seen, -math.inf).softmax(-1)
                chosen = torch.multinomial(chances, 1)
                seen = seen.scatter(1, chosen, True)
                logs.append(chances.gather(1, chosen).log())
                way.append(chosen)
                last = values.gather(1, chosen[..., None].expand(-1, -1, 64)).squeeze(1)
            way = towns.gather(1, torch.cat(way, 1)[..., None].expand(-1, -1, 2))
            length = (way - way.roll(1, 1)).norm(dim=-1).sum(1)
            return ((length - length.mean()).detach() * torch.cat(logs, 1).sum(1)).mean()

    return own(Pointing, lambda n: {"towns": torch.rand(n, 10, 2)})


@case(4)
def policy_of_a_language_model():
    """Answers are drawn with a growing cache, then learned by groups, against a frozen copy (GRPO)."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.qkv, self.mix = nn.Embedding(300, 64), nn.Linear(64, 192), mlp(64, 256, 64)

        def forward(self, ids, cache=None):
            values = self.words(ids)
            q, k, v = (one.unflatten(-1, (4, 16)).transpose(1, 2) for one in self.qkv(values).chunk(3, -1))
            if cache is not None:
                k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=ids.device).tril(k.shape[2] - q.shape[2])
            found = (q @ k.transpose(-1, -2) / 4).masked_fill(~mask, -math.inf).softmax(-1) @ v
            values = values + found.transpose(1, 2).flatten(2)
            return (values + self.mix(values)) @ self.words.weight.T, (k, v)

    def model():
        return nn.ModuleDict({"policy": Model(), "reference": Model().requires_grad_(False)})

    def logs(network, ids, start):
        found = network(ids[:, :-1])[0].log_softmax(-1)
        return found.gather(2, ids[:, 1:, None]).squeeze(2)[:, start - 1 :]

    def step(run, prompts):
        policy, group = run.model["policy"], 4
        ids = prompts.repeat_interleave(group, 0)
        done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        with torch.no_grad():
            new, cache = ids, None
            for _ in range(12):
                scores, cache = policy(new, cache)
                new = torch.multinomial((scores[:, -1] / 0.8).softmax(-1), 1)
                new = new.masked_fill(done[:, None], 0)
                done = done | (new[:, 0] == 1)
                ids = torch.cat([ids, new], 1)
                if done.all():
                    break
            before = logs(policy, ids, prompts.shape[1])
            theirs = logs(run.model["reference"], ids, prompts.shape[1])
        reward = (ids[:, prompts.shape[1] :] % 7 == 0).float().mean(1).view(-1, group)
        gain = ((reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 1e-4)).flatten()[:, None]
        for _ in range(2):
            mine = logs(policy, ids, prompts.shape[1])
            ratio = (mine - before).exp()
            apart = (theirs - mine).exp() - (theirs - mine) - 1
            loss = -torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean() + 0.04 * apart.mean()
            run.backward(loss)
            run.update()
        return loss.detach()

    return own(model, lambda n: tokens(n, 16, 300), step=step)


@case(4)
def sentences_padded_on_the_card():
    """A list of sequences, padded to a multiple in the network, pooled under a mask of booleans."""

    class Pooling(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.body, self.head = nn.Embedding(300, 64), mlp(64, 256, 64), nn.Linear(64, 4)

        def forward(self, sentences):
            ids = pad_sequence(sentences, batch_first=True)
            ids = F.pad(ids, (0, -ids.shape[1] % 64))
            mask = ids != 0
            values = self.body(self.words(ids)) * mask[..., None]
            return self.head(values.sum(1) / mask.sum(1, keepdim=True).clamp(min=1))

    def batch(n):
        return [torch.randint(1, 300, (20 + 7 * (i % 9),)) for i in range(n)], torch.randint(4, (n,))

    return job(Pooling, batch)


@case(4)
def nested_sentences():
    """A list of sequences as one nested tensor, without padding."""

    class Pooling(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside, self.head = nn.Linear(32, 128), nn.Linear(128, 4)

        def forward(self, sequences):
            values = torch.nested.nested_tensor_from_jagged(
                torch.cat(sequences),
                torch.tensor([0, *np.cumsum([len(one) for one in sequences]).tolist()], device=sequences[0].device),
            )
            values = F.gelu(self.inside(values))
            return self.head(values.to_padded_tensor(0.0).amax(1))

    return job(Pooling, lambda n: ([torch.randn(20 + 7 * (i % 9), 32) for i in range(n)], torch.randint(4, (n,))))


@case(8)
def bags_with_offsets():
    """Ids of all samples in one row, and where each sample begins."""

    class Bags(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.EmbeddingBag(2000, 64, mode="mean", include_last_offset=True), mlp(64, 128, 4)

        def forward(self, lists):
            ids = torch.cat(lists)
            offsets = torch.cat(
                [ids.new_zeros(1), torch.tensor([len(one) for one in lists], device=ids.device).cumsum(0)]
            )
            return self.head(self.table(ids, offsets))

    return job(Bags, lambda n: ([torch.randint(2000, (3 + i % 5,)) for i in range(n)], torch.randint(4, (n,))))


@case(4)
def trees():
    """Sums over the children of trees, whose shapes the host knows (TreeLSTM, level by level)."""

    class Tree(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.gates, self.head = nn.Embedding(100, 64), nn.Linear(128, 256), nn.Linear(64, 3)

        def forward(self, words, parents):
            values = self.words(words)
            state, cell = torch.zeros_like(values), torch.zeros_like(values)
            for at in range(words.shape[1] - 1, 0, -1):
                i, f, o, g = self.gates(torch.cat([values[:, at], state[:, at]], -1)).chunk(4, -1)
                new = f.sigmoid() * cell[:, at] + i.sigmoid() * g.tanh()
                index = parents[:, at, None, None].expand(-1, 1, 64)
                state = state.scatter_add(1, index, (o.sigmoid() * new.tanh())[:, None])
                cell = cell.scatter_add(1, index, new[:, None])
            return self.head(state[:, 0])

    def batch(n):
        parents = torch.stack([torch.tensor([max(0, (at - 1) // 2) for at in range(15)]) for _ in range(n)])
        return {"words": torch.randint(100, (n, 15)), "parents": parents}, torch.randint(3, (n,))

    return job(Tree, batch)


# ---- pictures: segmentation's losses, augmentation on the card, sizes drawn at random


def small_net(classes=5):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.SiLU(True),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.SiLU(True),
        nn.Conv2d(16, classes, 1),
    )


def masks(size=64):
    return lambda n: (torch.randn(n, 3, size, size), torch.randint(5, (n, size, size)))


@case(4)
def sorted_errors():
    """Lovász' extension of the overlap, and the hardest tenth of the pixels."""

    def loss(found, wanted):
        chances, flat = found.softmax(1).permute(0, 2, 3, 1).flatten(0, 2), wanted.flatten()
        total = 0
        for kind in range(chances.shape[1]):
            there = (flat == kind).float()
            errors, order = (there - chances[:, kind]).abs().sort(descending=True)
            sorted_there = there[order]
            overlap = 1 - (sorted_there.sum() - sorted_there.cumsum(0)) / (
                sorted_there.sum() + (1 - sorted_there).cumsum(0)
            )
            total = total + errors @ torch.cat([overlap[:1], overlap.diff()])
        hard = F.cross_entropy(found, wanted, reduction="none").flatten()
        return total / chances.shape[1] + hard.topk(hard.numel() // 10).values.mean()

    return job(small_net, masks(), loss)


@case(4)
def hard_pixels_by_threshold():
    def loss(found, wanted):
        each = F.cross_entropy(found, wanted, reduction="none").flatten()
        least = each.numel() // 16
        hard = each[each > 0.7]
        return hard.mean() if hard.numel() > least else each.topk(least).values.mean()

    return job(small_net, masks(), loss)


@case(8)
def cut_mixed_and_erased():
    """Bytes are normalised, mixed, cut and erased on the card before the network sees them."""

    def prepare(pictures, labels, training):
        pictures = pictures.float().div_(255).sub_(0.45).div_(0.225)
        hot = F.one_hot(labels, 10).float()
        if not training:
            return pictures, hot
        order = torch.randperm(len(pictures), device=pictures.device)
        share = float(np.random.beta(1.0, 1.0))
        side = int(pictures.shape[-1] * (1 - share) ** 0.5)
        y, x = random.randint(0, pictures.shape[-2] - side), random.randint(0, pictures.shape[-1] - side)
        pictures[:, :, y : y + side, x : x + side] = pictures[order, :, y : y + side, x : x + side]
        turned = torch.rand(len(pictures), 1, 1, 1, device=pictures.device) < 0.5
        pictures = torch.where(turned, pictures.flip(-1), pictures)
        return pictures, share * hot + (1 - share) * hot[order]

    def batch(n):
        return torch.randint(256, (n, 3, 64, 64), dtype=torch.uint8), torch.randint(10, (n,))

    return job(lambda: encoder(10), batch, F.cross_entropy, prepare=prepare)


@case(4)
def size_drawn_by_random():
    """Pictures are resized to a size that Python draws for each step (training at many scales)."""

    class Scales(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = encoder(10)

        def forward(self, pictures):
            if self.training:
                pictures = F.interpolate(
                    pictures, size=random.choice([64, 96, 128, 160]), mode="bilinear", align_corners=False
                )
            return self.network(pictures)

    return job(Scales, images(96))


@case(4)
def size_drawn_by_numpy():
    class Scales(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = encoder(10)

        def forward(self, pictures):
            if self.training:
                side = int(np.random.randint(2, 6)) * 32
                pictures = F.interpolate(pictures, size=side, mode="nearest")
            return self.network(pictures)

    return job(Scales, images(96))


@case(64)
def layers_dropped_by_python():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.head = nn.ModuleList(mlp(64, 512, 64) for _ in range(6)), nn.Linear(64, 10)

        def forward(self, values):
            for layer in self.layers:
                if self.training and random.random() < 0.2:
                    continue
                values = values + layer(values)
            return self.head(values)

    return job(Deep, lambda n: (torch.randn(n, 64), torch.randint(10, (n,))))


@case(64)
def layers_dropped_by_numpy():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.head = nn.ModuleList(mlp(64, 512, 64) for _ in range(6)), nn.Linear(64, 10)

        def forward(self, values):
            for layer in self.layers:
                if not self.training or np.random.uniform() >= 0.2:
                    values = values + layer(values)
            return self.head(values)

    return job(Deep, lambda n: (torch.randn(n, 64), torch.randint(10, (n,))))


@case(4)
def asked_itself_first():
    """With an even chance the network's own first answer is its second input (self-conditioning)."""

    class Denoiser(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(nn.Conv2d(6, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 3, 3, padding=1))

        def forward(self, pictures):
            level = torch.randn(len(pictures), 1, 1, 1, device=pictures.device).mul(1.2).sub(1.2).exp()
            noisy = pictures + level * torch.randn_like(pictures)
            before = torch.zeros_like(noisy)
            if random.random() < 0.5:
                with torch.no_grad():
                    before = self.network(torch.cat([noisy, before], 1))
            found = self.network(torch.cat([noisy, before], 1))
            return ((level.square() + 0.25) / (level * 0.5).square() * (found - pictures).square()).mean()

    return own(Denoiser, lambda n: {"pictures": torch.randn(n, 3, 64, 64)})


@case(4)
def answers_of_eight_turns_in_validation():
    """Trained on crops, judged on eight turned and mirrored pictures at once."""

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = small_net()

        def forward(self, pictures):
            if self.training:
                return self.network(pictures[..., :32, :32])
            many = torch.stack(
                [turn for k in range(4) for turn in (pictures.rot90(k, (2, 3)), pictures.rot90(k, (2, 3)).flip(3))]
            )
            return self.network(many.flatten(0, 1)).unflatten(0, (8, -1)).softmax(2).mean(0)

    def loss(found, wanted):
        return F.cross_entropy(found, wanted[..., : found.shape[-2], : found.shape[-1]])

    return job(Turned, masks(), loss)


@case(256)
def half_casts_within():
    """Autocast is entered in forward, and left for what needs float."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside, self.middle, self.out = nn.Linear(64, 512), nn.Linear(512, 512), nn.Linear(512, 10)

        def forward(self, values):
            with torch.autocast(values.device.type, dtype=torch.bfloat16):
                values = self.middle(self.inside(values).relu())
                with torch.autocast(values.device.type, enabled=False):
                    values = values.float() - values.float().mean(-1, keepdim=True)
                return self.out(values).float()

    return job(Mixed, lambda n: (torch.randn(n, 64), torch.randint(10, (n,))))
