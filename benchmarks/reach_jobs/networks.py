"""Networks that are written out by those who train them: experts, scans, memories, routing, fields, detection."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .styles import case, job, mlp, own, tokens

WIDTH = 64


class Language(nn.Module):
    """Words in, blocks over BxLxD, words out."""

    def __init__(self, *blocks, words=500):
        super().__init__()
        self.words, self.blocks = nn.Embedding(words, WIDTH), nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, ids):
        values, extra = self.words(ids), 0
        for block in self.blocks:
            found = block(self.norm(values))
            if isinstance(found, tuple):
                found, more = found
                extra = extra + more
            values = values + found
        scores = values @ self.words.weight.T
        return F.cross_entropy(scores[:, :-1].flatten(0, 1), ids[:, 1:].flatten()) + extra


def language(length=64):
    return lambda n: {"ids": tokens(n, length)}


# ---- experts


class CapacityExperts(nn.Module):
    """Top two of the experts, each with room for so many tokens, by one-hot products (GShard)."""

    def __init__(self, experts=4, top=2, factor=1.25):
        super().__init__()
        self.gate, self.top, self.factor = nn.Linear(WIDTH, experts, bias=False), top, factor
        self.inside = nn.Parameter(torch.randn(experts, WIDTH, 2 * WIDTH) / 8)
        self.outside = nn.Parameter(torch.randn(experts, 2 * WIDTH, WIDTH) / 8)

    def forward(self, values):
        rows = values.flatten(0, 1)
        chances = self.gate(rows).float().softmax(-1)
        experts = chances.shape[1]
        room = int(math.ceil(self.factor * self.top * rows.shape[0] / experts))
        weights, chosen = chances.topk(self.top, -1)
        hot = F.one_hot(chosen, experts)
        place = (hot.transpose(0, 1).reshape(-1, experts).cumsum(0) - 1).view(self.top, -1, experts).transpose(0, 1)
        place = (place * hot).sum(-1)
        weights = weights * (place < room)
        slots = F.one_hot(place.clamp(max=room - 1), room).float()
        send = torch.einsum("tk,tke,tkc->tec", weights, hot.float(), slots)
        inputs = torch.einsum("tec,td->ecd", (send > 0).float(), rows)
        found = torch.bmm(F.gelu(torch.bmm(inputs, self.inside)), self.outside)
        balance = experts * (hot[:, 0].float().mean(0) * chances.mean(0)).sum()
        return torch.einsum("tec,ecd->td", send, found).view_as(values), 0.01 * balance


@case(2)
def experts_with_capacity():
    return own(lambda: Language(CapacityExperts(), CapacityExperts()), language())


class SortedExperts(nn.Module):
    """No token is dropped: they are sorted by expert, and cut where the counts say."""

    def __init__(self, experts=4, top=2):
        super().__init__()
        self.gate, self.top = nn.Linear(WIDTH, experts), top
        self.experts = nn.ModuleList(mlp(WIDTH, 2 * WIDTH, WIDTH) for _ in range(experts))

    def forward(self, values):
        rows = values.flatten(0, 1)
        weights, chosen = self.gate(rows).softmax(-1).topk(self.top, -1)
        order = chosen.flatten().argsort()
        counts = torch.bincount(chosen.flatten(), minlength=len(self.experts)).tolist()
        parts = rows[order // self.top].split(counts)
        found = torch.cat([expert(part) for expert, part in zip(self.experts, parts)])
        found = found * weights.flatten()[order, None]
        return torch.zeros_like(rows).index_add(0, order // self.top, found).view_as(values)


@case(2)
def experts_sorted():
    return own(lambda: Language(SortedExperts(), SortedExperts()), language())


class SoftExperts(nn.Module):
    """Every expert takes a mean of all tokens."""

    def __init__(self, experts=4, slots=8):
        super().__init__()
        self.slots = nn.Parameter(torch.randn(WIDTH, experts, slots))
        self.experts = nn.ModuleList(mlp(WIDTH, 2 * WIDTH, WIDTH) for _ in range(experts))

    def forward(self, values):
        scores = torch.einsum("bld,des->bles", values, self.slots)
        inputs = torch.einsum("bld,bles->besd", values, scores.softmax(1))
        found = torch.stack([expert(one) for expert, one in zip(self.experts, inputs.unbind(1))], 1)
        return torch.einsum("besd,bles->bld", found, scores.flatten(2).softmax(-1).view_as(scores))


@case(2)
def experts_soft():
    return own(lambda: Language(SoftExperts(), SoftExperts()), language())


# ---- recurrences


class SelectiveScan(nn.Module):
    """A state space whose rates the input chooses, one step after the other (Mamba, as its reference)."""

    def __init__(self, state=8):
        super().__init__()
        self.inside, self.outside = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.conv = nn.Conv1d(WIDTH, WIDTH, 4, padding=3, groups=WIDTH)
        self.choose, self.rate = nn.Linear(WIDTH, 2 * state + 1), nn.Parameter(torch.randn(WIDTH, state))
        self.skip, self.state = nn.Parameter(torch.ones(WIDTH)), state

    def forward(self, values):
        x, gate = self.inside(values).chunk(2, -1)
        x = F.silu(self.conv(x.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)
        step, into, out = self.choose(x).split([1, self.state, self.state], -1)
        step = F.softplus(step)
        keep = torch.exp(step[..., None] * -self.rate.exp())
        add = (step * x)[..., None] * into[:, :, None]
        state, found = x.new_zeros(x.shape[0], WIDTH, self.state), []
        for at in range(x.shape[1]):
            state = keep[:, at] * state + add[:, at]
            found.append((state * out[:, at, None]).sum(-1))
        return self.outside((torch.stack(found, 1) + x * self.skip) * F.silu(gate))


@case(2)
def selective_scan():
    return own(lambda: Language(SelectiveScan(), SelectiveScan()), language(32))


class LogScan(nn.Module):
    """A gated recurrence in logarithms, all steps at once (minGRU, heinsen's scan)."""

    def __init__(self):
        super().__init__()
        self.both = nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, values):
        new, gate = self.both(values).chunk(2, -1)
        keep = (-F.softplus(gate)).cumsum(1)
        add = -F.softplus(-gate) + torch.where(new >= 0, (F.relu(new) + 0.5).log(), -F.softplus(-new))
        return (keep + (add - keep).logcumsumexp(1)).exp()


