"""Batches that a job makes: every shape that is taken, and one sentence for each that is not."""

from collections import UserDict
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import vramfit
from vramfit.errors import UsageError
from vramfit.jobs.batch import loss_terms, sample_batch, split, tree_bytes
from vramfit.jobs.job import Job
from vramfit.jobs.step import Step


def classes(count):
    return torch.zeros(count, dtype=torch.long)


def job(batch, **changes) -> Job:
    made = Job(model=lambda: nn.Linear(8, 4), batch=batch, loss=F.cross_entropy, optimizer=torch.optim.SGD, amp=None)
    return replace(made, **changes)


def loader(**options) -> DataLoader:
    return DataLoader(TensorDataset(torch.randn(10, 8), classes(10)), batch_size=3, **options)


class Numbers(IterableDataset):
    def __iter__(self):
        return iter((torch.full((8,), float(n)), n % 4) for n in range(5))


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (lambda n: (np.zeros((n, 8)), classes(n)), r"numpy array at inputs; .*torch\.from_numpy"),
        (lambda n: (torch.zeros(n, 8), {"y": classes(n), "path": ["a"] * n}), r"text at targets\['path'\]\[0\]"),
        (lambda _: loader(), "gives a DataLoader; write batch=loader"),
        (lambda _: (torch.zeros(8, 8), classes(8)), "makes 8 samples at inputs .*whatever is asked.*batch=loader"),
        (lambda n: (torch.zeros(50, n, 8), classes(n)), r"dimension 1 of inputs \(50x6x8\); .*\.transpose\(0, 1\)"),
        (lambda n: (torch.zeros(n, 8), torch.zeros(4)), r"targets \(4\), whose first dimension is not"),
        (lambda n: (torch.zeros(n, 8), torch.tensor(1.0)), r"targets \(a single number\), whose first dimension"),
        (lambda n: (object(), classes(n)), "a object at inputs; give tensors"),
        (lambda _: (1, None), "holds no tensor"),
    ],
)
def test_a_batch_that_breaks_the_rule_is_told_where_and_how_to_write_it(batch, says) -> None:
    with pytest.raises(UsageError, match=rf"^batch\(6\) of 'job' .*{says}"):
        sample_batch(job(batch), 6)


@pytest.mark.parametrize(
    "batch",
    [
        lambda n: (torch.zeros(n, 8), classes(n)),
        lambda n: {"a": {"b": [torch.zeros(n, 8)]}, "use_cache": False, "scale": 3, "nothing": None},
        lambda n: torch.zeros(n, 8),
        lambda n: ([torch.zeros(3, 5)] * n, classes(n)),
        lambda n: (torch.zeros(n, 8), None),
        lambda n: UserDict(a=torch.zeros(n, 8)),
        loader(),
        loader(collate_fn=lambda pairs: {"x": torch.stack([x for x, _ in pairs])}),
        loader().dataset,
        Numbers(),
    ],
)
@pytest.mark.parametrize("samples", [1, 6, 77])
def test_a_batch_that_keeps_it_is_taken(batch, samples) -> None:
    made = sample_batch(job(batch), samples)
    assert tree_bytes(made) >= samples * 8 * 4


def test_a_loader_of_ready_batches_is_refused() -> None:
    with pytest.raises(UsageError, match="batch_size=None"):
        sample_batch(job(DataLoader(Numbers(), batch_size=None)), 2)


def test_constants_stay_in_every_part() -> None:
    parts = list(split({"x": torch.arange(5), "use_cache": True}, 2))
    assert [part["x"].tolist() for part in parts] == [[0, 1], [2, 3], [4]]
    assert all(part["use_cache"] is True for part in parts)


def test_a_job_with_a_loader_is_predicted() -> None:
    trial = vramfit.predict(job(loader()), micro_batch=64, gpu="rtx3090")
    assert trial == vramfit.predict(job(lambda n: (torch.zeros(n, 8), classes(n))), micro_batch=64, gpu="rtx3090")


def tokens(count):
    """Rows with 1, 2, 3 ... words to learn from, the rest of 12 ignored."""
    generator = torch.Generator().manual_seed(count)
    words = torch.randn(count, 12, 8, generator=generator)
    known = torch.arange(12) < torch.arange(1, count + 1)[:, None]
    return words.double(), torch.where(known, torch.randint(4, (count, 12), generator=generator), -100)


def over_tokens(outputs, targets):
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def over_known(outputs, targets):
    """The same with a mask of the job's own."""
    known = targets["mask"].flatten()
    return (
        F.cross_entropy(outputs.flatten(0, 1), targets["y"].flatten(), reduction="none") * known
    ).sum() / known.sum()


def masked_tokens(count):
    words, targets = tokens(count)
    return words, {"y": targets.clamp(min=0), "mask": (targets >= 0).double()}


def gradient(made: Job, micro_batch: int) -> torch.Tensor:
    torch.manual_seed(1)
    step = Step(made, "cpu")
    step.backward(made.batch(8), micro_batch)
    return torch.cat([parameter.grad.flatten() for parameter in step.model.parameters()])


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("batch", "loss", "terms"),
    [(tokens, over_tokens, None), (masked_tokens, over_known, lambda targets: targets["mask"].sum())],
)
def test_parts_weigh_by_the_tokens_that_their_loss_is_the_mean_over(batch, loss, terms, micro_batch) -> None:
    made = job(batch, model=lambda: nn.Linear(8, 4).double(), loss=loss, loss_terms=terms)
    torch.testing.assert_close(gradient(made, micro_batch), gradient(made, 8), rtol=1e-10, atol=1e-12)


def test_a_part_in_which_every_token_is_ignored_adds_nothing() -> None:
    def batch(count):
        words, targets = tokens(count)
        targets[:4] = -100
        return words, targets

    made = job(batch, model=lambda: nn.Linear(8, 4).double(), loss=over_tokens)
    torch.testing.assert_close(gradient(made, 2), gradient(made, 8), rtol=1e-10, atol=1e-12)


def test_what_counts_as_a_term() -> None:
    plain = job(partial(torch.zeros))
    assert loss_terms(plain, (torch.zeros(5, 8), torch.zeros(5, 3))) == 5
    assert loss_terms(plain, (torch.zeros(5, 8), torch.tensor([1, -100, 2, 0, -100]))) == 3
    assert loss_terms(plain, (torch.zeros(5, 8), torch.full((5,), -100))) == 0


class Pairs(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {"image": torch.full((3,), float(index)), "label": index}


def test_a_dataset_is_collated_and_repeated() -> None:
    made = sample_batch(job(Pairs()), 5)
    assert made["image"].shape == (5, 3)
    assert made["label"].tolist() == [0, 1, 0, 1, 0]


def test_a_batch_that_is_right_at_one_size_by_chance_is_found_by_another() -> None:
    with pytest.raises(UsageError, match=r"batch\(12\) of 'job' makes 6 samples .*whatever is asked"):
        sample_batch(job(lambda _: (torch.zeros(6, 8), classes(6))), 6)
    with pytest.raises(UsageError, match=r"dimension 1 of inputs \(6x12x8\)"):
        sample_batch(job(lambda n: (torch.zeros(6, n, 8), classes(n))), 6)


def test_a_batch_function_that_takes_particular_sizes_alone_is_believed() -> None:
    def six(samples):
        if samples != 6:
            raise ValueError("six alone")
        return torch.zeros(samples, 8), classes(samples)

    assert sample_batch(job(six), 6)[0].shape == (6, 8)
