"""How many different values the card's tensors hold at most, and loops over as many as are assumed."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vramfit.jobs.job import Job
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.trace import trace_step
from vramfit.prediction.tracing.value_counts import ValueCounts

CLASSES, POINTS, SAMPLES = 7, 500, 4  # of logits [SAMPLES, POINTS, CLASSES]


class Scoring(nn.Module):
    """Scores classes at points, and lets a function read the scores."""

    def __init__(self, read) -> None:
        super().__init__()
        self.layer, self.read = nn.Linear(3, CLASSES), read

    def forward(self, points: Tensor) -> Tensor:
        scores = self.layer(points)
        self.read(scores)
        return scores.mean((1, 2))


def traced(read) -> Trace:
    def batch(samples: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(samples, POINTS, 3), torch.zeros(samples)

    job = Job(model=lambda: Scoring(read), batch=batch, loss=F.mse_loss, optimizer=torch.optim.SGD, amp=None)
    return trace_step(job, SAMPLES, validation=False)


def seen(read) -> int:
    said: list[int] = []
    traced(lambda scores: said.append(read(scores)))
    return said[0]


def written(scores: Tensor) -> Tensor:
    labels = scores.argmax(2)
    labels[0] = scores[0, :, 0].long()
    return labels


ALL = SAMPLES * POINTS


@pytest.mark.parametrize(
    ("values", "most"),
    [
        (lambda x: x.argmax(2), CLASSES),
        (lambda x: x.argmax(2) + 1, CLASSES),
        (lambda x: x.max(dim=2).indices.flatten(), CLASSES),
        (lambda x: x.argmax(2)[x[..., 0] > 0], CLASSES),
        (lambda x: torch.cat([x.argmax(2), x[..., :2].argmax(2)]), CLASSES + 2),
        (lambda x: x.flatten().sort().indices % CLASSES, CLASSES),
        (lambda x: x.flatten().topk(POINTS).indices.remainder(CLASSES), CLASSES),
        (lambda x: (x > 0).long(), 2),
        (lambda x: (x > 0).nonzero()[:, 2], ALL * CLASSES),
        (lambda x: x.argmax(2) * 10 + x[..., :2].argmax(2), CLASSES * 2),
        (lambda x: torch.where(x[..., 0] > 0, x.argmax(2), 0), CLASSES + 1),
        (lambda x: x[..., 0].long(), ALL),
        (written, ALL),
        (lambda x: torch.maximum(x[..., 0].long(), x[..., 1].long()), ALL),
    ],
)
def test_values_differ_no_more_than_where_they_come_from(values, most) -> None:
    assert seen(lambda x: len(values(x).unique())) <= most
    assert seen(lambda x: len(values(x).unique())) >= min(most, CLASSES, 2)


def test_values_of_which_nothing_is_known_are_all_different() -> None:
    assert seen(lambda x: len(x[..., 0].long().unique())) == ALL
    assert seen(lambda x: len(written(x).unique())) == ALL
    assert seen(lambda x: len(x.argmax(2).unique_consecutive())) == ALL
    assert seen(lambda x: len(x.argmax(2).unique(dim=0))) == SAMPLES


def test_the_inverse_and_the_counts_of_unique_fit_its_values() -> None:
    def shapes(x: Tensor) -> list[tuple[int, ...]]:
        return [tuple(one.shape) for one in x.argmax(2).unique(return_inverse=True, return_counts=True)]

    assert seen(shapes) == [(CLASSES,), (SAMPLES, POINTS), (CLASSES,)]
    assert seen(lambda x: len(x.argmax(2).unique(return_inverse=True)[1].unique())) == CLASSES


@pytest.mark.parametrize("inverse", [True, False])
@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("dim", [None, 0, 1, -1])
@pytest.mark.parametrize("unique", [torch.unique, torch.unique_consecutive])
def test_what_unique_returns_is_shaped_as_that_of_values_that_all_differ(unique, dim, inverse, counts) -> None:
    def shapes(x: Tensor) -> list[tuple[tuple[int, ...], torch.dtype]]:
        results = unique(x, return_inverse=inverse, return_counts=counts, dim=dim)
        return [(tuple(one.shape), one.dtype) for one in (results if isinstance(results, tuple) else [results])]

    assert seen(shapes) == shapes(torch.arange(ALL * CLASSES).view(SAMPLES, POINTS, CLASSES).float())


def test_repeats_whose_sum_is_given_need_no_values() -> None:
    def length(x: Tensor) -> int:
        return len(x[0].repeat_interleave(x[0].argmax(1), dim=0, output_size=3 * POINTS))

    assert seen(length) == 3 * POINTS
    assert traced(length).assumptions == []


def test_positions_lie_by_dimension() -> None:
    assert seen(lambda x: (x > 0).nonzero().stride()) == (1, ALL * CLASSES)
    assert seen(lambda x: [one.is_contiguous() for one in torch.where(x > 0)]) == [True] * 3


def test_runs_of_what_holds_few_values_may_be_as_many_as_elements() -> None:
    def shapes(x: Tensor) -> list[tuple[int, ...]]:
        results = (x > 0).unique_consecutive(return_inverse=True, return_counts=True)
        return [tuple(one.shape) for one in results]

    assert seen(shapes) == [(ALL * CLASSES,), (SAMPLES, POINTS, CLASSES), (ALL * CLASSES,)]


def test_a_loop_over_as_many_as_are_assumed_ends_and_says_so() -> None:
    rounds: list[int] = []

    def loop(scores: Tensor) -> None:
        rounds.append(sum(1 for _ in scores.flatten().unique()))

    trace = traced(loop)
    assert rounds[0] == 256
    assert any(f"a loop over {ALL * CLASSES} elements, as many as are assumed, ends after 256" in said
               for said in trace.assumptions)  # fmt: skip


def test_a_loop_over_a_length_that_is_known_runs_to_its_end() -> None:
    assert seen(lambda x: sum(1 for _ in x.flatten(0, 1))) == ALL
    assert seen(lambda x: sum(1 for _ in x.argmax(2).unique())) == CLASSES


def test_runs_that_are_numbered_may_be_more_than_values() -> None:
    aten = torch.ops.aten
    counts = ValueCounts(lambda _: None, lambda _: "")
    scores = torch.eye(2).repeat(8, 1)
    labels = aten.argmax.default(scores, 1)
    counts.follow(aten.argmax.default, (scores, 1), [scores], [labels])
    results = list(aten.unique_consecutive.default(labels, True, True))
    counts.follow(aten.unique_consecutive.default, (labels, True, True), [labels], results)
    assert [counts.of(result) for result in results[:2]] == [2, 16]
