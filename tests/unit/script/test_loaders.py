"""DataLoaders of a watched script, in this process."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from vramfit.script.loaders import short_loaders


class Counted(IterableDataset):
    def __iter__(self):
        return iter(torch.arange(20.0))


def observer(**now):
    said = {"phase": "input", "steps_made": 0, "done": False, "late": False, "validating": False, "loader_ended": False}
    return SimpleNamespace(**{**said, **now}, epoch_begins=lambda: None, batch_moves=lambda: None)


@pytest.mark.parametrize("data", [TensorDataset(torch.arange(20.0)), Counted()], ids=["map", "iterable"])
def test_a_loader_with_persistent_workers_begins_each_epoch_anew(data):
    with short_loaders(observer()):
        loader = DataLoader(data, batch_size=4, num_workers=2, persistent_workers=True)
        assert [sum(1 for _ in loader) for _ in range(3)] == [5, 5, 5]


def test_each_validation_of_a_loader_with_persistent_workers_has_its_batches():
    with short_loaders(observer(done=True)), torch.no_grad():
        loader = DataLoader(TensorDataset(torch.arange(20.0)), batch_size=4, num_workers=2, persistent_workers=True)
        assert [sum(1 for _ in loader) for _ in range(3)] == [2, 2, 2]