@case(4)
def logarithmic_scan():
    return own(lambda: Language(LogScan(), LogScan()), language())


class TimeMixing(nn.Module):
    """RWKV's weighted means, numerically safe, step after step."""

    def __init__(self):
        super().__init__()
        self.decay, self.first = nn.Parameter(torch.randn(WIDTH)), nn.Parameter(torch.randn(WIDTH))
        self.mix = nn.Parameter(torch.rand(3, WIDTH))
        self.key, self.value, self.gate = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.shift = nn.ZeroPad2d((0, 0, 1, -1))

    def forward(self, values):
        k, v, r = (values * mix + self.shift(values) * (1 - mix) for mix in self.mix)
        k, v, r = self.key(k), self.value(v), self.gate(r).sigmoid()
        above = below = torch.zeros_like(k[:, 0])
        largest, outs = torch.full_like(above, -1e38), []
        for at in range(k.shape[1]):
            now = torch.maximum(largest, self.first + k[:, at])
            a, b = (largest - now).exp(), (self.first + k[:, at] - now).exp()
            outs.append((a * above + b * v[:, at]) / (a * below + b))
            now = torch.maximum(largest - self.decay.exp(), k[:, at])
            a, b = (largest - self.decay.exp() - now).exp(), (k[:, at] - now).exp()
            above, below, largest = a * above + b * v[:, at], a * below + b, now
        return r * torch.stack(outs, 1)


@case(2)
def time_mixing():
    return own(lambda: Language(TimeMixing()), language(32))


class Retention(nn.Module):
    """Chunks: products within, a decayed state between (RetNet, gated linear attention)."""

    def __init__(self, heads=4, chunk=16):
        super().__init__()
        self.project, self.out, self.heads, self.chunk = (
            nn.Linear(WIDTH, 3 * WIDTH),
            nn.Linear(WIDTH, WIDTH),
            heads,
            chunk,
        )
        self.norm = nn.GroupNorm(heads, WIDTH)
        self.register_buffer("decay", 1 - 2.0 ** (-5 - torch.arange(heads)))

    def forward(self, values):
        q, k, v = (
            one.unflatten(-1, (self.heads, -1)).transpose(1, 2).unflatten(2, (-1, self.chunk))
            for one in self.project(values).chunk(3, -1)
        )
        at = torch.arange(self.chunk, device=values.device)
        mask = (self.decay[:, None, None] ** (at[:, None] - at).clamp(min=0)) * (at[:, None] >= at)
        within = ((q @ k.transpose(-1, -2)) * mask[:, None]) @ v
        state, between = 0, []
        fade = self.decay[:, None] ** (self.chunk - 1 - at)
        for c in range(q.shape[2]):
            between.append(
                q[:, :, c] @ state * (self.decay[:, None] ** (at + 1))[..., None]
                if c
                else torch.zeros_like(within[:, :, 0])
            )
            state = (
                state * (self.decay**self.chunk)[:, None, None]
                + (k[:, :, c] * fade[..., None]).transpose(-1, -2) @ v[:, :, c]
            )
        found = (within + torch.stack(between, 2)).flatten(2, 3).transpose(1, 2).flatten(2)
        return self.out(self.norm(found.flatten(0, 1)).view_as(found))


@case(4)
def retention_in_chunks():
    return own(lambda: Language(Retention(), Retention()), language())


