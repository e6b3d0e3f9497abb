"""What people do to gradients: functions of their own, recomputation, hooks, higher derivatives, torch.func."""

import functools

import torch
import torchvision
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vjp, vmap
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    checkpoint_sequential,
    create_selective_checkpoint_contexts,
)

from .styles import case, images, job, mlp, own, tokens


def rows(width=64, classes=10):
    return lambda n: (torch.randn(n, width), torch.randint(classes, (n,)))


class Block(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.norm, self.inside, self.outside = (
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
        )

    def forward(self, values):
        return values + self.outside(F.dropout(F.gelu(self.inside(self.norm(values))), 0.1, self.training))


class Through(nn.Module):
    """Blocks, called in a way of its own, and a head."""

    def __init__(self, way, blocks=4):
        super().__init__()
        self.blocks, self.head, self.way = nn.ModuleList(Block() for _ in range(blocks)), nn.Linear(64, 10), way

    def forward(self, values):
        return self.head(self.way(self.blocks, values))


# ---- recomputation


@case(256)
def recomputed_reentrant():
    def way(blocks, values):
        values = values.requires_grad_()
        for block in blocks:
            values = checkpoint(block, values, use_reentrant=True)
        return values

    return job(lambda: Through(way), rows())


@case(256)
def recomputed_nested():
    def way(blocks, values):
        def pair(first, second, values):
            return checkpoint(second, checkpoint(first, values, use_reentrant=False), use_reentrant=False)

        for at in range(0, len(blocks), 2):
            values = checkpoint(pair, blocks[at], blocks[at + 1], values, use_reentrant=False)
        return values

    return job(lambda: Through(way), rows())


@case(256)
def recomputed_in_segments():
    def way(blocks, values):
        return checkpoint_sequential(nn.Sequential(*blocks), 2, values, use_reentrant=False)

    return job(lambda: Through(way), rows())


@case(256)
def recomputed_but_products():
    def policy(context, operation, *args, **kwargs):
        kept = operation in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    def way(blocks, values):
        contexts = functools.partial(create_selective_checkpoint_contexts, policy)
        for block in blocks:
            values = checkpoint(block, values, use_reentrant=False, context_fn=contexts)
        return values

    return job(lambda: Through(way), rows())


# ---- functions of one's own


class Reversed(torch.autograd.Function):
    """Both halves are computed back from the outputs in the backward pass (RevNet); only the last are kept."""

    @staticmethod
    def forward(ctx, a, b, blocks, *parameters):
        ctx.blocks = blocks
        with torch.no_grad():
            for f, g in blocks:
                a = a + f(b)
                b = b + g(a)
        ctx.save_for_backward(a, b)
        return a, b

    @staticmethod
    def backward(ctx, da, db):
        a, b = ctx.saved_tensors
        slopes = []
        for f, g in reversed(ctx.blocks):
            with torch.enable_grad():
                y = a.detach().requires_grad_()
                out = g(y)
            found = torch.autograd.grad(out, [y, *g.parameters()], db)
            with torch.no_grad():
                b, da = b - out, da + found[0]
            with torch.enable_grad():
                x = b.detach().requires_grad_()
                back = f(x)
            more = torch.autograd.grad(back, [x, *f.parameters()], da)
            with torch.no_grad():
                a, db = a - back, db + more[0]
            slopes = [*more[1:], *found[1:], *slopes]
        return da, db, None, *slopes


@case(256)
def reversible():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.ModuleList([mlp(32, 128, 32), mlp(32, 128, 32)]) for _ in range(4))
            self.head = nn.Linear(64, 10)

        def forward(self, values):
            a, b = values.chunk(2, -1)
            parameters = [p for pair in self.blocks for block in pair for p in block.parameters()]
            return self.head(torch.cat(Reversed.apply(a, b, list(self.blocks), *parameters), -1))

    return job(Network, rows())


