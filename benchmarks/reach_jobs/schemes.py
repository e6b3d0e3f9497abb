"""Schemes that are more than one forward pass, loss and update: adversaries, teachers, agents, equations."""

import copy
import math

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from vramfit.jobs.job import Job

from .styles import adamw, case, images, job, mlp, own


def turns(model, batch, step, *names, optimizer=adamw) -> Job:
    return Job(model=model, batch=batch, step=step, optimizer=dict.fromkeys(names, optimizer) or optimizer, amp=None)


class Painter(nn.Sequential):
    def __init__(self, width=16):
        super().__init__(
            nn.ConvTranspose2d(32, 2 * width, 4),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(True),
            nn.ConvTranspose2d(2 * width, width, 4, 4),
            nn.ReLU(True),
            nn.ConvTranspose2d(width, 3, 2, 2),
            nn.Tanh(),
        )


class Critic(nn.Sequential):
    def __init__(self, width=16):
        super().__init__(
            nn.Conv2d(3, width, 4, 2, 1),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(2 * width, 1, 8),
        )


def pair_of_players():
    return nn.ModuleDict({"painter": Painter(), "critic": Critic()})


def pictures(n):
    return torch.rand(n, 3, 32, 32)


@case(8)
def dcgan():
    def step(run, real):
        noise = torch.randn(real.shape[0], 32, 1, 1, device=real.device)
        fake = run.model["painter"](noise)
        critic = F.binary_cross_entropy_with_logits(
            run.model["critic"](real).flatten(), torch.ones(real.shape[0], device=real.device)
        )
        critic = critic + F.binary_cross_entropy_with_logits(
            run.model["critic"](fake.detach()).flatten(), torch.zeros(real.shape[0], device=real.device)
        )
        run.backward(critic)
        run.update("critic")
        painter = F.binary_cross_entropy_with_logits(
            run.model["critic"](fake).flatten(), torch.ones(real.shape[0], device=real.device)
        )
        run.backward(painter)
        run.update("painter")
        return critic.detach() + painter.detach()

    return turns(pair_of_players, pictures, step, "painter", "critic")


@case(8)
def wasserstein_with_penalty():
    def step(run, real):
        noise = torch.randn(real.shape[0], 32, 1, 1, device=real.device)
        for _ in range(2):
            fake = run.model["painter"](noise).detach()
            mixed = torch.lerp(real, fake, torch.rand(real.shape[0], 1, 1, 1, device=real.device)).requires_grad_()
            (slope,) = torch.autograd.grad(run.model["critic"](mixed).sum(), mixed, create_graph=True)
            loss = (
                run.model["critic"](fake).mean()
                - run.model["critic"](real).mean()
                + 10 * (slope.flatten(1).norm(2, 1) - 1).square().mean()
            )
            run.backward(loss)
            run.update("critic")
        painter = -run.model["critic"](run.model["painter"](noise)).mean()
        run.backward(painter)
        run.update("painter")
        return painter.detach()

    return turns(pair_of_players, pictures, step, "painter", "critic")


@case(2)
def cycle_gan():
    def translator():
        return nn.Sequential(
            nn.Conv2d(3, 16, 7, padding=3),
            nn.InstanceNorm2d(16),
            nn.ReLU(True),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(True),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(32, 3, 3, padding=1),
            nn.Tanh(),
        )

    def model():
        return nn.ModuleDict(
            {
                "painters": nn.ModuleDict({"there": translator(), "back": translator()}),
                "critics": nn.ModuleDict({"there": Critic(), "back": Critic()}),
            }
        )

    def step(run, batch):
        here, yonder = batch
        painters, critics = run.model["painters"], run.model["critics"]
        fake_there, fake_here = painters["there"](here), painters["back"](yonder)
        critics.requires_grad_(False)
        cycle = F.l1_loss(painters["back"](fake_there), here) + F.l1_loss(painters["there"](fake_here), yonder)
        loss = (
            10 * cycle
            + (critics["there"](fake_there) - 1).square().mean()
            + (critics["back"](fake_here) - 1).square().mean()
        )
        run.backward(loss)
        run.update("painters")
        critics.requires_grad_(True)
        for name, real, fake in (("there", yonder, fake_there), ("back", here, fake_here)):
            run.backward(((critics[name](real) - 1).square().mean() + critics[name](fake.detach()).square().mean()) / 2)
        run.update("critics")
        return loss.detach()

    return turns(model, lambda n: (pictures(n), pictures(n)), step, "painters", "critics")