class Memory(nn.Module):
    """Attention over this segment and those before it, kept from step to step (Transformer-XL)."""

    def __init__(self, heads=4, kept=192):
        super().__init__()
        self.q, self.kv, self.heads, self.kept = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH), heads, kept
        self.memory = None

    def forward(self, values):
        seen = values if self.memory is None else torch.cat([self.memory, values], 1)
        if self.training:
            self.memory = seen[:, -self.kept :].detach()
        k, v = (one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in self.kv(seen).chunk(2, -1))
        q = self.q(values).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        here, there = torch.arange(q.shape[2], device=q.device), torch.arange(k.shape[2], device=q.device)
        apart = here[:, None] + k.shape[2] - q.shape[2] - there
        slope = 2.0 ** -torch.arange(1, self.heads + 1, device=q.device)
        scores = q @ k.transpose(-1, -2) / 4 - slope[:, None, None] * apart
        return (scores.masked_fill(apart < 0, -math.inf).softmax(-1) @ v).transpose(1, 2).flatten(2)


@case(4)
def segments_remembered():
    return own(lambda: Language(Memory(), Memory()), language())


class Window(nn.Module):
    """Rotary positions, a window of the past from a large mask kept as a buffer, and T5's buckets of distance."""

    def __init__(self, heads=4, longest=512, window=24):
        super().__init__()
        self.project, self.bias, self.heads = nn.Linear(WIDTH, 3 * WIDTH), nn.Embedding(16, heads), heads
        at = torch.arange(longest)
        self.register_buffer("mask", ((at[:, None] - at < 0) | (at[:, None] - at >= window))[None, None])
        self.register_buffer("rates", 10000 ** -(torch.arange(0, 16, 2) / 16), persistent=False)

    def turned(self, x):
        angle = torch.arange(x.shape[2], device=x.device)[:, None] * self.rates
        cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin

    def forward(self, values):
        q, k, v = (one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in self.project(values).chunk(3, -1))
        length = q.shape[2]
        at = torch.arange(length, device=q.device)
        apart = (at[:, None] - at).clamp(min=0)
        large = 8 + ((apart.float() / 8).clamp(min=1).log() / math.log(16) * 8).long().clamp(max=7)
        bias = self.bias(torch.where(apart < 8, apart, large)).permute(2, 0, 1)
        scores = self.turned(q) @ self.turned(k).transpose(-1, -2) / 4 + bias
        scores = scores.masked_fill(self.mask[:, :, :length, :length], torch.finfo(scores.dtype).min)
        return (F.dropout(scores.softmax(-1), 0.1, self.training) @ v).transpose(1, 2).flatten(2)


@case(4)
def window_of_rotary_attention():
    return own(lambda: Language(Window(), Window()), language(128))


class LongFilter(nn.Module):
    """A convolution as long as the sequence, by Fourier transform, whose filter a small network makes (Hyena)."""

    def __init__(self):
        super().__init__()
        self.project, self.filter = nn.Linear(WIDTH, 3 * WIDTH), mlp(9, 32, WIDTH)

    def forward(self, values):
        a, b, v = self.project(values).chunk(3, -1)
        length = v.shape[1]
        at = torch.linspace(0, 1, length, device=v.device)[:, None]
        waves = 2 * math.pi * at * torch.arange(1, 5, device=v.device)
        kernel = self.filter(torch.cat([at, waves.sin(), waves.cos()], -1)) * torch.exp(-at * 3)
        spectrum = torch.fft.rfft(kernel, n=2 * length, dim=0) * torch.fft.rfft(v * b, n=2 * length, dim=1)
        return a * torch.fft.irfft(spectrum, n=2 * length, dim=1)[:, :length]


@case(4)
def filters_as_long_as_the_text():
    return own(lambda: Language(LongFilter(), LongFilter()), language(128))


class Tape(nn.Module):
    """A controller that reads and writes a matrix (neural Turing machine)."""

    def __init__(self, cells=32):
        super().__init__()
        self.control, self.start = nn.Linear(16 + WIDTH, WIDTH), nn.Parameter(torch.randn(cells, WIDTH))
        self.heads, self.out = nn.Linear(WIDTH, 5 * WIDTH), nn.Linear(WIDTH, 8)

    def forward(self, values):
        tape = self.start.expand(values.shape[0], -1, -1).clone()
        read, found = values.new_zeros(values.shape[0], WIDTH), []
        for value in values.unbind(1):
            state = torch.tanh(self.control(torch.cat([value, read], -1)))
            reading, writing, erase, add, _ = self.heads(state).chunk(5, -1)
            where = F.cosine_similarity(tape, writing[:, None], -1).softmax(-1)[..., None]
            tape = tape * (1 - where * erase.sigmoid()[:, None]) + where * add[:, None]
            read = (F.cosine_similarity(tape, reading[:, None], -1).softmax(-1)[..., None] * tape).sum(1)
            found.append(self.out(read))
        return torch.stack(found, 1)


@case(4)
def tape_of_a_machine():
    return job(Tape, lambda n: (torch.randn(n, 12, 16), torch.rand(n, 12, 8)), F.binary_cross_entropy_with_logits)


