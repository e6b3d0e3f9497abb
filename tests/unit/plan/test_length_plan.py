"""The plan of lengths: what it allows, what it says, and its file."""

import pytest
from made_lengths import plan_of, proven

from vramfit.errors import ProfileError
from vramfit.plan.length_plan import LengthPlan, samples_by_length
from vramfit.plan.lengths import Lengths

PLAN = plan_of(proven(64, 30), proven(128, 14), proven(512, 3))


@pytest.mark.parametrize(("length", "batch"), [(1, 30), (64, 30), (65, 14), (512, 3), (513, 0)])
def test_a_batch_is_allowed_where_a_proven_length_covers_it(length, batch):
    assert PLAN.largest_batch(length) == batch


def test_where_memory_grows_unevenly_the_length_that_takes_more_is_used():
    plan = plan_of(proven(64, 10), proven(128, 14))
    assert plan.largest_batch(5) == 14


def test_the_token_budget_is_the_most_that_fits_at_every_proven_length():
    budget = PLAN.token_budget
    assert all(budget // one.length[0] <= one.trial.micro_batch for one in PLAN.proven)
    assert any((budget + 1) // one.length[0] > one.trial.micro_batch for one in PLAN.proven)


def test_height_and_width_both_have_to_be_covered():
    plan = plan_of(proven((480, 640), 8), proven((640, 480), 9), proven((640, 640), 5), axis="image_size")
    assert plan.largest_batch((400, 640)) == 8
    assert plan.largest_batch((640, 400)) == 9
    assert plan.largest_batch((480, 480)) == 9
    assert plan.largest_batch((641, 10)) == 0


def test_samples_count_at_the_first_length_that_covers_them():
    lengths = Lengths.of([1, 64, 65, 128, 300, 512])
    assert samples_by_length(lengths, ((64,), (128,), (512,))) == [2, 2, 2]


def test_a_plan_comes_back_from_its_file(tmp_path):
    (tmp_path / "plan.json").write_text(PLAN.to_json(), encoding="utf-8")
    assert LengthPlan.read(tmp_path / "plan.json") == PLAN


@pytest.mark.parametrize("text", ["{}", "no json", '{"schema_version": 2}'])
def test_a_file_that_is_no_plan_is_refused(tmp_path, text):
    (tmp_path / "plan.json").write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError, match="not valid in a plan of lengths"):
        LengthPlan.read(tmp_path / "plan.json")
    with pytest.raises(ProfileError, match="cannot be read"):
        LengthPlan.read(tmp_path / "none.json")