class GradientInForward(torch.autograd.Function):
    """Cross entropy of a large vocabulary, in chunks, whose gradients are made in the forward pass (Liger)."""

    @staticmethod
    def forward(ctx, hidden, weight, labels, chunks):
        into, onto, total = torch.empty_like(hidden), torch.zeros_like(weight), 0.0
        for part, wanted, place in zip(hidden.chunk(chunks), labels.chunk(chunks), into.chunk(chunks)):
            scores = part @ weight.T
            chances = scores.softmax(-1)
            total = total - chances.gather(1, wanted[:, None]).log().sum()
            chances.scatter_add_(1, wanted[:, None], torch.full_like(chances[:, :1], -1.0))
            torch.mm(chances, weight, out=place)
            onto.addmm_(chances.T, part)
        ctx.save_for_backward(into, onto)
        ctx.count = len(labels)
        return total / len(labels)

    @staticmethod
    def backward(ctx, slope):
        into, onto = ctx.saved_tensors
        return into.mul_(slope / ctx.count), onto.mul_(slope / ctx.count), None, None


@case(4)
def gradient_made_in_forward():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.body = nn.Embedding(4000, 64), mlp(64, 256, 64)

        def forward(self, ids):
            hidden = self.body(self.words(ids[:, :-1])).flatten(0, 1)
            return GradientInForward.apply(hidden, self.words.weight, ids[:, 1:].flatten(), 8)

    return own(Model, lambda n: {"ids": tokens(n, 65, 4000)})


class InPlace(torch.autograd.Function):
    """Writes its input, keeps a mask of bits as bytes, and also returns a number and a place."""

    @staticmethod
    def forward(ctx, values, slope):
        ctx.mark_dirty(values)
        mask = values > 0
        ctx.save_for_backward(mask)
        ctx.slope = slope
        values.mul_(torch.where(mask, 1.0, slope))
        place = mask.long().argmax(-1)
        ctx.mark_non_differentiable(place)
        return values, place, 7

    @staticmethod
    def backward(ctx, found, _, __):
        (mask,) = ctx.saved_tensors
        return torch.where(mask, found, found * ctx.slope), None


@case(256)
def written_in_place():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.head = nn.ModuleList(nn.Linear(64, 64) for _ in range(4)), nn.Linear(64, 10)

        def forward(self, values):
            for layer in self.layers:
                values, _place, _number = InPlace.apply(layer(values), 0.2)
            return self.head(values)

    return job(Network, rows())


class Adjoint(torch.autograd.Function):
    """Solves an equation forward and its adjoint backward, and keeps the end alone."""

    @staticmethod
    def forward(ctx, field, start, *parameters):
        ctx.field = field
        with torch.no_grad():
            values = start
            for _ in range(10):
                values = values + 0.1 * field(values)
        ctx.save_for_backward(values, *parameters)
        return values

    @staticmethod
    def backward(ctx, slope):
        values, *parameters = ctx.saved_tensors
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for _ in range(10):
            with torch.enable_grad():
                here = values.detach().requires_grad_()
                rate = ctx.field(here)
            back, *more = torch.autograd.grad(rate, [here, *parameters], slope)
            values = values - 0.1 * rate.detach()
            slope = slope + 0.1 * back
            total = [a + 0.1 * b for a, b in zip(total, more)]
        return None, slope, *total


@case(256)
def adjoint_of_an_equation():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.field, self.head = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 64)), nn.Linear(64, 10)

        def forward(self, values):
            return self.head(Adjoint.apply(self.field, values, *self.field.parameters()))

    return job(Network, rows())


@case(64)
def implicit_gradient():
    """A fixed point, whose gradient is another fixed point, found by a hook in the backward pass."""

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)

        def cell(self, state, given):
            return torch.tanh(0.5 * self.inner(state) + given)

        def forward(self, values):
            given = self.outer(values)
            with torch.no_grad():
                state = torch.zeros_like(given)
                for _ in range(15):
                    state = self.cell(state, given)
            state = self.cell(state, given)
            if self.training:
                start = state.detach().requires_grad_()
                again = self.cell(start, given.detach())

                def solved(slope):
                    found = slope
                    for _ in range(15):
                        found = torch.autograd.grad(again, start, found, retain_graph=True)[0] + slope
                    return found

                state.register_hook(solved)
            return self.head(state)

    return job(Deep, rows())


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, scale):
        return (values / scale).round().clamp(-128, 127) * scale

    @staticmethod
    def backward(ctx, slope):
        return slope, None


