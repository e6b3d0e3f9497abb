"""Optimizers that people write or bring: matrices, momenta, projections, master copies, steps within the backward pass."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from .styles import adamw, case, job, mlp, own

WIDTHS = (64, 256, 256, 10)


def learns(optimizer, **more):
    return job(
        lambda: mlp(*WIDTHS), lambda n: (torch.randn(n, 64), torch.randint(10, (n,))), optimizer=optimizer, **more
    )


class Own(torch.optim.Optimizer):
    """An update of each parameter, written out in a loop as most are."""

    def __init__(self, parameters, lr=1e-3, **more):
        super().__init__(parameters, {"lr": lr, **more})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, self.state[parameter], group)


class Shampoo(Own):
    def update(self, parameter, state, group):
        slope = parameter.grad
        if not state:
            state["sides"] = [torch.eye(size, device=slope.device) * 1e-4 for size in slope.shape]
            state["roots"] = [torch.eye(size, device=slope.device) for size in slope.shape]
        found = slope
        for axis, side in enumerate(state["sides"]):
            flat = slope.transpose(0, axis).reshape(slope.shape[axis], -1)
            side.add_(flat @ flat.T)
            values, vectors = torch.linalg.eigh(side)
            state["roots"][axis] = vectors @ torch.diag(values.clamp(min=1e-6).pow(-0.25)) @ vectors.T
            found = torch.tensordot(found, state["roots"][axis], dims=([0], [0]))
        parameter.add_(found, alpha=-group["lr"])


class Muon(Own):
    def update(self, parameter, state, group):
        momentum = state.setdefault("momentum", torch.zeros_like(parameter))
        momentum.lerp_(parameter.grad, 0.05)
        found = parameter.grad.lerp(momentum, 0.95)
        if found.ndim == 2:
            found = found.bfloat16()
            found = found / (found.norm() + 1e-7)
            tall = found.shape[0] > found.shape[1]
            found = found.T if tall else found
            for _ in range(5):
                a = found @ found.T
                found = 3.4445 * found + (-4.775 * a + 2.0315 * a @ a) @ found
            found = found.T if tall else found
        parameter.add_(found.type_as(parameter), alpha=-group["lr"])


class Projected(Own):
    """Momenta in the space of the gradient's first singular vectors (GaLore)."""

    def update(self, parameter, state, group):
        slope = parameter.grad
        if slope.ndim == 2 and not state:
            state["basis"] = torch.linalg.svd(slope, full_matrices=False)[0][:, :4]
        low = state["basis"].T @ slope if slope.ndim == 2 else slope
        first = state.setdefault("first", torch.zeros_like(low))
        second = state.setdefault("second", torch.zeros_like(low))
        first.lerp_(low, 0.1)
        second.mul_(0.999).addcmul_(low, low, value=0.001)
        found = first / second.sqrt().add_(1e-8)
        parameter.add_(state["basis"] @ found if slope.ndim == 2 else found, alpha=-group["lr"])


class Scaled(Own):
    """Rates by the norms of weights and gradients (LARS), with momentum."""

    def update(self, parameter, state, group):
        slope = parameter.grad.add(parameter, alpha=1e-4)
        trust = parameter.norm() / (slope.norm() + 1e-8)
        slope = slope.mul(torch.where(parameter.norm() > 0, 0.001 * trust, torch.ones_like(trust)))
        if "momentum" not in state:
            state["momentum"] = slope.clone()
        state["momentum"].mul_(0.9).add_(slope)
        parameter.add_(state["momentum"], alpha=-group["lr"])


class Ahead(torch.optim.Optimizer):
    """Slow weights that follow fast ones every few steps (Lookahead), around any optimizer."""

    def __init__(self, inner, every=5):
        self.inner, self.every, self.count = inner, every, 0
        super().__init__(inner.param_groups, {})
        self.slow = [[p.detach().clone() for p in group["params"]] for group in self.param_groups]

    @torch.no_grad()
    def step(self, closure=None):
        self.inner.step()
        self.count += 1
        if self.count % self.every == 0:
            for group, slow in zip(self.param_groups, self.slow):
                torch._foreach_lerp_(slow, group["params"], 0.5)
                torch._foreach_copy_(group["params"], slow)