class Adaptive(nn.Module):
    """Ponders until every sample has halted (adaptive computation time)."""

    def __init__(self):
        super().__init__()
        self.cell, self.halt, self.out = nn.Linear(2 * WIDTH, WIDTH), nn.Linear(WIDTH, 1), nn.Linear(WIDTH, 4)

    def forward(self, values):
        state, total, found = torch.zeros_like(values), values.new_zeros(len(values), 1), 0
        for _ in range(12):
            state = torch.tanh(self.cell(torch.cat([values, state], -1)))
            share = self.halt(state).sigmoid()
            share = torch.where(total + share > 0.99, 1 - total, share)
            found, total = found + share * state, total + share
            if (total > 0.98).all():
                break
        return self.out(found)


@case(32)
def pondering():
    return job(Adaptive, lambda n: (torch.randn(n, WIDTH), torch.randint(4, (n,))))


# ---- images


class Capsules(nn.Module):
    """Routing by agreement, whose votes are all kept."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 32, 9), nn.Conv2d(32, 32, 9, 2)
        self.turns = nn.Parameter(torch.randn(10, 144, 8, 16) / 8)

    @staticmethod
    def squash(values):
        norm = values.norm(dim=-1, keepdim=True)
        return values * norm / (1 + norm.square())

    def forward(self, pictures):
        low = self.squash(self.second(self.first(pictures).relu()).view(len(pictures), -1, 8))
        votes = torch.einsum("bid,oide->boie", low, self.turns)
        still, scores = votes.detach(), votes.new_zeros(votes.shape[:3])
        for turn in range(3):
            share = scores.softmax(1)[..., None]
            last = turn == 2
            found = self.squash((share * (votes if last else still)).sum(2))
            if not last:
                scores = scores + (still * found[:, :, None].detach()).sum(-1)
        return found.norm(dim=-1)


@case(8)
def capsules():
    def loss(found, labels):
        hot = F.one_hot(labels, 10)
        return (hot * F.relu(0.9 - found).square() + 0.5 * (1 - hot) * F.relu(found - 0.1).square()).sum(1).mean()

    return job(Capsules, lambda n: (torch.rand(n, 1, 28, 28), torch.randint(10, (n,))), loss)


class FiltersOfASample(nn.Module):
    """A network makes each sample's own filters; all samples go through one grouped convolution."""

    def __init__(self):
        super().__init__()
        self.hyper, self.stem, self.head = mlp(16, 64, 16 * 16 * 9), nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 10)

    def forward(self, pictures, style):
        count = len(pictures)
        weight = self.hyper(style).view(count * 16, 16, 3, 3)
        weight = weight * (weight.square().mean((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        values = self.stem(pictures)
        values = F.conv2d(values.reshape(1, count * 16, *values.shape[2:]), weight, padding=1, groups=count)
        return self.head(F.leaky_relu(values.view(count, 16, *values.shape[2:]), 0.2, inplace=True).mean((2, 3)))


@case(4)
def filters_of_a_sample():
    return job(
        FiltersOfASample,
        lambda n: ({"pictures": torch.randn(n, 3, 32, 32), "style": torch.randn(n, 16)}, torch.randint(10, (n,))),
    )


class Involution(nn.Module):
    """Windows unfolded, weighed by filters of each place, folded back."""

    def __init__(self):
        super().__init__()
        self.stem, self.weigh, self.out = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 4 * 9, 1), nn.Conv2d(16, 3 * 4, 1)

    def forward(self, pictures):
        values = self.stem(pictures)
        count, channels, high, wide = values.shape
        windows = F.unfold(values, 3, padding=1).view(count, 4, channels // 4, 9, high, wide)
        weights = self.weigh(values).view(count, 4, 1, 9, high, wide).softmax(3)
        found = (windows * weights).sum(3).view_as(values)
        folded = F.fold(F.unfold(found, 2, stride=2), (high, wide), 2, stride=2)
        return F.pixel_shuffle(self.out(folded + values), 2)


@case(2)
def windows_unfolded():
    def similarity(found, wanted):
        a, b = (F.avg_pool2d(one, 7, 1, 3) for one in (found, wanted))
        aa, bb, ab = (F.avg_pool2d(x * y, 7, 1, 3) for x, y in ((found, found), (wanted, wanted), (found, wanted)))
        ssim = ((2 * a * b + 1e-4) * (2 * (ab - a * b) + 9e-4)) / (
            (a * a + b * b + 1e-4) * (aa - a * a + bb - b * b + 9e-4)
        )
        return 1 - ssim.mean() + ((found - wanted).square() + 1e-6).sqrt().mean()

    return job(Involution, lambda n: (torch.rand(n, 3, 64, 64), torch.rand(n, 3, 64, 64)), similarity)


class Slots(nn.Module):
    """Slots that compete for places, decoded by a broadcast."""

    def __init__(self, slots=5):
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(3, 32, 5, padding=2), nn.ReLU(), nn.Conv2d(32, 32, 5, 2, 2))
        self.middle, self.spread, self.slots = (
            nn.Parameter(torch.zeros(1, 1, 32)),
            nn.Parameter(torch.zeros(1, 1, 32)),
            slots,
        )
        self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))
        self.update, self.decode = (
            mlp(64, 64, 32),
            nn.Sequential(nn.Conv2d(34, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 4, 3, padding=1)),
        )

    def forward(self, pictures):
        values = self.encode(pictures).flatten(2).transpose(1, 2)
        k, v = self.k(values), self.v(values)
        slots = self.middle + self.spread.exp() * torch.randn(len(pictures), self.slots, 32, device=pictures.device)
        for turn in range(3):
            slots = slots.detach() if turn == 2 else slots
            share = (k @ self.q(slots).transpose(1, 2) / 6).softmax(-1) + 1e-8
            slots = slots + self.update(
                torch.cat([slots, (share / share.sum(1, keepdim=True)).transpose(1, 2) @ v], -1)
            )
        side = pictures.shape[-1]
        wide = slots.flatten(0, 1)[:, :, None, None].expand(-1, -1, side, side)
        place = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, side, device=wide.device)] * 2, indexing="ij"))
        found = self.decode(torch.cat([wide, place.expand(len(wide), -1, -1, -1)], 1)).unflatten(0, (-1, self.slots))
        colour, mask = found.split([3, 1], 2)
        return F.mse_loss((colour * mask.softmax(1)).sum(1), pictures)