@case(4)
def variational_autoencoder():
    class Autoencoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = mlp(784, 256, 64), mlp(32, 256, 784)

        def forward(self, values):
            middle, spread = self.encoder(values).chunk(2, -1)
            drawn = torch.distributions.Normal(middle, (0.5 * spread).exp()).rsample()
            divergence = torch.distributions.kl_divergence(
                torch.distributions.Normal(middle, (0.5 * spread).exp()), torch.distributions.Normal(0.0, 1.0)
            )
            return F.binary_cross_entropy_with_logits(self.decoder(drawn), values) + divergence.mean()

    return own(Autoencoder, lambda n: (torch.rand(n, 784), None))


@case(4)
def vector_quantized_autoencoder():
    class Quantized(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Conv2d(3, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 16, 4, 2, 1))
            self.book = nn.Embedding(128, 16)
            self.decoder = nn.Sequential(
                nn.ConvTranspose2d(16, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 3, 4, 2, 1)
            )

        def forward(self, values):
            found = self.encoder(values)
            rows = found.permute(0, 2, 3, 1).reshape(-1, 16)
            nearest = torch.cdist(rows, self.book.weight).argmin(1)
            chosen = self.book(nearest).view(found.shape[0], *found.shape[2:], 16).permute(0, 3, 1, 2)
            commit = F.mse_loss(chosen.detach(), found) + F.mse_loss(chosen, found.detach())
            return F.mse_loss(self.decoder(found + (chosen - found).detach()), values) + commit

    return own(Quantized, lambda n: {"values": pictures(n)})