class Master(Own):
    """Weights of half precision, learned through float copies of them."""

    def update(self, parameter, state, group):
        if not state:
            state["master"] = parameter.detach().float().clone()
            state["first"], state["second"] = torch.zeros_like(state["master"]), torch.zeros_like(state["master"])
        slope = parameter.grad.float()
        state["first"].lerp_(slope, 0.1)
        state["second"].mul_(0.99).addcmul_(slope, slope, value=0.01)
        state["master"].addcdiv_(state["first"], state["second"].sqrt().add_(1e-8), value=-group["lr"])
        parameter.copy_(state["master"])


class Sharpness(torch.optim.Optimizer):
    """Climbs, asks for the gradient again, and descends from there (SAM, as most packages write it)."""

    def __init__(self, parameters, base=torch.optim.SGD, **more):
        super().__init__(parameters, more)
        self.base = base(self.param_groups, **more)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def first_step(self):
        slopes = [p.grad for group in self.param_groups for p in group["params"]]
        norm = torch.stack([one.norm() for one in slopes]).norm()
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old"] = p.data.clone()
                p.add_(p.grad * (0.05 / (norm + 1e-12)))
        self.zero_grad()

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.data = self.state[p]["old"]
        self.base.step()
        self.zero_grad()

    def step(self, closure=None):
        with torch.enable_grad():
            self.first_step()
            if closure is not None:
                closure()
        self.second_step()


@case(64)
def shampoo():
    return learns(Shampoo)


@case(64)
def muon_by_hand():
    return learns(Muon, clip_norm=1.0)


@case(64)
def projected_momenta():
    return learns(Projected)


@case(64)
def rates_by_layer():
    return learns(Scaled)


@case(64)
def looking_ahead():
    return learns(lambda parameters: Ahead(torch.optim.RAdam(list(parameters))))


@case(64)
def half_weights_and_master():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = mlp(*WIDTHS).bfloat16()

        def forward(self, values):
            return self.network(values.bfloat16()).float()

    return job(Half, lambda n: (torch.randn(n, 64), torch.randint(10, (n,))), optimizer=Master)


@case(64)
def sharpness_by_optimizer():
    def step(run, batch):
        values, labels = batch
        run.backward(F.cross_entropy(run.model(values), labels))
        # What people call on the optimizer itself is here on the network's gradients.
        parameters = [p for p in run.model.parameters() if p.grad is not None]
        with torch.no_grad():
            norm = torch.stack([p.grad.norm() for p in parameters]).norm()
            moves = [p.grad * (0.05 / (norm + 1e-12)) for p in parameters]
            for p, move in zip(parameters, moves):
                p.add_(move)
                p.grad = None
        loss = F.cross_entropy(run.model(values), labels)
        run.backward(loss)
        with torch.no_grad():
            for p, move in zip(parameters, moves):
                p.sub_(move)
        run.update()
        return loss.detach()

    return own(lambda: mlp(*WIDTHS), lambda n: (torch.randn(n, 64), torch.randint(10, (n,))), step=step)


@case(64)
def sharpness_without_a_closure():
    return learns(lambda parameters: Sharpness(parameters, lr=0.1, momentum=0.9))


@case(64)
def amsgrad_one_by_one():
    return learns(lambda parameters: torch.optim.AdamW(parameters, amsgrad=True, foreach=False))


@case(64)
def groups_of_parameters():
    """No decay for vectors, and a second group whose gradients stay away."""

    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = mlp(*WIDTHS), mlp(*WIDTHS)

        def forward(self, values):
            return self.used(values)

    def optimizer(parameters):
        parameters = list(parameters)
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0, "lr": 1e-2},
        ]
        return torch.optim.NAdam(groups)

    return job(Split, lambda n: (torch.randn(n, 64), torch.randint(10, (n,))), optimizer=optimizer)