@case(2)
def slots():
    return own(Slots, lambda n: {"pictures": torch.rand(n, 3, 32, 32)})


class MaskedConv(nn.Conv2d):
    """Sees only what comes before; the weight itself is masked, in place, at each call."""

    def __init__(self, kind, *args, **kwargs):
        super().__init__(*args, **kwargs)
        mask = torch.ones_like(self.weight)
        mask[:, :, self.kernel_size[0] // 2, self.kernel_size[1] // 2 + (kind == "B") :] = 0
        mask[:, :, self.kernel_size[0] // 2 + 1 :] = 0
        self.register_buffer("mask", mask)

    def forward(self, values):
        self.weight.data *= self.mask
        return super().forward(values)


@case(2)
def pixels_one_by_one():
    def model():
        return nn.Sequential(
            MaskedConv("A", 1, 32, 7, padding=3),
            nn.BatchNorm2d(32),
            nn.ReLU(True),
            MaskedConv("B", 32, 32, 7, padding=3),
            nn.BatchNorm2d(32),
            nn.ReLU(True),
            nn.Conv2d(32, 256, 1),
        )

    def batch(n):
        grey = torch.randint(256, (n, 1, 28, 28))
        return grey.float() / 255, grey[:, 0]

    return job(model, batch)


class Splines(nn.Module):
    """Every edge is a spline of the input (Kolmogorov-Arnold network)."""

    def __init__(self, inside, outside, grid=5, order=3):
        super().__init__()
        self.order = order
        self.register_buffer(
            "knots", (torch.arange(-order, grid + order + 1) * 0.4 - 1).expand(inside, -1).contiguous()
        )
        self.base, self.weight = (
            nn.Linear(inside, outside),
            nn.Parameter(torch.randn(outside, inside, grid + order) / 9),
        )

    def forward(self, values):
        x, knots = values[..., None], self.knots
        basis = ((x >= knots[:, :-1]) & (x < knots[:, 1:])).to(values.dtype)
        for k in range(1, self.order + 1):
            basis = (x - knots[:, : -(k + 1)]) / (knots[:, k:-1] - knots[:, : -(k + 1)]) * basis[..., :-1] + (
                knots[:, k + 1 :] - x
            ) / (knots[:, k + 1 :] - knots[:, 1:-k]) * basis[..., 1:]
        return F.silu(self.base(values)) + F.linear(basis.flatten(1), self.weight.flatten(1))


@case(64)
def splines_on_edges():
    return job(
        lambda: nn.Sequential(Splines(32, 64), Splines(64, 10)),
        lambda n: (torch.rand(n, 32) * 2 - 1, torch.randint(10, (n,))),
    )


class ConvolvedCells(nn.Module):
    """A recurrent cell of convolutions over frames, then the frames to come."""

    def __init__(self, width=16):
        super().__init__()
        self.cell, self.out, self.width = nn.Conv2d(1 + width, 4 * width, 3, padding=1), nn.Conv2d(width, 1, 1), width

    def forward(self, frames):
        state = cell = frames.new_zeros(frames.shape[0], self.width, *frames.shape[-2:])
        found, frame = [], None
        for at in range(2 * frames.shape[1]):
            frame = frames[:, at] if at < frames.shape[1] else self.out(state).sigmoid()
            i, f, o, g = self.cell(torch.cat([frame, state], 1)).chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            state = o.sigmoid() * cell.tanh()
            if at >= frames.shape[1]:
                found.append(frame)
        return torch.stack(found, 1)


@case(2)
def frames_to_come():
    return job(
        ConvolvedCells, lambda n: (torch.rand(n, 4, 1, 24, 24), torch.rand(n, 4, 1, 24, 24)), F.binary_cross_entropy
    )


class Latents(nn.Module):
    """A few latents attend to many places (Perceiver), expanded to the batch."""

    def __init__(self, latents=32):
        super().__init__()
        self.latents, self.places = nn.Parameter(torch.randn(latents, WIDTH)), nn.Parameter(torch.randn(1024, 13))
        self.kv, self.q, self.mix, self.head = (
            nn.Linear(16, 2 * WIDTH),
            nn.Linear(WIDTH, WIDTH),
            mlp(WIDTH, WIDTH, WIDTH),
            nn.Linear(WIDTH, 10),
        )

    def forward(self, pictures):
        rows = torch.cat([pictures.flatten(2).transpose(1, 2), self.places.expand(len(pictures), -1, -1)], -1)
        latents = self.latents.expand(len(pictures), -1, -1)
        k, v = self.kv(rows).chunk(2, -1)
        for _ in range(2):
            latents = latents + (self.q(latents) @ k.transpose(1, 2) / 8).softmax(-1) @ v
            latents = latents + self.mix(latents)
        return self.head(latents.mean(1))


@case(4)
def latents_of_many_places():
    return job(Latents, lambda n: (torch.randn(n, 3, 32, 32), torch.randint(10, (n,))))


class ComplexLayer(nn.Module):
    """Complex weights, and an activation of the modulus."""

    def __init__(self, inside, outside):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outside, inside, dtype=torch.cfloat) / inside**0.5)
        self.bias = nn.Parameter(torch.zeros(outside))

    def forward(self, values):
        found = values @ self.weight.T
        size = found.abs()
        return torch.polar(F.relu(size + self.bias), found.angle())


