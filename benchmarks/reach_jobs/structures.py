"""Graphs, tables of ids, sequences, sound, points and series, in plain torch."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset

from vramfit.jobs.job import Job

from .styles import adamw, case, job, mlp, own, tokens

# ---- graphs: n graphs of 20 nodes and 60 edges in one


def graphs(n):
    edges = torch.randint(20, (n, 2, 60))
    return {"nodes": torch.randn(n, 20, 16), "edges": edges, "labels": torch.randint(5, (n,))}


class Graph(nn.Module):
    """Joins the graphs, passes messages and judges each."""

    def __init__(self, layer):
        super().__init__()
        self.layers = nn.ModuleList([layer(16, 64), layer(64, 64)])
        self.head = nn.Linear(64, 5)

    def forward(self, nodes, edges, labels):
        count, size = nodes.shape[:2]
        start = torch.arange(count, device=nodes.device) * size
        sources, targets = (edges + start[:, None, None]).unbind(1)
        values = nodes.flatten(0, 1)
        for layer in self.layers:
            values = layer(values, sources.flatten(), targets.flatten()).relu()
        graph = torch.arange(count, device=nodes.device).repeat_interleave(size)
        pooled = torch.zeros(count, 64, device=nodes.device).index_add_(0, graph, values) / size
        return F.cross_entropy(self.head(pooled), labels)


class Convolving(nn.Module):
    def __init__(self, inside, outside):
        super().__init__()
        self.layer = nn.Linear(inside, outside)

    def forward(self, values, sources, targets):
        degree = torch.zeros(values.shape[0], device=values.device).scatter_add_(
            0, targets, torch.ones_like(targets, dtype=torch.float)
        )
        norm = degree.clamp(min=1).rsqrt()
        messages = self.layer(values)[sources] * (norm[sources] * norm[targets])[:, None]
        return torch.zeros(values.shape[0], messages.shape[1], device=values.device).index_add_(0, targets, messages)


class Attending(nn.Module):
    def __init__(self, inside, outside, heads=4):
        super().__init__()
        self.layer, self.a, self.b = (
            nn.Linear(inside, outside),
            nn.Parameter(torch.randn(heads, outside // heads)),
            nn.Parameter(torch.randn(heads, outside // heads)),
        )
        self.heads = heads

    def forward(self, values, sources, targets):
        found = self.layer(values).view(values.shape[0], self.heads, -1)
        scores = F.leaky_relu((found * self.a).sum(-1)[sources] + (found * self.b).sum(-1)[targets], 0.2)
        index = targets[:, None].expand_as(scores)
        largest = torch.full((values.shape[0], self.heads), float("-inf"), device=values.device).scatter_reduce(
            0, index, scores, "amax"
        )
        weights = (scores - largest[targets]).exp()
        total = torch.zeros(values.shape[0], self.heads, device=values.device).scatter_add_(0, index, weights)
        weights = weights / (total[targets] + 1e-16)
        return torch.zeros_like(found).index_add_(0, targets, found[sources] * weights[..., None]).flatten(1)


class Averaging(nn.Module):
    def __init__(self, inside, outside):
        super().__init__()
        self.own, self.others = nn.Linear(inside, outside), nn.Linear(inside, outside)

    def forward(self, values, sources, targets):
        index = targets[:, None].expand(-1, values.shape[1])
        mean = torch.zeros_like(values).scatter_reduce(0, index, values[sources], "mean", include_self=False)
        return self.own(values) + self.others(mean)


class Multiplying(nn.Module):
    def __init__(self, inside, outside):
        super().__init__()
        self.layer = mlp(inside, outside, outside)

    def forward(self, values, sources, targets):
        size = (values.shape[0], values.shape[0])
        adjacency = torch.sparse_coo_tensor(
            torch.stack([targets, sources]), torch.ones(sources.shape[0], device=values.device), size
        ).coalesce()
        return self.layer(values + torch.sparse.mm(adjacency, values))


@case(8)
def graph_convolution():
    return own(lambda: Graph(Convolving), graphs)


@case(8)
def graph_attention():
    return own(lambda: Graph(Attending), graphs)


@case(8)
def graph_sage():
    return own(lambda: Graph(Averaging), graphs)


@case(8)
def graph_sparse_product():
    return own(lambda: Graph(Multiplying), graphs)


@case(4)
def molecules_of_any_size():
    """A list of graphs of their own sizes, collated in the network."""

    class Potential(nn.Module):
        def __init__(self):
            super().__init__()
            self.kinds, self.filters, self.out = nn.Embedding(10, 32), mlp(20, 32, 32), mlp(32, 32, 1)

        def forward(self, molecules, energies):
            kinds = torch.cat([one["kinds"] for one in molecules])
            places = torch.cat([one["places"] for one in molecules])
            owner = torch.cat([torch.full((len(one["kinds"]),), number) for number, one in enumerate(molecules)]).to(
                places.device
            )
            apart = torch.cdist(places, places)
            near = (
                (apart < 2.0)
                & (owner[:, None] == owner)
                & ~torch.eye(len(owner), dtype=torch.bool, device=places.device)
            )
            a, b = near.nonzero(as_tuple=True)
            basis = torch.exp(-10 * (apart[a, b, None] - torch.linspace(0, 2, 20, device=places.device)) ** 2)
            found = self.kinds(kinds)
            found = found + torch.zeros_like(found).index_add_(0, a, found[b] * self.filters(basis))
            total = torch.zeros(len(molecules), device=places.device).index_add_(0, owner, self.out(found).squeeze(-1))
            return F.mse_loss(total, energies)

    def batch(n):
        return [
            {"kinds": torch.randint(10, (5 + i % 4,)), "places": torch.rand(5 + i % 4, 3) * 3} for i in range(n)
        ], torch.randn(n)

    return own(Potential, batch)


@case(4)
def dynamic_edges_of_points():
    class Edges(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(6, 32, 1), nn.Conv2d(64, 64, 1), nn.Linear(64, 10)

        def near(self, points, layer):
            apart = torch.cdist(points.transpose(1, 2), points.transpose(1, 2))
            index = apart.topk(8, largest=False).indices
            rows = points.transpose(1, 2)
            chosen = torch.stack([one[which] for one, which in zip(rows, index)])
            middle = rows[:, :, None].expand_as(chosen)
            return layer(torch.cat([chosen - middle, middle], -1).permute(0, 3, 1, 2)).relu().amax(-1)

        def forward(self, points):
            return self.head(self.near(self.near(points, self.a), self.b).amax(-1))

    return job(Edges, lambda n: (torch.randn(n, 3, 64), torch.randint(10, (n,))))


# ---- tables of ids


@case(64)
def factorization_machine_of_sparse_tables():
    class Factors(nn.Module):
        def __init__(self):
            super().__init__()
            self.tables = nn.ModuleList(
                nn.EmbeddingBag(size, 16, sparse=True, mode="sum") for size in (1000, 5000, 200)
            )
            self.dense = mlp(8 + 48, 64, 1)

        def forward(self, numbers, ids):
            found = [table(ids[:, at]) for at, table in enumerate(self.tables)]
            together = torch.stack(found, 1)
            crossed = (together.sum(1).square() - together.square().sum(1)).sum(1) / 2
            return self.dense(torch.cat([numbers, *found], 1)).squeeze(1) + crossed

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Factors()

        def forward(self, numbers, ids, clicked):
            return F.binary_cross_entropy_with_logits(self.inner(numbers, ids), clicked)

    optimizers = {"inner.tables": torch.optim.SparseAdam, "inner.dense": adamw}
    return own(
        Model,
        lambda n: {
            "numbers": torch.randn(n, 8),
            "ids": torch.randint(200, (n, 3, 4)),
            "clicked": torch.randint(2, (n,)).float(),
        },
        optimizers,
    )


@case(64)
def two_towers():
    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.users, self.items = nn.Embedding(5000, 32), nn.Embedding(2000, 32)
            self.a, self.b = mlp(32, 64, 32), mlp(32, 64, 32)

        def forward(self, user, item):
            scores = F.normalize(self.a(self.users(user))) @ F.normalize(self.b(self.items(item))).T / 0.05
            return F.cross_entropy(scores, torch.arange(scores.shape[0], device=scores.device))

    return own(Towers, lambda n: {"user": torch.randint(5000, (n,)), "item": torch.randint(2000, (n,))})


@case(8)
def next_item_of_a_session():
    class Session(nn.Module):
        def __init__(self):
            super().__init__()
            self.items, self.places = nn.Embedding(1000, 32, padding_idx=0), nn.Embedding(50, 32)
            self.layers = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(32, 2, 64, batch_first=True, norm_first=True), 2, enable_nested_tensor=False
            )

        def forward(self, seen, wanted, other):
            values = self.items(seen) + self.places(torch.arange(seen.shape[1], device=seen.device))
            hidden = self.layers(
                values,
                mask=nn.Transformer.generate_square_subsequent_mask(seen.shape[1]).to(seen.device),
                is_causal=True,
            )
            good, bad = (hidden * self.items(wanted)).sum(-1), (hidden * self.items(other)).sum(-1)
            kept = torch.where(wanted != 0)
            return F.binary_cross_entropy_with_logits(
                good[kept], torch.ones_like(good[kept])
            ) + F.binary_cross_entropy_with_logits(bad[kept], torch.zeros_like(bad[kept]))

    def batch(n):
        seen = tokens(n, 50, 1000)
        return {
            "seen": seen,
            "wanted": seen.roll(-1, 1).masked_fill(torch.arange(50) > 40, 0),
            "other": tokens(n, 50, 1000),
        }

    return own(Session, batch)


@case(64)
def gradient_on_cpu_table():
    class Interest(nn.Module):
        def __init__(self):
            super().__init__()
            self.items, self.attention, self.head = nn.Embedding(3000, 16, max_norm=1.0), mlp(64, 32, 1), mlp(32, 32, 1)

        def forward(self, history, item):
            seen, one = self.items(history), self.items(item)[:, None].expand(-1, history.shape[1], -1)
            weights = self.attention(torch.cat([seen, one, seen - one, seen * one], -1)).squeeze(-1)
            weights = weights.masked_fill(history == 0, -1e9).softmax(-1)
            return self.head(torch.cat([torch.einsum("bl,bld->bd", weights, seen), one[:, 0]], -1)).squeeze(-1)

    return job(
        Interest,
        lambda n: (
            {"history": torch.randint(3000, (n, 20)), "item": torch.randint(3000, (n,))},
            torch.randint(2, (n,)).float(),
        ),
        F.binary_cross_entropy_with_logits,
    )


# ---- sequences


class Sentences(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        length = 5 + index % 20
        return torch.randint(5, 200, (length,)), torch.randint(9, (length,))


def joined(samples):
    words, tags = zip(*samples)
    return {
        "words": pad_sequence(words, batch_first=True),
        "tags": pad_sequence(tags, batch_first=True, padding_value=-100),
        "lengths": torch.tensor([len(one) for one in words]),
    }


@case(8)
def tagger_of_a_loader():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.cells, self.head = (
                nn.Embedding(200, 32, padding_idx=0),
                nn.LSTM(32, 32, bidirectional=True, batch_first=True),
                nn.Linear(64, 9),
            )

        def forward(self, words, tags, lengths):
            packed = pack_padded_sequence(self.words(words), lengths.cpu(), batch_first=True, enforce_sorted=False)
            found, _ = pad_packed_sequence(self.cells(packed)[0], batch_first=True)
            return F.cross_entropy(self.head(found).transpose(1, 2), tags[:, : found.shape[1]])

    return own(Tagger, DataLoader(Sentences(), batch_size=8, collate_fn=joined))


@case(4)
def conditional_random_field():
    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.body = nn.Embedding(200, 32), nn.Conv1d(32, 9, 3, padding=1)
            self.moves = nn.Parameter(torch.zeros(9, 9))

        def forward(self, words, tags, lengths):
            scores = self.body(self.words(words).transpose(1, 2)).transpose(1, 2)
            mask = torch.arange(words.shape[1], device=words.device) < lengths[:, None]
            alpha = scores[:, 0]
            gold = scores[:, 0].gather(1, tags[:, :1].clamp(min=0)).squeeze(1)
            for at in range(1, words.shape[1]):
                new = torch.logsumexp(alpha[:, :, None] + self.moves + scores[:, at, None], 1)
                alpha = torch.where(mask[:, at, None], new, alpha)
                here, before = tags[:, at].clamp(min=0), tags[:, at - 1].clamp(min=0)
                gold = gold + mask[:, at] * (
                    self.moves[before, here] + scores[:, at].gather(1, here[:, None]).squeeze(1)
                )
            return (torch.logsumexp(alpha, 1) - gold).mean()

    return own(Field, DataLoader(Sentences(), batch_size=8, collate_fn=joined))


@case(4)
def translation_with_attention():
    class Translator(nn.Module):
        def __init__(self):
            super().__init__()
            self.source, self.target = nn.Embedding(300, 32), nn.Embedding(300, 32)
            self.encoder, self.cell = nn.GRU(32, 64, batch_first=True), nn.GRUCell(96, 64)
            self.head = nn.Linear(128, 300)

        def forward(self, source, target):
            memory, hidden = self.encoder(self.source(source))
            hidden, word, total = hidden[0], target[:, 0], 0
            context = memory.new_zeros(memory.shape[0], 64)
            for at in range(1, target.shape[1]):
                hidden = self.cell(torch.cat([self.target(word), context], -1), hidden)
                weights = torch.bmm(memory, hidden[:, :, None]).softmax(1)
                context = (weights * memory).sum(1)
                scores = self.head(torch.cat([hidden, context], -1))
                total = total + F.cross_entropy(scores, target[:, at])
                word = target[:, at] if torch.rand(1).item() < 0.5 else scores.argmax(-1)
            return total / (target.shape[1] - 1)

    return own(Translator, lambda n: {"source": tokens(n, 12, 300), "target": tokens(n, 10, 300)})


@case(4)
def translation_transformer():
    class Translator(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.body, self.head = (
                nn.Embedding(300, 32, padding_idx=0),
                nn.Transformer(32, 4, 2, 2, 64, batch_first=True),
                nn.Linear(32, 300),
            )

        def forward(self, source, target):
            causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1] - 1, device=source.device)
            found = self.body(
                self.words(source),
                self.words(target[:, :-1]),
                tgt_mask=causal,
                src_key_padding_mask=source == 0,
                memory_key_padding_mask=source == 0,
            )
            return F.cross_entropy(
                self.head(found).flatten(0, 1), target[:, 1:].flatten(), ignore_index=0, label_smoothing=0.1
            )

    def batch(n):
        source = tokens(n, 12, 300).masked_fill(torch.arange(12) >= torch.randint(4, 13, (n, 1)), 0)
        return {"source": source, "target": tokens(n, 10, 300)}

    return own(Translator, batch)


@case(4)
def text_lines_ctc():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1),
                nn.ReLU(True),
                nn.MaxPool2d(2),
                nn.Conv2d(16, 32, 3, padding=1),
                nn.BatchNorm2d(32),
                nn.ReLU(True),
                nn.MaxPool2d((4, 2)),
            )
            self.head = nn.Linear(128, 40)

        def forward(self, lines, texts, lengths):
            found = self.body(lines).flatten(1, 2).permute(2, 0, 1)
            steps = torch.full((lines.shape[0],), found.shape[0], dtype=torch.long)
            return F.ctc_loss(self.head(found).log_softmax(2), texts, steps, lengths, zero_infinity=True)

    return own(
        Reader,
        lambda n: {
            "lines": torch.rand(n, 1, 32, 100),
            "texts": torch.randint(1, 40, (n, 8)),
            "lengths": torch.randint(3, 9, (n,)),
        },
    )


@case(2)
def packed_documents():
    """Several documents in a row, kept apart by a mask that is computed from where they end."""

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.qkv, self.out, self.head = (
                nn.Embedding(500, 64),
                nn.Linear(64, 192),
                nn.Linear(64, 64),
                nn.Linear(64, 500),
            )

        def forward(self, ids):
            document = (ids == 7).cumsum(1)
            mask = (document[:, :, None] == document[:, None]).tril()[:, None]
            q, k, v = self.qkv(self.words(ids)).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
            return F.cross_entropy(self.head(self.out(found))[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    class Plain(Decoder):
        def forward(self, ids):
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                return super().forward(ids)

    return own(Plain, lambda n: {"ids": tokens(n, 64)})


# ---- sound


@case(2)
def separation_of_voices():
    class Separator(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.Conv1d(1, 32, 16, 8), nn.ConvTranspose1d(32, 1, 16, 8)
            self.blocks = nn.ModuleList(
                nn.Sequential(
                    nn.Conv1d(32, 64, 1),
                    nn.PReLU(),
                    nn.GroupNorm(1, 64),
                    nn.Conv1d(64, 64, 3, padding=2**k, dilation=2**k, groups=64),
                    nn.PReLU(),
                    nn.Conv1d(64, 32, 1),
                )
                for k in range(4)
            )
            self.masks = nn.Conv1d(32, 64, 1)

        def forward(self, mixture, voices):
            found = hidden = self.encoder(mixture[:, None]).relu()
            for block in self.blocks:
                hidden = hidden + block(hidden)
            masks = self.masks(hidden).sigmoid().unflatten(1, (2, 32))
            parts = torch.stack([self.decoder(found * mask).squeeze(1) for mask in masks.unbind(1)], 1)[
                ..., : voices.shape[-1]
            ]
            losses = torch.stack([self.ratio(parts, voices[:, list(order)]) for order in ((0, 1), (1, 0))])
            return losses.amin(0).mean()

        @staticmethod
        def ratio(found, wanted):
            scale = (found * wanted).sum(-1, keepdim=True) / wanted.square().sum(-1, keepdim=True)
            return -10 * torch.log10(
                (scale * wanted).square().sum(-1) / (found - scale * wanted).square().sum(-1)
            ).mean(-1)

    return own(Separator, lambda n: {"mixture": torch.randn(n, 4000), "voices": torch.randn(n, 2, 4000)})


@case(2)
def spectrogram_loss():
    class Enhancer(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), nn.ELU(), nn.Conv2d(16, 2, 3, padding=1))
            self.register_buffer("window", torch.hann_window(256))

        def forward(self, noisy, clean):
            spectrum = torch.stft(noisy, 256, 64, window=self.window, return_complex=True)
            mask = torch.view_as_complex(
                self.body(torch.view_as_real(spectrum).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()
            )
            found = torch.istft(spectrum * mask, 256, 64, window=self.window, length=noisy.shape[-1])
            loss = F.l1_loss(found, clean)
            for size in (128, 512):
                a, b = (
                    torch.stft(
                        one, size, size // 4, window=torch.hann_window(size, device=one.device), return_complex=True
                    ).abs()
                    for one in (found, clean)
                )
                loss = loss + F.l1_loss(a, b) + F.l1_loss((a + 1e-5).log(), (b + 1e-5).log())
            return loss

    return own(Enhancer, lambda n: {"noisy": torch.randn(n, 4096), "clean": torch.randn(n, 4096)})


@case(2)
def vocoder_with_critics():
    def model():
        painter = nn.Sequential(
            nn.Conv1d(16, 64, 7, padding=3),
            nn.LeakyReLU(0.1),
            nn.ConvTranspose1d(64, 32, 16, 8, 4),
            nn.LeakyReLU(0.1),
            nn.ConvTranspose1d(32, 16, 16, 8, 4),
            nn.LeakyReLU(0.1),
            nn.Conv1d(16, 1, 7, padding=3),
            nn.Tanh(),
        )
        norm = nn.utils.parametrizations.weight_norm
        critics = nn.ModuleList(
            nn.Sequential(norm(nn.Conv2d(1, 16, (5, 1), (3, 1))), nn.LeakyReLU(0.1), norm(nn.Conv2d(16, 1, (3, 1))))
            for _ in range(3)
        )
        return nn.ModuleDict({"painter": painter, "critics": critics})

    def judged(critics, wave):
        found = []
        for period, critic in zip((2, 3, 5), critics):
            padded = F.pad(wave, (0, -wave.shape[-1] % period), "reflect")
            found.append(critic(padded.unflatten(-1, (-1, period))))
        return found

    def step(run, batch):
        fake = run.model["painter"](batch["mel"])
        critics = run.model["critics"]
        loss = sum(
            (a - 1).square().mean() + b.square().mean()
            for a, b in zip(judged(critics, batch["wave"]), judged(critics, fake.detach()))
        )
        run.backward(loss)
        run.update("critics")
        painter = sum((one - 1).square().mean() for one in judged(critics, fake)) + 45 * F.l1_loss(fake, batch["wave"])
        run.backward(painter)
        run.update("painter")
        return painter.detach()

    return Job(
        model=model,
        batch=lambda n: {"mel": torch.randn(n, 16, 32), "wave": torch.randn(n, 1, 2048)},
        step=step,
        optimizer={"painter": adamw, "critics": adamw},
        amp=None,
    )


@case(2)
def wavenet():
    class Dilated(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv1d(256, 32, 1), nn.Sequential(nn.ReLU(), nn.Conv1d(32, 256, 1))
            self.gates = nn.ModuleList(nn.Conv1d(32, 64, 2, dilation=2**k) for k in range(5))
            self.skips = nn.ModuleList(nn.Conv1d(32, 64, 1) for _ in range(5))

        def forward(self, wave):
            values, total = self.first(F.one_hot(wave[:, :-1], 256).float().transpose(1, 2)), 0
            for gate, skip in zip(self.gates, self.skips):
                a, b = gate(F.pad(values, (gate.dilation[0], 0))).chunk(2, 1)
                more, out = skip(a.tanh() * b.sigmoid()).chunk(2, 1)
                values, total = values + more, total + out
            return F.cross_entropy(self.last(total), wave[:, 1:])

    return own(Dilated, lambda n: {"wave": torch.randint(256, (n, 1000))})


# ---- points and fields


@case(4)
def point_net():
    class Points(nn.Module):
        def __init__(self):
            super().__init__()
            self.turn = nn.Sequential(
                nn.Conv1d(3, 32, 1),
                nn.BatchNorm1d(32),
                nn.ReLU(),
                nn.AdaptiveMaxPool1d(1),
                nn.Flatten(),
                nn.Linear(32, 9),
            )
            self.body = nn.Sequential(
                nn.Conv1d(3, 64, 1),
                nn.BatchNorm1d(64),
                nn.ReLU(),
                nn.Conv1d(64, 128, 1),
                nn.BatchNorm1d(128),
                nn.ReLU(),
            )
            self.head = mlp(128, 64, 10)

        def forward(self, points, labels):
            turn = self.turn(points).view(-1, 3, 3) + torch.eye(3, device=points.device)
            found = self.head(torch.max(self.body(torch.bmm(points.transpose(2, 1), turn).transpose(2, 1)), 2)[0])
            even = torch.bmm(turn, turn.transpose(2, 1)) - torch.eye(3, device=points.device)
            return F.nll_loss(F.log_softmax(found, 1), labels) + 0.001 * even.norm(dim=(1, 2)).mean()

    return own(Points, lambda n: {"points": torch.randn(n, 3, 256), "labels": torch.randint(10, (n,))})


@case(2)
def point_net_of_neighbourhoods():
    class Grouped(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Sequential(nn.Conv2d(3, 32, 1), nn.BatchNorm2d(32), nn.ReLU()), mlp(32, 32, 10)

        @staticmethod
        def spread(points, count):
            chosen = torch.zeros(points.shape[0], count, dtype=torch.long, device=points.device)
            apart = torch.full(points.shape[:2], 1e10, device=points.device)
            farthest = torch.randint(0, points.shape[1], (points.shape[0],), device=points.device)
            rows = torch.arange(points.shape[0], device=points.device)
            for at in range(count):
                chosen[:, at] = farthest
                new = (points - points[rows, farthest][:, None]).square().sum(-1)
                closer = new < apart
                apart[closer] = new[closer]
                farthest = apart.max(-1)[1]
            return chosen

        def forward(self, points, labels):
            rows = torch.arange(points.shape[0], device=points.device)[:, None]
            middle = points[rows, self.spread(points, 16)]
            squared = torch.cdist(middle, points).square()
            index = torch.arange(points.shape[1], device=points.device).expand(squared.shape).clone()
            index[squared > 0.5] = points.shape[1]
            index = index.sort(-1)[0][:, :, :8]
            first = index[:, :, :1].expand_as(index)
            index = torch.where(index == points.shape[1], first, index).clamp(max=points.shape[1] - 1)
            near = points[rows[:, :, None], index] - middle[:, :, None]
            return F.cross_entropy(self.head(self.body(near.permute(0, 3, 2, 1)).amax((2, 3))), labels)

    return own(Grouped, lambda n: {"points": torch.randn(n, 128, 3), "labels": torch.randint(10, (n,))})


@case(64)
def radiance_field():
    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.colour = mlp(63, 64, 65), mlp(64, 64, 3)

        def forward(self, origins, directions, colours):
            depths = torch.linspace(2, 6, 24, device=origins.device).expand(origins.shape[0], 24)
            depths = depths + torch.rand_like(depths) * (4 / 24)
            places = origins[:, None] + directions[:, None] * depths[..., None]
            waves = 2.0 ** torch.arange(10, device=origins.device) * places[..., None]
            encoded = torch.cat([places, waves.sin().flatten(-2), waves.cos().flatten(-2)], -1)
            found = self.body(encoded)
            apart = torch.cat([depths[:, 1:] - depths[:, :-1], torch.full_like(depths[:, :1], 1e10)], -1)
            opaque = 1 - torch.exp(-found[..., 0].relu() * apart)
            left = torch.cumprod(torch.cat([torch.ones_like(opaque[:, :1]), 1 - opaque + 1e-10], -1), -1)[:, :-1]
            colour = ((opaque * left)[..., None] * self.colour(found[..., 1:]).sigmoid()).sum(1)
            return F.mse_loss(colour, colours)

    return own(
        Field, lambda n: {"origins": torch.randn(n, 3), "directions": torch.randn(n, 3), "colours": torch.rand(n, 3)}
    )


@case(1)
def voxels_deformed():
    """Registration of two volumes: a field of shifts, sampled by a grid."""

    class Register(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv3d(2, 16, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv3d(16, 3, 3, padding=1))

        def forward(self, moving, fixed):
            shifts = self.body(torch.cat([moving, fixed], 1))
            grid = F.affine_grid(
                torch.eye(3, 4, device=moving.device).expand(moving.shape[0], 3, 4), moving.shape, align_corners=False
            )
            warped = F.grid_sample(moving, grid + shifts.permute(0, 2, 3, 4, 1), align_corners=False)
            rough = sum(shifts.diff(dim=axis).square().mean() for axis in (2, 3, 4))
            return F.mse_loss(warped, fixed) + 0.01 * rough

    return own(Register, lambda n: {"moving": torch.rand(n, 1, 32, 32, 32), "fixed": torch.rand(n, 1, 32, 32, 32)})


# ---- series


@case(16)
def basis_expansion():
    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(mlp(48, 64, 64, 60) for _ in range(4))

        def forward(self, past):
            total = past.new_zeros(past.shape[0], 12)
            for block in self.blocks:
                back, ahead = block(past).split([48, 12], -1)
                past, total = past - back, total + ahead
            return total

    def loss(found, wanted):
        return (2 * (found - wanted).abs() / (found.abs() + wanted.abs()).clamp(min=1e-8)).mean()

    return job(Blocks, lambda n: (torch.randn(n, 48), torch.randn(n, 12)), loss)


@case(8)
def probabilistic_forecast():
    class Forecast(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells = nn.ModuleList([nn.LSTMCell(1, 32)])
            self.head = nn.Linear(32, 3)

        def forward(self, past):
            state, found = None, []
            for value in past[:, :-1].unbind(1):
                state = self.cells[0](value[:, None], state)
                found.append(self.head(state[0]))
            free, middle, scale = torch.stack(found, 1).unbind(-1)
            return (
                -torch.distributions.StudentT(2 + F.softplus(free), middle, F.softplus(scale) + 1e-6)
                .log_prob(past[:, 1:])
                .mean()
            )

    return own(Forecast, lambda n: {"past": torch.randn(n, 24)})


@case(8)
def causal_convolutions():
    class Causal(nn.Module):
        def __init__(self):
            super().__init__()
            norm = nn.utils.parametrizations.weight_norm
            self.layers = nn.ModuleList(norm(nn.Conv1d(8 if k == 0 else 32, 32, 3, dilation=2**k)) for k in range(4))
            self.head = nn.Linear(32, 8)

        def forward(self, past):
            for k, layer in enumerate(self.layers):
                past = F.dropout(layer(F.pad(past, (2 * 2**k, 0))).relu(), 0.1, self.training)
            return self.head(past[..., -1])

    return job(Causal, lambda n: (torch.randn(n, 8, 100), torch.randn(n, 8)), F.huber_loss)


@case(8)
def spectral_operator():
    class Operator(nn.Module):
        def __init__(self):
            super().__init__()
            self.lift, self.local, self.out = nn.Conv2d(1, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 1, 1)
            self.weight = nn.Parameter(torch.randn(16, 16, 8, 8, dtype=torch.cfloat) / 16)

        def forward(self, field):
            values = self.lift(field)
            found = torch.fft.rfft2(values)
            mixed = torch.zeros_like(found)
            mixed[:, :, :8, :8] = torch.einsum("bixy,ioxy->boxy", found[:, :, :8, :8], self.weight)
            return self.out(F.gelu(torch.fft.irfft2(mixed, s=field.shape[-2:]) + self.local(values)))

    return job(Operator, lambda n: (torch.randn(n, 1, 32, 32), torch.randn(n, 1, 32, 32)), F.mse_loss)


@case(8)
def state_space():
    class Scan(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate, self.inside, self.outside, self.head = (
                nn.Parameter(torch.randn(32, dtype=torch.cfloat)),
                nn.Linear(4, 32),
                nn.Linear(32, 4),
                nn.Linear(4, 2),
            )

        def forward(self, values):
            length = values.shape[1]
            kernel = torch.exp(torch.arange(length, device=values.device)[:, None] * -self.rate.abs()).to(torch.cfloat)
            spectrum = torch.fft.fft(kernel, n=2 * length, dim=0) * torch.fft.fft(
                self.inside(values).to(torch.cfloat), n=2 * length, dim=1
            )
            return self.head(self.outside(torch.fft.ifft(spectrum, dim=1)[:, :length].real).mean(1))

    return job(Scan, lambda n: (torch.randn(n, 64, 4), torch.randint(2, (n,))))