@case(64)
def averages_of_weights():
    """An averaged model that torch keeps, updated in each step, and the averages of gradients (Grokfast)."""

    def model():
        network = mlp(*WIDTHS)
        return nn.ModuleDict(
            {"network": network, "average": torch.optim.swa_utils.AveragedModel(network).requires_grad_(False)}
        )

    kept = {}

    def step(run, batch):
        values, labels = batch
        loss = F.cross_entropy(run.model["network"](values), labels)
        run.backward(loss)
        for name, parameter in run.model["network"].named_parameters():
            if name not in kept or kept[name].device != parameter.device:
                kept[name] = parameter.grad.detach().clone()
            kept[name] = 0.98 * kept[name] + 0.02 * parameter.grad
            parameter.grad = parameter.grad + 2.0 * kept[name]
        run.update()
        run.model["average"].update_parameters(run.model["network"])
        return loss.detach()

    return own(model, lambda n: (torch.randn(n, 64), torch.randint(10, (n,))), step=step)


@case(64)
def updates_within_backward():
    """Each parameter is stepped and its gradient freed as soon as it is there."""

    class Stepping(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = mlp(*WIDTHS)
            self.optimizers = {p: torch.optim.AdamW([p]) for p in self.network.parameters()}
            for parameter in self.optimizers:
                parameter.register_post_accumulate_grad_hook(self.update)

        def update(self, parameter):
            self.optimizers[parameter].step()
            self.optimizers[parameter].zero_grad()

        def forward(self, values):
            return self.network(values)

    return job(Stepping, lambda n: (torch.randn(n, 64), torch.randint(10, (n,))))


@case(64)
def without_gradients():
    """Two losses of weights moved there and back by noise of one seed (MeZO)."""

    def step(run, batch):
        values, labels = batch
        parameters = list(run.model.parameters())

        def moved(scale):
            torch.manual_seed(7)
            for p in parameters:
                p.data.add_(torch.randn_like(p), alpha=scale)

        with torch.no_grad():
            losses = []
            for scale in (1e-3, -2e-3):
                moved(scale)
                losses.append(F.cross_entropy(run.model(values), labels))
            moved(1e-3)
            rate = (losses[0] - losses[1]) / 2e-3
            torch.manual_seed(7)
            for p in parameters:
                p.grad = rate * torch.randn_like(p)
        run.update()
        return losses[0]

    return own(
        lambda: mlp(*WIDTHS),
        lambda n: (torch.randn(n, 64), torch.randint(10, (n,))),
        step=step,
        optimizer=torch.optim.SGD,
    )


@case(64)
def teacher_inside_the_step():
    """The teacher is a copy that lives in the step's own closure, made at the first call (mean teacher)."""
    teachers = {}

    def step(run, batch):
        seen, unseen, labels = batch["seen"], batch["unseen"], batch["labels"]
        if run.model not in teachers:
            teachers[run.model] = copy.deepcopy(run.model).requires_grad_(False)
        teacher = teachers[run.model]
        with torch.no_grad():
            chances = teacher(unseen).softmax(-1)
            sure = chances.amax(-1) > 0.0
        loss = F.cross_entropy(run.model(seen), labels)
        found = run.model(unseen + 0.1 * torch.randn_like(unseen))
        loss = loss + (F.cross_entropy(found, chances.argmax(-1), reduction="none") * sure).mean()
        run.backward(loss)
        run.update()
        with torch.no_grad():
            for mine, theirs in zip(teacher.parameters(), run.model.parameters()):
                mine.mul_(0.99).add_(theirs, alpha=0.01)
        return loss.detach()

    def batch(n):
        return {
            "seen": torch.randn(n, 64),
            "unseen": torch.randn(3 * n, 64).view(n, 3, 64),
            "labels": torch.randint(10, (n,)),
        }

    def flat(run, batch):
        return step(run, {**batch, "unseen": batch["unseen"].flatten(0, 1)})

    return own(lambda: mlp(*WIDTHS), batch, step=flat, optimizer=adamw)