@case(8)
def quantized_while_it_trains():
    """Weights and activations rounded, with straight-through gradients and ranges that follow."""

    class Layer(nn.Conv2d):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.register_buffer("low", torch.zeros(()))
            self.register_buffer("high", torch.ones(()))

        def forward(self, values):
            if self.training:
                low, high = torch.aminmax(values.detach())
                self.low.lerp_(low, 0.1)
                self.high.lerp_(high, 0.1)
            scale = (self.high - self.low) / 255
            values = torch.fake_quantize_per_tensor_affine(values, scale, (-self.low / scale).round().int(), 0, 255)
            weight = Rounded.apply(self.weight, self.weight.detach().abs().amax((1, 2, 3), keepdim=True) / 127)
            return self._conv_forward(values, weight, self.bias)

    def model():
        layers = [Layer(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6(True), Layer(16, 32, 3, 2, 1), nn.ReLU6(True)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))

    return job(model, images(32))


@case(256)
def low_rank_on_rounded_weights():
    """Weights of eight bits that do not learn, made float at each call, and small factors that do (QLoRA)."""

    class Layer(nn.Module):
        def __init__(self, width=256):
            super().__init__()
            self.register_buffer("weight", torch.randint(-127, 127, (width, width), dtype=torch.int8))
            self.register_buffer("scale", torch.full((width, 1), 0.01))
            self.a, self.b = nn.Parameter(torch.randn(8, width) / 16), nn.Parameter(torch.zeros(width, 8))

        def forward(self, values):
            return (
                F.linear(values, self.weight.float() * self.scale)
                + (F.dropout(values, 0.05, self.training) @ self.a.T) @ self.b.T
            )

    return job(
        lambda: nn.Sequential(Layer(), nn.SiLU(), Layer(), nn.SiLU(), Layer()),
        lambda n: (torch.randn(n, 256), torch.randn(n, 256)),
        F.mse_loss,
    )


# ---- hooks and parametrizations


@case(256)
def activations_kept_in_half():
    """What the backward pass keeps is packed to half precision."""

    def way(blocks, values):
        def pack(kept):
            return kept.half() if kept.is_floating_point() and not isinstance(kept, nn.Parameter) else kept

        with torch.autograd.graph.saved_tensors_hooks(
            pack, lambda kept: kept.float() if kept.dtype == torch.half else kept
        ):
            for block in blocks:
                values = block(values)
        return values

    return job(lambda: Through(way), rows())


@case(8)
def features_caught_by_hooks():
    """A student learns the features that hooks catch in it and in its frozen teacher."""

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.student, self.teacher = (
                torchvision.models.resnet18(num_classes=10),
                torchvision.models.resnet18(num_classes=10),
            )
            self.teacher.requires_grad_(False).eval()
            self.caught = {}
            for name in ("student", "teacher"):
                for stage in ("layer1", "layer2", "layer3"):
                    getattr(getattr(self, name), stage).register_forward_hook(
                        functools.partial(self.catch, (name, stage))
                    )

        def catch(self, key, module, inputs, output):
            self.caught[key] = output

        def forward(self, pictures, labels):
            loss = F.cross_entropy(self.student(pictures), labels)
            with torch.no_grad():
                self.teacher(pictures)
            for stage in ("layer1", "layer2", "layer3"):
                mine, theirs = (
                    F.normalize(self.caught[name, stage].square().mean(1).flatten(1)) for name in ("student", "teacher")
                )
                loss = loss + 100 * (mine - theirs).square().mean()
            return loss

    return own(Pair, lambda n: {"pictures": torch.randn(n, 3, 64, 64), "labels": torch.randint(10, (n,))})


