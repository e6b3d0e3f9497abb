"""Two processes over gloo: the same run as one; what happens when one runs out is in tests/pitfalls/test_ranks.py."""

import pytest
from ranks import difference, make_loop, run_ranks

from vramfit.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_module")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one, in this process."""
    loop = make_loop(tmp_path_factory.mktemp("alone"))
    loop.run()
    return loop


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder of a run of two, and what its ranks have."""
    folder = tmp_path_factory.mktemp("together")
    return folder, run_ranks(folder, 2)


def test_two_ranks_train_what_one_does(alone, together):
    _, (first, second) = together
    assert difference(first["weights"], second["weights"]) == 0
    assert difference(first["weights"], alone.step.model.state_dict()) < 1e-9
    figures = [record.metrics["mre_mm"] for record in alone.state.history]
    assert first["figures"] == second["figures"] == pytest.approx(figures, abs=1e-9)


def test_a_run_of_two_goes_on_as_one(alone, together):
    folder, _ = together
    loop = make_loop(folder)
    loop.resume(checkpoint.load(folder / "checkpoint_epoch_001.pth"))
    loop.run()
    assert difference(loop.step.model.state_dict(), alone.step.model.state_dict()) < 1e-9
