import time

import torch

from vramfit.landmarks.loading.loading_rate import loading_rate


def test_it_is_measured_in_a_moment_and_without_touching_random_state():
    before = torch.get_rng_state()
    began = time.process_time()
    small, large = loading_rate((64, 64), 3), loading_rate((768, 768), 3)
    assert time.process_time() - began < 1
    assert small > large > 0
    assert torch.equal(before, torch.get_rng_state())