@case(64)
def parametrized_and_pruned():
    """Orthogonal, symmetric, old and new norms of weights, and one half of a layer pruned."""

    class Symmetric(nn.Module):
        def forward(self, weight):
            return weight.triu() + weight.triu(1).mT

    def model():
        first = parametrizations.orthogonal(nn.Linear(64, 64), orthogonal_map="cayley")
        second = nn.Linear(64, 64)
        parametrize.register_parametrization(second, "weight", Symmetric())
        third = nn.utils.spectral_norm(nn.Linear(64, 128))
        fourth = nn.utils.weight_norm(nn.Linear(128, 128))
        fifth = nn.Linear(128, 10)
        prune.l1_unstructured(fifth, "weight", 0.5)
        return nn.Sequential(first, nn.ELU(), second, nn.ELU(), third, nn.ELU(), fourth, nn.ELU(), fifth)

    return job(model, rows())


# ---- higher derivatives


@case(16)
def penalty_of_the_jacobian():
    class Contracting(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = (
                nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 16)),
                mlp(16, 128, 64),
            )

        def forward(self, values):
            with torch.enable_grad():
                slopes = vmap(jacrev(self.encoder))(values)
                return F.mse_loss(self.decoder(self.encoder(values)), values) + 0.1 * slopes.square().sum((1, 2)).mean()

    return own(Contracting, lambda n: {"values": torch.randn(n, 64)})