@case(32)
def complex_network():
    class Signals(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.head = nn.Sequential(ComplexLayer(64, 128), ComplexLayer(128, 64)), nn.Linear(128, 5)

        def forward(self, signals):
            return self.head(torch.view_as_real(self.layers(signals)).flatten(1))

    return job(Signals, lambda n: (torch.randn(n, 64, dtype=torch.cfloat), torch.randint(5, (n,))))


# ---- detection


class Queries(nn.Module):
    """Boxes by queries, matched to those that are there by scipy on the host (DETR)."""

    def __init__(self, queries=20):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 32, 5, 4, 2), nn.ReLU(), nn.Conv2d(32, WIDTH, 3, 2, 1))
        self.queries, self.classes, self.boxes = (
            nn.Parameter(torch.randn(queries, WIDTH)),
            nn.Linear(WIDTH, 6),
            mlp(WIDTH, WIDTH, 4),
        )

    def forward(self, pictures):
        places = self.body(pictures).flatten(2)
        found = (self.queries @ places / 8).softmax(-1) @ places.transpose(1, 2)
        return self.classes(found), self.boxes(found).sigmoid()


def matched_loss(found, targets):
    from scipy.optimize import linear_sum_assignment

    scores, boxes = found
    sizes = [len(one["labels"]) for one in targets]
    labels, wanted = torch.cat([one["labels"] for one in targets]), torch.cat([one["boxes"] for one in targets])
    with torch.no_grad():
        price = -scores.flatten(0, 1).softmax(-1)[:, labels] + 5 * torch.cdist(boxes.flatten(0, 1), wanted, p=1)
        price = price.view(*scores.shape[:2], -1).cpu()
        pairs = [linear_sum_assignment(one[at]) for at, one in enumerate(price.split(sizes, -1))]
        pairs = [tuple(torch.as_tensor(side, dtype=torch.int64) for side in pair) for pair in pairs]
    rows = torch.cat([torch.full_like(source, at) for at, (source, _) in enumerate(pairs)])
    columns = torch.cat([source for source, _ in pairs])
    classes = torch.full(scores.shape[:2], 5, dtype=torch.int64, device=scores.device)
    classes[rows, columns] = torch.cat([one["labels"][to] for one, (_, to) in zip(targets, pairs)])
    chosen = torch.cat([one["boxes"][to] for one, (_, to) in zip(targets, pairs)])
    box = F.l1_loss(boxes[rows, columns], chosen, reduction="none").sum() / len(chosen)
    return F.cross_entropy(scores.transpose(1, 2), classes) + 5 * box


def listed_boxes(n):
    targets = [{"labels": torch.randint(5, (2 + i % 3,)), "boxes": torch.rand(2 + i % 3, 4)} for i in range(n)]
    return torch.randn(n, 3, 64, 64), targets


@case(4)
def boxes_matched_by_scipy():
    return job(Queries, listed_boxes, matched_loss)


