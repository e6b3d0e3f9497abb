"""How batches reach a network, and how its loss is found."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vramfit
from vramfit.errors import UsageError
from vramfit.jobs.job import Job
from vramfit.jobs.network_call import call_network, loss_in
from vramfit.jobs.step import Step


@dataclass
class Output:
    """As Hugging Face's models return."""

    logits: torch.Tensor
    loss: torch.Tensor | None = None


class Classifier(nn.Module):
    """Takes names, and computes its loss from labels if there are any."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, words=None, mask=None, labels=None):
        logits = self.layer(words if mask is None else words * mask)
        return Output(logits, None if labels is None else F.cross_entropy(logits, labels))


class Echo(nn.Module):
    """Returns what it was given."""

    def forward(self, *args, **kwargs):
        return args, kwargs


class One(nn.Module):
    def forward(self, x):
        return x


class Two(nn.Module):
    def forward(self, first, second, *, third=None):
        return first, second, third


ONE, TWO, MANY = torch.zeros(1), torch.ones(1), torch.zeros(3)


@pytest.mark.parametrize(
    ("network", "inputs", "expected"),
    [
        (One(), ONE, ONE),
        (One(), (ONE, TWO), (ONE, TWO)),
        (One(), [ONE, TWO], [ONE, TWO]),
        (One(), {"a": ONE}, {"a": ONE}),
        (One(), {"x": ONE}, ONE),
        (Two(), (ONE, TWO), (ONE, TWO, None)),
        (Two(), {"second": TWO, "first": ONE}, (ONE, TWO, None)),
        (Echo(), (ONE, TWO), ((ONE, TWO), {})),
        (Echo(), {"a": ONE}, ((), {"a": ONE})),
    ],
)
def test_inputs_become_the_arguments_that_forward_takes(network, inputs, expected) -> None:
    assert call_network(network, inputs) == expected


def test_of_a_whole_batch_the_network_takes_the_names_that_it_has() -> None:
    batch = {"first": ONE, "second": TWO, "label": ONE}
    assert call_network(Two(), batch, of_whole_batch=True) == (ONE, TWO, None)


@pytest.mark.parametrize("inputs", [ONE, [ONE, TWO], {"first": ONE}])
def test_arguments_that_forward_does_not_take_are_told(inputs) -> None:
    with pytest.raises(UsageError, match=r"forward of Two takes \(first, second\), and batch gives it a .*return"):
        call_network(Two(), inputs)


@pytest.mark.parametrize(
    ("outputs", "value"),
    [
        (torch.tensor(2.0), 2.0),
        (Output(ONE, torch.tensor(3.0)), 3.0),
        ({"loss": torch.tensor(4.0), "logits": ONE}, 4.0),
        ({"boxes": torch.tensor(1.0), "classes": torch.tensor(4.0)}, 5.0),
        ((torch.tensor(6.0), ONE), 6.0),
    ],
)
def test_a_loss_is_found_where_networks_put_it(outputs, value) -> None:
    assert float(loss_in(outputs, "job")) == value


@pytest.mark.parametrize("outputs", [MANY, Output(MANY), (MANY, TWO), {"logits": MANY}])
def test_outputs_without_a_loss_are_told(outputs) -> None:
    with pytest.raises(UsageError, match="no loss is among it; give loss="):
        loss_in(outputs, "job")


def labelled(count):
    generator = torch.Generator().manual_seed(count)
    words = torch.randn(count, 8, generator=generator)
    return {"words": words, "mask": (words > 0).float(), "labels": torch.randint(4, (count,), generator=generator)}


def as_pair(count):
    batch = labelled(count)
    return {"words": batch["words"] * batch["mask"]}, batch["labels"]


def job(**changes) -> Job:
    return replace(Job(model=Classifier, batch=labelled, optimizer=torch.optim.SGD, amp=None), **changes)


WAYS = [
    job(),
    job(loss=lambda outputs, batch: F.cross_entropy(outputs.logits, batch["labels"])),
    job(loss=lambda outputs, _: outputs.loss),
    job(batch=lambda n: (labelled(n), ())),
    job(batch=as_pair, loss=lambda outputs, labels: F.cross_entropy(outputs.logits, labels)),
]


@pytest.mark.parametrize("made", WAYS)
def test_a_job_may_be_written_in_many_ways_and_learns_the_same(made) -> None:
    torch.manual_seed(0)
    step = Step(made, "cpu")
    losses = [float(step.train(made.batch(count), 2)) for count in (6, 5)]
    torch.manual_seed(0)
    expected = Step(WAYS[0], "cpu")
    assert losses == pytest.approx([float(expected.train(labelled(count), 6)) for count in (6, 5)], rel=1e-5)
    outputs, loss = step.validate(made.batch(3))
    assert outputs.logits.shape == (3, 4)
    assert torch.isfinite(loss)


@pytest.mark.parametrize("made", WAYS)
def test_and_is_predicted_alike(made) -> None:
    said = [vramfit.predict(one, micro_batch=512, gpu="rtx3090").peak_allocated_bytes for one in (made, WAYS[0])]
    assert said[0] == pytest.approx(said[1], rel=0.02)


def test_a_detector_without_a_loss_in_evaluation_is_not_judged() -> None:
    class Detector(Classifier):
        def forward(self, words=None, mask=None, labels=None):
            found = super().forward(words, mask, labels)
            return {"classes": found.loss} if self.training else [found.logits]

    step = Step(job(model=Detector), "cpu")
    step.train(labelled(4), 2)
    outputs, loss = step.validate(labelled(4))
    assert outputs[0].shape == (4, 4)
    assert torch.isnan(loss)