@case(64)
def energies_of_a_motion():
    """Accelerations from the Hessian of a learned Lagrangian."""

    class Lagrangian(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(
                nn.Linear(8, 64), nn.Softplus(), nn.Linear(64, 64), nn.Softplus(), nn.Linear(64, 1)
            )

        def forward(self, state):
            def one(row):
                place, speed = row.chunk(2)

                def energy(place, speed):
                    return self.network(torch.cat([place, speed])).squeeze()

                mass = hessian(energy, 1)(place, speed) + torch.eye(4, device=row.device)
                force = grad(energy, 0)(place, speed) - jacrev(grad(energy, 1), 0)(place, speed) @ speed
                return torch.linalg.solve(mass, force)

            with torch.enable_grad():
                return vmap(one)(state)

    return job(Lagrangian, lambda n: (torch.randn(n, 8), torch.randn(n, 4)), F.mse_loss)


@case(64)
def scores_matched_in_slices():
    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(nn.Linear(32, 128), nn.SiLU(), nn.Linear(128, 32))

        def forward(self, values):
            with torch.enable_grad():
                direction = torch.randn_like(values)
                found, slope = jvp(self.network, (values,), (direction,))
                _, back = vjp(self.network, values)
                return ((direction * slope).sum(-1) + 0.5 * found.square().sum(-1)).mean() + 0 * back(direction)[
                    0
                ].sum()

    return own(Scores, lambda n: {"values": torch.randn(n, 32)})


@case(64)
def forward_mode():
    class Flow(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(nn.Linear(33, 128), nn.Tanh(), nn.Linear(128, 32))

        def forward(self, values, times):
            with forward_ad.dual_level():
                dual = forward_ad.make_dual(times, torch.ones_like(times))
                found = forward_ad.unpack_dual(self.network(torch.cat([values, dual], -1)))
                return (found.tangent + found.primal).square().mean()

    return own(Flow, lambda n: {"values": torch.randn(n, 32), "times": torch.rand(n, 1)})


@case(4)
def tasks_at_once():
    """Inner steps by torch.func, all tasks under vmap."""

    class Meta(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = mlp(8, 64, 64, 1)

        def forward(self, support, wanted, query, answer):
            start = dict(self.network.named_parameters())

            def loss(weights, x, y):
                return F.mse_loss(functional_call(self.network, weights, (x,)), y)

            def task(x, y, xs, ys):
                weights = start
                for _ in range(3):
                    slopes = grad(loss)(weights, x, y)
                    weights = {name: weights[name] - 0.01 * slopes[name] for name in weights}
                return loss(weights, xs, ys)

            with torch.enable_grad():
                return vmap(task)(support, wanted, query, answer).mean()

    def batch(n):
        return {
            "support": torch.randn(n, 10, 8),
            "wanted": torch.randn(n, 10, 1),
            "query": torch.randn(n, 10, 8),
            "answer": torch.randn(n, 10, 1),
        }

    return own(Meta, batch)


@case(64)
def many_networks_at_once():
    """Stacked weights of several networks, called as one under vmap."""

    class Several(nn.Module):
        def __init__(self, count=6):
            super().__init__()
            made = [mlp(64, 128, 10) for _ in range(count)]
            weights, _ = stack_module_state(made)
            self.names = list(weights)
            self.weights = nn.ParameterList(nn.Parameter(weights[name].detach()) for name in self.names)
            self.base = [made[0].to("meta")]

        def forward(self, values):
            def call(weights, values):
                return functional_call(self.base[0], weights, (values,))

            return vmap(call, (0, None), randomness="different")(dict(zip(self.names, self.weights)), values).mean(0)

    return job(Several, rows())


@case(32)
def gradients_clipped_by_sample():
    """Gradients of each sample by vmap, clipped, noised, and set as the parameters' own."""

    def step(run, batch):
        values, labels = batch
        weights = {name: one.detach() for name, one in run.model.named_parameters()}

        def loss(weights, value, label):
            return F.cross_entropy(functional_call(run.model, weights, (value[None],)), label[None])

        slopes = vmap(grad(loss), (None, 0, 0))(weights, values, labels)
        norms = torch.stack([one.flatten(1).norm(dim=1) for one in slopes.values()]).norm(dim=0)
        share = (1 / (norms + 1e-6)).clamp(max=1)
        for name, parameter in run.model.named_parameters():
            clipped = torch.einsum("n,n...->...", share, slopes[name])
            parameter.grad = (clipped + torch.randn_like(clipped)) / len(values)
        run.update()
        return norms.mean()

    return own(lambda: mlp(64, 256, 10), rows(), step=step)


@case(64)
def gradients_projected():
    """Each task's gradient, freed of what opposes another's (PCGrad)."""

    class Tasks(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.heads = mlp(64, 256, 256), nn.ModuleList(nn.Linear(256, 10) for _ in range(3))

        def forward(self, values):
            found = self.body(values)
            return [head(found) for head in self.heads]

    def step(run, batch):
        values, labels = batch
        losses = [F.cross_entropy(one, labels[:, at]) for at, one in enumerate(run.model(values))]
        shared = list(run.model.body.parameters())
        found = []
        for loss in losses:
            slopes = torch.autograd.grad(loss, shared, retain_graph=True)
            found.append(torch.cat([one.flatten() for one in slopes]))
        whole = torch.stack(found)
        for at in range(len(found)):
            for other in range(len(found)):
                dot = whole[at] @ found[other]
                whole[at] -= torch.where(dot < 0, dot / found[other].square().sum(), 0) * found[other]
        run.backward(sum(losses))
        merged, start = whole.mean(0), 0
        for parameter in shared:
            parameter.grad = merged[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
        run.update()
        return losses[0].detach()

    return own(Tasks, lambda n: (torch.randn(n, 64), torch.randint(10, (n, 3))), step=step)


@case(16)
def passes_cached():
    """Contrastive learning of a large batch in two passes over small parts (GradCache)."""

    def step(run, batch):
        one, other = batch["one"], batch["other"]
        with torch.no_grad():
            found = [torch.cat([run.model(part) for part in side.split(4)]) for side in (one, other)]
        found = [side.requires_grad_() for side in found]
        scores = F.normalize(found[0]) @ F.normalize(found[1]).T / 0.07
        loss = F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))
        slopes = torch.autograd.grad(loss, found)
        for side, slope in zip((one, other), slopes):
            for part, wanted in zip(side.split(4), slope.split(4)):
                run.backward((run.model(part) * wanted).sum())
        run.update()
        return loss.detach()

    return own(
        lambda: torchvision.models.resnet18(num_classes=64),
        lambda n: {"one": torch.randn(n, 3, 32, 32), "other": torch.randn(n, 3, 32, 32)},
        step=step,
    )
