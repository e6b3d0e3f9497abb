"""From films to points: the truth comes back, whatever the batch, and so it does after running out of memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_checkpoint import SIZE, films_of, make_films

from vramfit.landmarks.data.cache import FilmCache
from vramfit.landmarks.evaluation.metrics import evaluate_points, true_points
from vramfit.landmarks.evaluation.predict_points import film_points, predict_points, recovering
from vramfit.landmarks.model.heatmap import present, render
from vramfit.records import OomEvent


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("score")
    return FilmCache.open(films_of(make_films(folder / "films"), "train"), (192, 160), folder=folder / "cache")


def perfect(batch):
    """A network that knows: the heatmaps of the truth, and the number of films as the loss."""
    inputs, targets = batch
    assert inputs["films"].dtype == torch.uint8
    assert inputs["films"].shape[1:] == (1, 192, 160)
    return render(targets, (192, 160), 2, 2.0), torch.tensor(float(len(targets)))


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_a_network_that_knows_is_right_in_native_pixels(cache, batch_size):
    found = predict_points(perfect, cache, batch_size=batch_size, stride=2)
    assert found.points.dtype == np.float64
    assert found.points.shape == (len(cache), len(cache.film_set.landmarks), 2)
    # Half an image pixel is about a third of a millimetre here; decoding is far better inside the image.
    assert evaluate_points(found.points, cache.film_set).overall.mre_mm < 0.1
    assert found.confidence.min() > 0.8
    assert found.confidence.max() <= 1


def test_the_loss_is_the_mean_over_films_and_not_over_batches(cache):
    assert len(cache) == 8
    found = predict_points(perfect, cache, batch_size=5, stride=2)
    assert found.loss == pytest.approx((5 * 5 + 3 * 3) / 8)


def test_chosen_films_come_in_their_order(cache):
    every = predict_points(perfect, cache, batch_size=4, stride=2)
    some = predict_points(perfect, cache, batch_size=2, stride=2, indices=[5, 0, 3])
    assert some.indices == (5, 0, 3)
    np.testing.assert_allclose(some.points, every.points[[5, 0, 3]])


def test_no_films_give_no_points(cache):
    found = predict_points(perfect, cache, batch_size=2, stride=2, indices=[])
    assert found.points.shape == (0, len(cache.film_set.landmarks), 2)
    assert found.loss == 0


def test_views_of_a_film_come_back_to_one_place(cache):
    """Every view of a network that knows is right, so their mean is; the loss is that of the films as they are."""
    seen = []

    def watched(batch):
        seen.append(batch[0]["films"])
        outputs, loss = perfect(batch)
        return outputs, loss + len(seen) - 1

    found = predict_points(watched, cache, batch_size=8, stride=2, views=3)
    assert evaluate_points(found.points, cache.film_set).overall.mre_mm < 0.1
    assert found.loss == 8
    assert len(seen) == 3
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_the_mean_of_views_is_nearer_than_one_that_errs(cache):
    random = torch.Generator().manual_seed(0)

    def unsure(batch):
        inputs, targets = batch
        return perfect((inputs, targets + 2 * torch.randn(targets.shape, generator=random)))

    few = cache.only(range(3))
    errors = [
        evaluate_points(
            predict_points(unsure, few, batch_size=3, stride=2, views=views).points, few.film_set
        ).overall.mre_mm
        for views in (1, 9)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_a_view_that_moves_a_landmark_out_of_its_image_has_no_part_in_its_mean(cache):
    """The network guesses the middle for what it is not shown; which is 90 mm away."""

    def at_the_edge(film):
        points = film.points.copy()
        points[0] = film.size[0] / 2, 2
        return replace(film, points=points)

    def guessing(batch):
        inputs, targets = batch
        hidden = present(targets, (192, 160))[..., None] == 0
        hidden_ones.append(int(hidden.sum()))
        return perfect((inputs, torch.where(hidden, torch.tensor([80.0, 96.0]), targets)))

    hidden_ones = []
    few = cache.film_set.first(4)
    films = replace(few, films=tuple(at_the_edge(film) for film in few.films))
    edge = FilmCache(cache.path, films, cache.image_size, cache.rows[:4])
    found = predict_points(guessing, edge, batch_size=4, stride=2, views=8)
    assert hidden_ones[0] == 0
    assert sum(hidden_ones) > 2
    assert evaluate_points(found.points, films).landmarks[films.symbols[0]].mre_mm < 1


def test_progress_counts_films(cache):
    seen = []
    predict_points(perfect, cache, batch_size=3, stride=2, on_batch=seen.append)
    assert seen == [3, 6, 8]


def test_methods_differ_as_they_should(cache):
    truth = true_points(cache.film_set)
    error = {
        method: np.abs(predict_points(perfect, cache, batch_size=8, stride=2, method=method).points - truth).mean()
        for method in ("dark", "soft", "argmax")
    }
    assert error["dark"] < error["argmax"] / 3
    assert error["soft"] < error["argmax"] / 3


def test_heatmaps_alone_give_the_same_points(cache):
    targets = torch.from_numpy(cache.points()[[2, 4]].astype(np.float32))
    points, confidence = film_points(render(targets, (192, 160), 2, 2.0), 2, cache, [2, 4])
    every = predict_points(perfect, cache, batch_size=8, stride=2)
    np.testing.assert_allclose(points, every.points[[2, 4]])
    np.testing.assert_allclose(confidence, every.confidence[[2, 4]])


class SmallCard:
    """A step that validates at most two samples at a time."""

    def validate(self, batch):
        _, targets = batch
        if len(targets) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return targets * 2, targets.mean()


def test_out_of_memory_changes_neither_outputs_nor_loss():
    events: list[OomEvent] = []
    targets = torch.arange(14.0).reshape(7, 2)
    validate = recovering(SmallCard(), 7, events.append)
    outputs, loss = validate(({"films": torch.zeros(7)}, targets))
    assert torch.equal(outputs, targets * 2)
    assert loss == pytest.approx(targets.mean())
    assert [(event.micro_batch_before, event.micro_batch_after) for event in events] == [(7, 4), (4, 2)]


def test_missing_landmarks_do_not_reach_the_points(tmp_path):
    films = make_films(tmp_path / "films")
    train = films_of(films)
    blank = [np.full_like(film.points, np.nan) for film in train.films]
    from dataclasses import replace

    hidden = replace(train, films=tuple(replace(f, points=p) for f, p in zip(train.films, blank, strict=True)))
    cache = FilmCache.open(hidden, SIZE, folder=tmp_path / "cache")
    flat = lambda batch: (torch.full((len(batch[1]), 29, 16, 16), 0.5), torch.tensor(0.0))  # noqa: E731
    assert np.isfinite(predict_points(flat, cache, batch_size=2, stride=4).points).all()