class Grid(nn.Module):
    """A head of one stage (YOLO): anchors of a grid, assigned by their overlaps."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.SiLU(True), nn.Conv2d(16, 32, 3, 2, 1), nn.SiLU(True))
        self.head = nn.Conv2d(32, 3 * 10, 1)

    def forward(self, pictures):
        found = self.head(self.body(pictures))
        return found.view(len(found), 3, 10, *found.shape[2:]).permute(0, 1, 3, 4, 2).contiguous()


def grid_loss(found, targets):
    """Targets are rows of picture, class and box, as YOLO's collate puts them."""
    anchors = torch.tensor([[1.2, 1.6], [2.0, 3.7], [4.1, 2.8]], device=found.device)
    owner = torch.arange(targets.shape[0], device=found.device)[:, None].expand(targets.shape[:2])
    rows = torch.cat([owner[..., None], targets], -1).flatten(0, 1)
    size = torch.tensor(found.shape, device=found.device)[[3, 2, 3, 2]]
    boxes = rows[:, 2:] * size
    rate = boxes[None, :, 2:] / anchors[:, None]
    near = torch.max(rate, 1 / rate).max(2)[0] < 4
    which = torch.arange(3, device=found.device)[:, None].expand_as(near)[near]
    rows, boxes = rows.expand(3, -1, -1)[near], boxes.expand(3, -1, -1)[near]
    image, kind = rows[:, :2].long().T
    cell = boxes[:, :2].long()
    x, y = cell[:, 0].clamp_(0, found.shape[3] - 1), cell[:, 1].clamp_(0, found.shape[2] - 1)
    chosen = found[image, which, y, x]
    centre, sides = chosen[:, :2].sigmoid() * 2 - 0.5, (chosen[:, 2:4].sigmoid() * 2) ** 2 * anchors[which]
    box = (torch.cat([centre, sides], 1) - torch.cat([boxes[:, :2] - cell, boxes[:, 2:]], 1)).abs().mean()
    there = torch.zeros_like(found[..., 4])
    there[image, which, y, x] = 1.0
    hot = torch.full_like(chosen[:, 5:], 0.0)
    hot[range(len(chosen)), kind] = 1.0
    classes = F.binary_cross_entropy_with_logits(chosen[:, 5:], hot)
    return box + classes + F.binary_cross_entropy_with_logits(found[..., 4], there)


@case(4)
def anchors_assigned():
    return job(
        Grid,
        lambda n: (torch.rand(n, 3, 64, 64), torch.cat([torch.randint(5, (n, 6, 1)).float(), torch.rand(n, 6, 4)], -1)),
        grid_loss,
    )


def heat_loss(found, targets):
    """Gaussians drawn on the device around each centre, then a focal loss of their sum (CenterNet)."""
    high, wide = found.shape[2:]
    y = torch.arange(high, device=found.device)[:, None]
    x = torch.arange(wide, device=found.device)
    centre = targets["centres"] * torch.tensor([wide, high], device=found.device)
    apart = (x - centre[..., 0, None, None]).square() + (y - centre[..., 1, None, None]).square()
    heat = torch.exp(-apart / 8)
    wanted = torch.zeros_like(found).scatter_reduce(
        1, targets["classes"][:, :, None, None].expand_as(heat), heat, "amax"
    )
    chances = found.sigmoid().clamp(1e-4, 1 - 1e-4)
    there = wanted.gt(0.99).float()
    good = chances.log() * (1 - chances).square() * there
    bad = (1 - chances).log() * chances.square() * (1 - wanted) ** 4 * (1 - there)
    return -(good.sum() + bad.sum()) / there.sum().clamp(min=1)


@case(2)
def centres_drawn():
    def batch(n):
        return torch.rand(n, 3, 64, 64), {"centres": torch.rand(n, 5, 2), "classes": torch.randint(5, (n, 5))}

    return job(
        lambda: nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(True), nn.Conv2d(16, 5, 3, padding=1)),
        batch,
        heat_loss,
    )


# ---- fields and points