@case(8)
def real_nvp_flow():
    class Flow(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(mlp(8, 64, 16) for _ in range(4))
            self.mixing = nn.Parameter(torch.eye(16))

        def forward(self, values):
            total = values.new_zeros(values.shape[0]) + torch.linalg.slogdet(self.mixing)[1]
            values = values @ self.mixing
            for layer in self.layers:
                kept, changed = values.chunk(2, -1)
                scale, shift = layer(kept).chunk(2, -1)
                values = torch.cat([changed * scale.tanh().exp() + shift, kept], -1)
                total = total + scale.tanh().sum(-1)
            return -(
                torch.distributions.MultivariateNormal(
                    torch.zeros(16, device=values.device), torch.eye(16, device=values.device)
                ).log_prob(values)
                + total
            ).mean()

    return own(Flow, lambda n: {"values": torch.randn(n, 16)})


# ---- teachers


@case(4)
def distillation():
    class Distilling(nn.Module):
        def __init__(self):
            super().__init__()
            self.student = torchvision.models.mobilenet_v3_small(num_classes=10)
            self.teacher = torchvision.models.resnet34(num_classes=10).eval().requires_grad_(False)

        def train(self, mode=True):
            super().train(mode)
            self.teacher.eval()
            return self

        def forward(self, pictures, labels):
            with torch.no_grad():
                wanted = (self.teacher(pictures) / 4).softmax(-1)
            scores = self.student(pictures)
            return F.kl_div((scores / 4).log_softmax(-1), wanted, reduction="batchmean") * 16 + F.cross_entropy(
                scores, labels
            )

    return own(Distilling, lambda n: {"pictures": torch.randn(n, 3, 64, 64), "labels": torch.randint(10, (n,))})


class Following(nn.Module):
    """An online network and one that follows it."""

    def __init__(self, width=64):
        super().__init__()
        self.online = torchvision.models.resnet18(num_classes=width)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.head = mlp(width, 128, width)

    @torch.no_grad()
    def follow(self):
        for mine, theirs in zip(self.target.parameters(), self.online.parameters()):
            mine.mul_(0.99).add_(theirs, alpha=0.01)


def views(n):
    return {"one": torch.randn(n, 3, 64, 64), "other": torch.randn(n, 3, 64, 64)}


@case(4)
def byol():
    class Learning(Following):
        def forward(self, one, other):
            self.follow()
            with torch.no_grad():
                wanted = self.target(other), self.target(one)
            found = self.head(self.online(one)), self.head(self.online(other))
            return sum(2 - 2 * F.cosine_similarity(a, b, dim=-1).mean() for a, b in zip(found, wanted))

    return own(Learning, views)


@case(4)
def moco_queue():
    class Learning(Following):
        def __init__(self):
            super().__init__()
            self.register_buffer("queue", F.normalize(torch.randn(64, 256), dim=0))
            self.register_buffer("place", torch.zeros(1, dtype=torch.long))

        def forward(self, one, other):
            query = F.normalize(self.online(one), dim=1)
            with torch.no_grad():
                self.follow()
                shuffled = torch.randperm(other.shape[0], device=other.device)
                key = F.normalize(self.target(other[shuffled]), dim=1)[shuffled.argsort()]
            scores = torch.cat([(query * key).sum(-1, keepdim=True), query @ self.queue.clone().detach()], 1) / 0.07
            place = int(self.place)
            self.queue[:, place : place + key.shape[0]] = key.T
            self.place[0] = (place + key.shape[0]) % self.queue.shape[1]
            return F.cross_entropy(scores, torch.zeros(scores.shape[0], dtype=torch.long, device=scores.device))

    return own(Learning, views)


@case(4)
def barlow_twins():
    class Learning(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = torchvision.models.resnet18(num_classes=64)
            self.norm = nn.BatchNorm1d(64, affine=False)

        def forward(self, one, other):
            c = self.norm(self.network(one)).T @ self.norm(self.network(other)) / one.shape[0]
            return (c.diagonal() - 1).square().sum() + 0.005 * (c.square().sum() - c.diagonal().square().sum())

    return own(Learning, views)


@case(4)
def swav_sinkhorn():
    class Learning(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = torchvision.models.resnet18(num_classes=64)
            self.prototypes = nn.utils.parametrizations.weight_norm(nn.Linear(64, 32, bias=False))

        @torch.no_grad()
        def codes(self, scores):
            q = (scores / 0.05).exp().T
            q = q / q.sum()
            for _ in range(3):
                q = q / q.sum(1, keepdim=True) / q.shape[0]
                q = q / q.sum(0, keepdim=True) / q.shape[1]
            return (q * q.shape[1]).T

        def forward(self, one, other):
            scores = [self.prototypes(F.normalize(self.network(view), dim=1)) for view in (one, other)]
            return -sum((self.codes(a) * (b / 0.1).log_softmax(-1)).sum(-1).mean() for a, b in (scores, scores[::-1]))

    return own(Learning, views)


@case(16)
def triplets_mined():
    def loss(found, classes):
        apart = torch.cdist(found, found)
        same = classes[:, None] == classes[None]
        farthest = apart.masked_fill(~same, 0).amax(1)
        nearest = apart.masked_fill(same, math.inf).amin(1)
        hinge = F.relu(farthest - nearest + 0.3)
        kept = hinge[hinge > 0]
        return kept.mean() if kept.numel() else hinge.sum() * 0

    return job(lambda: torchvision.models.resnet18(num_classes=64), images(64), loss)


@case(16)
def arc_face():
    class Margin(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = torchvision.models.resnet18(num_classes=64)
            self.weight = nn.Parameter(torch.randn(1000, 64))

        def forward(self, pictures, labels):
            cosine = F.linear(F.normalize(self.network(pictures)), F.normalize(self.weight)).clamp(-0.999, 0.999)
            index = torch.where(labels != -1)[0]
            margin = torch.zeros_like(cosine)
            margin[index, labels[index]] = 0.5
            return F.cross_entropy(64 * (cosine.acos() + margin).cos(), labels)

    return own(Margin, lambda n: {"pictures": torch.randn(n, 3, 32, 32), "labels": torch.randint(1000, (n,))})


# ---- agents


@case(64)
def proximal_policy():
    class Actor(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.policy, self.value = mlp(16, 64, 64), nn.Linear(64, 6), nn.Linear(64, 1)

        def forward(self, seen, action, before, advantage, reward):
            body = self.body(seen)
            chances = torch.distributions.Categorical(logits=self.policy(body))
            ratio = (chances.log_prob(action) - before).exp()
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            surrogate = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            return (
                -surrogate.mean()
                + 0.5 * F.mse_loss(self.value(body).squeeze(-1), reward)
                - 0.01 * chances.entropy().mean()
            )

    return own(
        Actor,
        lambda n: {
            "seen": torch.randn(n, 16),
            "action": torch.randint(6, (n,)),
            "before": torch.randn(n),
            "advantage": torch.randn(n),
            "reward": torch.randn(n),
        },
        clip_norm=0.5,
    )


@case(32)
def soft_actor_critic():
    def model():
        critics = nn.ModuleList([mlp(20, 64, 1), mlp(20, 64, 1)])
        return nn.ModuleDict(
            {"actor": mlp(16, 64, 8), "critics": critics, "targets": copy.deepcopy(critics).requires_grad_(False)}
        )

    def act(actor, seen):
        middle, spread = actor(seen).chunk(2, -1)
        chances = torch.distributions.TransformedDistribution(
            torch.distributions.Normal(middle, spread.clamp(-5, 2).exp()),
            torch.distributions.TanhTransform(cache_size=1),
        )
        action = chances.rsample()
        return action, chances.log_prob(action).sum(-1, keepdim=True)

    def step(run, batch):
        actor, critics, targets = run.model["actor"], run.model["critics"], run.model["targets"]
        with torch.no_grad():
            action, chance = act(actor, batch["next"])
            value = torch.min(*[critic(torch.cat([batch["next"], action], -1)) for critic in targets]) - 0.2 * chance
            wanted = batch["reward"] + 0.99 * (1 - batch["done"].float()) * value
        loss = sum(F.mse_loss(critic(torch.cat([batch["seen"], batch["action"]], -1)), wanted) for critic in critics)
        run.backward(loss)
        run.update("critics")
        action, chance = act(actor, batch["seen"])
        policy = (
            0.2 * chance - torch.min(*[critic(torch.cat([batch["seen"], action], -1)) for critic in critics])
        ).mean()
        run.backward(policy)
        run.update("actor")
        with torch.no_grad():
            for mine, theirs in zip(targets.parameters(), critics.parameters()):
                mine.lerp_(theirs, 0.005)
        return loss.detach() + policy.detach()

    return turns(
        model,
        lambda n: {
            "seen": torch.randn(n, 16),
            "next": torch.randn(n, 16),
            "action": torch.rand(n, 4),
            "reward": torch.randn(n, 1),
            "done": torch.zeros(n, 1, dtype=torch.bool),
        },
        step,
        "actor",
        "critics",
    )


@case(32)
def deep_q_network():
    class Learner(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(
                nn.Conv2d(4, 16, 8, 4),
                nn.ReLU(),
                nn.Conv2d(16, 32, 4, 2),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(288, 64),
                nn.ReLU(),
                nn.Linear(64, 6),
            )
            self.target = [copy.deepcopy(self.network).requires_grad_(False)]

        def forward(self, seen, after, action, reward, done):
            with torch.no_grad():
                best = self.network(after.float() / 255).argmax(1, keepdim=True)
                later = self.network(after.float() / 255).gather(1, best).squeeze(1)
                wanted = reward + 0.99 * later * ~done
            return F.smooth_l1_loss(self.network(seen.float() / 255).gather(1, action[:, None]).squeeze(1), wanted)

    return own(
        Learner,
        lambda n: {
            "seen": torch.randint(256, (n, 4, 42, 42), dtype=torch.uint8),
            "after": torch.randint(256, (n, 4, 42, 42), dtype=torch.uint8),
            "action": torch.randint(6, (n,)),
            "reward": torch.randn(n),
            "done": torch.zeros(n, dtype=torch.bool),
        },
    )


@case(4)
def policy_gradient_of_a_cell():
    class Agent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.policy, self.value = nn.LSTMCell(16, 32), nn.Linear(32, 4), nn.Linear(32, 1)

        def forward(self, seen, rewards):
            hidden = seen.new_zeros(seen.shape[0], 32), seen.new_zeros(seen.shape[0], 32)
            logs, values = [], []
            for at in range(seen.shape[1]):
                hidden = self.cell(seen[:, at], hidden)
                chances = torch.distributions.Categorical(logits=self.policy(hidden[0]))
                logs.append(chances.log_prob(chances.sample()))
                values.append(self.value(hidden[0]).squeeze(-1))
            returns, total = [], seen.new_zeros(seen.shape[0])
            for at in reversed(range(seen.shape[1])):
                total = rewards[:, at] + 0.99 * total
                returns.insert(0, total)
            returns, values = torch.stack(returns), torch.stack(values)
            return -(torch.stack(logs) * (returns - values.detach())).mean() + F.mse_loss(values, returns)

    return own(Agent, lambda n: {"seen": torch.randn(n, 12, 16), "rewards": torch.randn(n, 12)})


# ---- equations and gradients of gradients


@case(128)
def physics_informed():
    class Solution(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))

        def forward(self, points):
            with torch.enable_grad():
                points = points.detach().requires_grad_()
                found = self.network(points)
                (slope,) = torch.autograd.grad(found.sum(), points, create_graph=True)
                (bend,) = torch.autograd.grad(slope[:, 0].sum(), points, create_graph=True)
                return (slope[:, 1] - 0.1 * bend[:, 0]).square().mean() + found.square().mean()

    return own(Solution, lambda n: (torch.rand(n, 2), None), torch.optim.LBFGS)


@case(4)
def meta_learning():
    class Learner(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = mlp(8, 64, 64, 1)

        def forward(self, support, wanted, query, answer):
            def task(x, y, xs, ys):
                weights = dict(self.network.named_parameters())
                for _ in range(2):
                    loss = F.mse_loss(torch.func.functional_call(self.network, weights, (x,)), y)
                    slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
                    weights = {name: value - 0.01 * slope for (name, value), slope in zip(weights.items(), slopes)}
                return F.mse_loss(torch.func.functional_call(self.network, weights, (xs,)), ys)

            with torch.enable_grad():
                return torch.stack([task(*one) for one in zip(support, wanted, query, answer)]).mean()

    return own(
        Learner,
        lambda n: {
            "support": torch.randn(n, 10, 8),
            "wanted": torch.randn(n, 10, 1),
            "query": torch.randn(n, 10, 8),
            "answer": torch.randn(n, 10, 1),
        },
    )


@case(16)
def per_sample_gradients():
    class Private(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = mlp(32, 64, 10)

        def forward(self, values, labels):
            weights = {name: value.detach() for name, value in self.network.named_parameters()}

            def one(weights, value, label):
                return F.cross_entropy(torch.func.functional_call(self.network, weights, (value[None],)), label[None])

            slopes = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0))(weights, values, labels)
            norms = torch.stack([slope.flatten(1).norm(dim=1) for slope in slopes.values()]).norm(dim=0)
            share = (1.0 / norms).clamp(max=1).detach()
            return (share * F.cross_entropy(self.network(values), labels, reduction="none")).mean()

    return own(Private, lambda n: {"values": torch.randn(n, 32), "labels": torch.randint(10, (n,))})


@case(16)
def neural_equation():
    class Solver(nn.Module):
        def __init__(self):
            super().__init__()
            self.slope, self.head = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 16)), nn.Linear(16, 4)

        def forward(self, values):
            for _ in range(10):
                a = self.slope(values)
                b = self.slope(values + 0.05 * a)
                c = self.slope(values + 0.05 * b)
                values = values + 0.1 / 6 * (a + 2 * b + 2 * c + self.slope(values + 0.1 * c))
            return self.head(values)

    return job(Solver, lambda n: (torch.randn(n, 16), torch.randint(4, (n,))))


@case(8)
def equilibrium():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer, self.head = (
                nn.utils.parametrizations.spectral_norm(nn.Linear(64, 64)),
                nn.Linear(16, 64),
                nn.Linear(64, 4),
            )

        def forward(self, values):
            given, state = self.outer(values), torch.zeros(values.shape[0], 64, device=values.device)
            with torch.no_grad():
                for _ in range(20):
                    new = torch.tanh(self.inner(state) + given)
                    if (new - state).norm() < 1e-4 * state.norm():
                        break
                    state = new
            return self.head(torch.tanh(self.inner(state) + given))

    return job(Deep, lambda n: (torch.randn(n, 16), torch.randint(4, (n,))))


@case(8)
def sharpness_aware():
    def step(run, batch):
        values, labels = batch
        parameters = list(run.model.parameters())
        loss = F.cross_entropy(run.model(values), labels)
        slopes = torch.autograd.grad(loss, parameters)
        norm = torch.stack([slope.norm() for slope in slopes]).norm()
        moves = [0.05 * slope / (norm + 1e-12) for slope in slopes]
        with torch.no_grad():
            torch._foreach_add_(parameters, moves)
        run.backward(F.cross_entropy(run.model(values), labels))
        with torch.no_grad():
            torch._foreach_sub_(parameters, moves)
        run.update()
        return loss.detach()

    return turns(lambda: torchvision.models.resnet18(num_classes=10), images(64), step)


@case(8)
def adversarial_training():
    class Robust(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = torchvision.models.resnet18(num_classes=10)

        def forward(self, pictures, labels):
            noise = torch.zeros_like(pictures).uniform_(-0.03, 0.03)
            for _ in range(2):
                noise.requires_grad_()
                with torch.enable_grad():
                    loss = F.cross_entropy(self.network(pictures + noise), labels)
                (slope,) = torch.autograd.grad(loss, noise)
                noise = (noise.detach() + 0.01 * slope.sign()).clamp(-0.03, 0.03)
            return F.cross_entropy(self.network((pictures + noise).clamp(0, 1)), labels)

    return own(Robust, lambda n: {"pictures": torch.rand(n, 3, 64, 64), "labels": torch.randint(10, (n,))})
