"""Batches that are lists of samples of any size, as detectors take them: seen, split, trained, predicted."""

import pickle

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, Dataset

import vramfit
from vramfit.jobs.batch import batch_size, loss_terms, part_of, sample_batch, split
from vramfit.jobs.job import Job
from vramfit.jobs.listed_samples import Samples, find_samples, is_pair, mark_samples
from vramfit.jobs.step import Step
from vramfit.prediction.tracing.host_batch import traceable_batch
from vramfit.prediction.tracing.trace import trace_step


def film(number):
    """An image with its own width and number of boxes."""
    generator = torch.Generator().manual_seed(number)
    boxes = 1 + number % 3
    image = torch.randn(3, 16, 16 + 4 * (number % 4), generator=generator)
    target = {"boxes": torch.rand(boxes, 4, generator=generator), "labels": torch.arange(boxes), "name": None}
    return image, target | {"image_id": torch.tensor(number)}


class Films(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return film(index)


def transposed(samples):
    return tuple(zip(*samples, strict=True))


def lists(count):
    images, targets = transposed([film(number) for number in range(count)])
    return list(images), list(targets)


class Detector(nn.Module):
    """Takes images of any size and their targets, and returns a dict of losses in training alone."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, images, targets=None):
        found = torch.stack([self.layer(image[None]).mean((0, 2, 3)) for image in images])
        if not self.training:
            return [{"boxes": row} for row in found]
        wanted = torch.stack([target["boxes"].mean(0) for target in targets])
        return {"distance": (found - wanted).square().mean(), "size": found.square().mean()}


def job(batch=lists, model=Detector, **changes):
    return Job(model=model, batch=batch, optimizer=lambda p: torch.optim.SGD(p, lr=0.1), amp=None, **changes)


loader = DataLoader(Films(), batch_size=4, collate_fn=transposed)


@pytest.mark.parametrize("batch", [lists, loader])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_list_of_samples_is_a_batch_of_so_many(batch, count):
    made = sample_batch(job(batch), count)
    assert batch_size(made) == count == loss_terms(job(batch), made)
    assert [batch_size(part) for part in split(made, 2)] == [2] * (count // 2) + [1] * (count % 2)


@pytest.mark.parametrize("batch", [lists, loader])
def test_a_detector_that_takes_lists_is_predicted(batch):
    one, two = (trace_step(job(batch), count) for count in (2, 4))
    assert two.peak_bytes > one.peak_bytes
    assert vramfit.predict(job(batch), micro_batch=2, gpu="rtx3090").verdict.value == "fits"


def test_a_raw_batch_of_a_loader_trains_in_parts_with_the_gradient_of_the_whole():
    def gradient(micro_batch):
        torch.manual_seed(0)
        step = Step(job(model=lambda: Detector().double()), "cpu")
        step.backward(double(transposed([film(number) for number in range(4)])), micro_batch)
        return step.model.layer.weight.grad

    def double(batch):
        return tree_map(
            lambda value: value.double() if torch.is_tensor(value) and value.is_floating_point() else value, batch
        )

    torch.testing.assert_close(gradient(1), gradient(4), rtol=1e-12, atol=1e-14)


def test_validation_gets_the_images_and_reads_no_loss_of_what_is_found():
    outputs, loss = Step(job(), "cpu").validate(lists(3))
    assert len(outputs) == 3
    assert loss.isnan()


@pytest.mark.parametrize("count", [2, 3])
def test_a_list_of_dicts_is_whole_and_two_of_them_are_no_pair(count):
    batch = [{"image": image, **target} for image, target in map(film, range(count))]
    assert not is_pair(batch)
    assert isinstance(mark_samples(batch, count), Samples)
    assert isinstance(find_samples(batch), Samples)


def test_two_samples_of_a_loader_that_does_not_collate_are_no_pair():
    pairs = [(torch.zeros(3, 8, 8), torch.zeros((), dtype=torch.long)) for _ in range(2)]
    assert not is_pair(pairs)
    assert isinstance(mark_samples(pairs, 2), Samples)


def test_lists_of_whole_batches_are_several_inputs_none_the_less():
    views = [torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)]
    batch = (views, torch.zeros(2, dtype=torch.long))
    assert find_samples(batch) is batch
    assert mark_samples(batch, 2) == batch
    assert [part.shape[0] for part in part_of(batch, slice(0, 1))[0]] == [1, 1]


def test_lists_beside_tensors_are_split_alike():
    batch = {"images": [torch.zeros(3, 4, 4)] * 5, "ids": torch.arange(5), "scale": 2.0}
    parts = list(split(batch, 2))
    assert [(len(part["images"]), part["ids"].tolist()) for part in parts] == [(2, [0, 1]), (2, [2, 3]), (1, [4])]
    assert all(part["scale"] == 2.0 for part in parts)


def test_samples_travel_to_another_process():
    sent = pickle.loads(pickle.dumps(Samples([1, 2])))
    assert isinstance(sent, Samples)
    assert sent == [1, 2]


def test_a_large_batch_of_lists_is_traced_without_its_memory():
    def wide(count):
        return [torch.zeros(3, 1024, 1024 + 8 * index) for index in range(count)], None

    batch = traceable_batch(job(wide), 64)
    assert len(batch[0]) == 64
    assert all(image.is_meta for image in batch[0])