class HashedField(nn.Module):
    """Tables of features at corners of grids, found by hashing (instant neural graphics primitives)."""

    def __init__(self, levels=4, size=4096):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, 2) for _ in range(levels))
        self.head, self.size = mlp(2 * levels, 32, 3), size
        self.register_buffer("primes", torch.tensor([1, 2654435761, 805459861]))
        self.register_buffer("corners", torch.tensor([[[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]]))

    def forward(self, places):
        found = []
        for level, table in enumerate(self.tables):
            scaled = places * 16 * 1.6**level
            low = scaled.floor().long()
            part = (scaled - low)[:, None]
            corners = low[:, None] + self.corners
            hashed = corners * self.primes
            index = (hashed[..., 0] ^ hashed[..., 1] ^ hashed[..., 2]) % self.size
            weights = torch.where(self.corners.bool(), part, 1 - part).prod(-1, keepdim=True)
            found.append((table(index) * weights).sum(1))
        return self.head(torch.cat(found, -1)).sigmoid()


@case(256)
def field_of_hashed_grids():
    return job(HashedField, lambda n: (torch.rand(n, 3), torch.rand(n, 3)), F.mse_loss)


class TwoFields(nn.Module):
    """Rays in chunks through a coarse field, whose weights say where the fine one looks (NeRF)."""

    def __init__(self, chunk=1024):
        super().__init__()
        self.coarse, self.fine, self.chunk = mlp(3, 64, 4), mlp(3, 64, 64, 4), chunk

    def drawn(self, field, places, depths):
        found = torch.cat([field(part) for part in places.flatten(0, 1).split(self.chunk)]).view(*places.shape[:2], 4)
        apart = F.pad(depths.diff(dim=-1), (0, 1), value=1e10)
        opaque = 1 - torch.exp(-F.softplus(found[..., 3]) * apart)
        left = F.pad(torch.cumprod(1 - opaque + 1e-10, -1)[:, :-1], (1, 0), value=1.0)
        weights = opaque * left
        return (weights[..., None] * found[..., :3].sigmoid()).sum(1), weights

    def forward(self, origins, directions, colours):
        depths = torch.linspace(2, 6, 16, device=origins.device).expand(len(origins), 16).contiguous()
        rough, weights = self.drawn(self.coarse, origins[:, None] + directions[:, None] * depths[..., None], depths)
        chances = weights.detach()[:, 1:-1] + 1e-5
        total = F.pad(torch.cumsum(chances / chances.sum(-1, keepdim=True), -1), (1, 0))
        u = torch.rand(len(origins), 24, device=origins.device)
        index = torch.searchsorted(total.contiguous(), u, right=True)
        low, high = (index - 1).clamp(min=0), index.clamp(max=total.shape[-1] - 1)
        bins = (depths[:, 1:] + depths[:, :-1]) / 2
        a, b = bins.gather(1, low), bins.gather(1, high)
        ca, cb = total.gather(1, low), total.gather(1, high)
        apart = torch.where(cb - ca < 1e-5, torch.ones_like(ca), cb - ca)
        depths, _ = torch.sort(torch.cat([depths, a + (u - ca) / apart * (b - a)], -1), -1)
        fine, _ = self.drawn(self.fine, origins[:, None] + directions[:, None] * depths[..., None], depths)
        return F.mse_loss(rough, colours) + F.mse_loss(fine, colours)


@case(64)
def rays_in_chunks():
    return own(
        TwoFields,
        lambda n: {"origins": torch.randn(n, 3), "directions": torch.randn(n, 3), "colours": torch.rand(n, 3)},
    )


class Splats(nn.Module):
    """Gaussians in the plane, sorted by depth and laid over each other, one picture a view."""

    def __init__(self, count=64):
        super().__init__()
        self.places, self.sizes = nn.Parameter(torch.rand(count, 3)), nn.Parameter(torch.full((count, 2), -2.0))
        self.angles, self.colours = nn.Parameter(torch.zeros(count)), nn.Parameter(torch.rand(count, 4))

    def forward(self, views, pictures):
        side = pictures.shape[-1]
        grid = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, side, device=views.device)] * 2, indexing="xy"), -1)
        found = []
        for view in views:
            seen = self.places @ view
            order = seen[:, 2].argsort()
            cos, sin = self.angles.cos(), self.angles.sin()
            turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
            shape = turn @ torch.diag_embed(self.sizes.exp().square()) @ turn.mT
            apart = grid[None] - seen[order, None, None, :2]
            power = torch.einsum(
                "nhwi,nij,nhwj->nhw",
                apart,
                torch.linalg.inv(shape[order] + 1e-4 * torch.eye(2, device=views.device)),
                apart,
            )
            opaque = self.colours[order, 3].sigmoid()[:, None, None] * torch.exp(-0.5 * power)
            left = torch.cumprod(torch.cat([torch.ones_like(opaque[:1]), 1 - opaque[:-1]]), 0)
            found.append(torch.einsum("nhw,nc->chw", opaque * left, self.colours[order, :3].sigmoid()))
        return F.l1_loss(torch.stack(found), pictures)


@case(2)
def splats():
    return own(Splats, lambda n: {"views": torch.randn(n, 3, 3), "pictures": torch.rand(n, 3, 24, 24)})


class Forces(nn.Module):
    """Energies of molecules in one list of atoms, and forces as their gradient (double backward)."""

    def __init__(self):
        super().__init__()
        self.kinds, self.message, self.energy = nn.Embedding(10, 32), mlp(65, 64, 32), mlp(32, 32, 1)

    def forward(self, kinds, places, energies, forces):
        with torch.enable_grad():
            places = places.requires_grad_()
            values = self.kinds(kinds)
            apart = (places[:, :, None] - places[:, None]).square().sum(-1)
            near = (apart < 4).float() * (1 - torch.eye(kinds.shape[1], device=kinds.device))
            for _ in range(2):
                pair = torch.cat(
                    [
                        values[:, :, None].expand(-1, -1, kinds.shape[1], -1),
                        values[:, None].expand(-1, kinds.shape[1], -1, -1),
                        apart[..., None],
                    ],
                    -1,
                )
                values = values + (self.message(pair) * near[..., None]).sum(2)
            energy = self.energy(values).sum((1, 2))
            (slope,) = torch.autograd.grad(energy.sum(), places, create_graph=True)
            return F.mse_loss(energy, energies) + 10 * F.mse_loss(-slope, forces)


@case(4)
def energies_and_forces():
    return own(
        Forces,
        lambda n: {
            "kinds": torch.randint(10, (n, 9)),
            "places": torch.randn(n, 9, 3),
            "energies": torch.randn(n),
            "forces": torch.randn(n, 9, 3),
        },
    )
