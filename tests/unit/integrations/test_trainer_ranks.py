"""Several ranks under Hugging Face's Trainer and Lightning: one rank's OOM is heard by both, and changes no weight."""

import pytest
from trainer_ranks import run_trainers

pytest.importorskip("transformers")
pytest.importorskip("pytorch_lightning")
pytestmark = [pytest.mark.integrations, pytest.mark.slow, pytest.mark.usefixtures("warm_module")]


def test_one_rank_out_of_memory_makes_all_split_alike(tmp_path):
    for rank in run_trainers(tmp_path):
        for name, micro_batch in (("transformers", 1), ("lightning", 4)):
            assert rank[name]["difference"] < 1e-12
            assert rank[name]["micro_batch"] == micro_batch
            assert rank[name]["phases"] == ["forward", "forward"]
