"""When a profile holds, when it must be proved, and when it is refused."""

import pytest
from made_records import make_profile

from vramfit.errors import ProfileError
from vramfit.plan.reuse import judge_reuse
from vramfit.records import Machine
from vramfit.units import GIB

MACHINE = Machine(card="RTX 3070 Ti", driver="560", torch="2.15.0")
MEASURED = make_profile(source="measured", machine=MACHINE)


def test_the_same_job_and_machine_need_no_trial():
    assert judge_reuse(MEASURED, MEASURED.job, MACHINE, 8 * GIB).verify is False


@pytest.mark.parametrize(
    "change", [{"driver": "570"}, {"torch": "2.16"}, {"allocator_settings": "x:1"}, {"card": "RTX 3080"}]
)
def test_another_machine_is_proved_and_the_key_named(change):
    reuse = judge_reuse(MEASURED, MEASURED.job, MACHINE.model_copy(update=change), 8 * GIB)
    assert reuse.verify
    assert next(iter(change)) in reuse.reasons[0]


@pytest.mark.parametrize("change", [{"fingerprint": "f"}, {"amp": None}, {"channels_last": True}])
def test_another_step_is_proved(change):
    assert judge_reuse(MEASURED, MEASURED.job.model_copy(update=change), MACHINE, 8 * GIB).verify


def test_a_plan_for_several_cards_or_for_other_samples_is_proved_and_the_difference_named():
    known = make_profile(
        source="measured", machine=MACHINE, job=MEASURED.job.model_copy(update={"sample": "2x128 int64"})
    )
    ours = known.job.model_copy(update={"cards": 4, "sample": "2x512 int64"})
    assert judge_reuse(known, ours, MACHINE, 8 * GIB).reasons == (
        "job.cards was 1 and is 4.",
        "job.sample was 2x128 int64 and is 2x512 int64.",
    )


def test_a_profile_that_names_no_sample_is_older_than_such_names_and_not_doubted_for_it():
    assert not judge_reuse(MEASURED, MEASURED.job.model_copy(update={"sample": "2x3"}), MACHINE, 8 * GIB).verify


def test_a_prediction_is_proved():
    profile = make_profile()
    assert judge_reuse(profile, profile.job, MACHINE, 8 * GIB).reasons == ("The profile is predicted.",)


@pytest.mark.parametrize(("key", "value"), [("model", "hrnet_w18"), ("image_size", (512, 512))])
def test_another_model_or_shape_is_refused_even_without_a_card(key, value):
    with pytest.raises(ProfileError, match=rf"job\.{key}"):
        judge_reuse(MEASURED, MEASURED.job.model_copy(update={key: value}), MACHINE, None)


def test_a_smaller_card_is_refused():
    with pytest.raises(ProfileError, match="budget_bytes"):
        judge_reuse(MEASURED, MEASURED.job, MACHINE, 6 * GIB)
    assert not judge_reuse(MEASURED, MEASURED.job, MACHINE, round(7.4 * GIB)).verify


def test_without_a_card_it_is_taken_with_a_note():
    reuse = judge_reuse(make_profile(), make_profile().job, MACHINE, None)
    assert not reuse.verify
    assert "unproved" in reuse.reasons[0]
