"""A loop of one's own in DistributedDataParallel: one rank's OOM is heard by both, and changes no weight."""

import loop_ranks
import pytest
import torch
from torch import nn

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_module")]


def difference(mine, theirs):
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def test_ranks_learn_what_one_process_learns(tmp_path):
    model = loop_ranks.network()
    _, losses = loop_ranks.learn(model, loop_ranks.batches)
    for rank in loop_ranks.run_loop(tmp_path):
        assert difference(rank["weights"], model.state_dict()) < 1e-12
        assert rank["losses"] == pytest.approx(losses, rel=1e-6)
        assert rank["phases"] == ["forward", "optimizer"]
        assert rank["micro_batch"] == 2
        assert rank["found"] == 5  # of 9 and 5, which fit on each


def test_sharded_parameters_are_refused():
    class FSDPModule(nn.Linear):
        pass

    import vramfit

    model = FSDPModule(2, 1)
    with pytest.raises(vramfit.UsageError, match="without FSDP"):
        vramfit.recovering(model, torch.optim.SGD(model.parameters()))
