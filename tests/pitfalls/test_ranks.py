"""Several ranks: one that runs out of memory must not leave the others waiting."""

import pytest
from ranks import difference, make_loop, run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_module")]


def test_one_rank_out_of_memory_makes_both_split_anew_and_none_waits_for_ever(tmp_path):
    """Gradients are averaged inside backward by others, where a rank that failed never arrives.

    Here each runs backward alone, all vote, and only then is anything averaged. The second rank's card runs out once
    on its way to the gradients, once in the optimizer and once in validation.
    """
    alone = make_loop(tmp_path / "alone")
    alone.run()
    first, second = run_ranks(tmp_path, 2, fail_on=1)
    assert [event.phase for event in second["events"]] == ["forward", "validation", "optimizer"]
    assert first["events"] == second["events"]
    assert first["micro_batch"] == second["micro_batch"] == 1
    assert difference(first["weights"], second["weights"]) == 0
    assert difference(first["weights"], alone.step.model.state_dict()) < 1e-9
    assert max(first["seconds"], second["seconds"]) < 60
