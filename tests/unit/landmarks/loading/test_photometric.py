import pytest
import torch

from vramfit.landmarks.loading.photometric import NEUTRAL, Photometric, augment, normalise


@pytest.fixture
def films():
    return torch.randint(20, 230, (2, 1, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def changed(films, **how):
    return augment(films, torch.tensor([Photometric(**how)] * len(films)))


def test_neutral_parameters_only_normalise(films):
    torch.testing.assert_close(augment(films, torch.tensor([NEUTRAL] * 2)), normalise(films), atol=1e-4, rtol=1e-4)


def test_each_parameter_does_what_it_says(films):
    plain = changed(films)
    assert (changed(films, brightness=0.1) > plain).all()
    assert changed(films, contrast=-0.5).std() < plain.std()
    assert changed(films, gamma=0.3).mean() < plain.mean()
    assert changed(films, blur=1.0).std() < plain.std()
    assert changed(films, blur=-0.5).std() > plain.std()
    difference = changed(films, noise=0.02) - plain
    assert difference.std().item() * 0.226 == pytest.approx(0.02, rel=0.1)


def test_cutout_is_a_grey_rectangle(films):
    cut = changed(films, cutout_x=0.5, cutout_y=0.5, cutout_width=0.25, cutout_height=0.5)
    touched = (cut - changed(films)).abs()[0, 0] > 1e-6
    assert touched.sum() > 0.9 * 8 * 12
    assert not touched[:6].any()
    assert not touched[:, :12].any()


def test_noise_is_a_function_of_the_seed_alone(films):
    one = changed(films, noise=0.05, noise_seed=0.3)
    torch.manual_seed(5)
    again = augment(films[1:], torch.tensor([Photometric(noise=0.05, noise_seed=0.3)]))
    torch.testing.assert_close(one[1:], again)
    assert not torch.equal(one, changed(films, noise=0.05, noise_seed=0.4))
