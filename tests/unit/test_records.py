import json

import pytest
from pydantic import ValidationError

from vramfit.errors import ProfileError
from vramfit.records import Budget, JobKey, Machine, Plan, Profile, Trial, Verdict
from vramfit.units import GIB


def make_profile(**changes):
    trial = Trial(
        source="measured",
        micro_batch=6,
        verdict=Verdict.FITS,
        budget_bytes=8 * GIB,
        device_used_bytes=7 * GIB,
        step_time_s=0.25,
    )
    values = {
        "vramfit_version": "0",
        "source": "measured",
        "job": JobKey(name="landmark", model="hrnet_w32"),
        "machine": Machine(card="RTX 3070 Ti"),
        "budget": Budget(total_bytes=8 * GIB),
        "plan": Plan(micro_batch=6, accumulation_steps=2),
        "trials": (trial,),
    }
    return Profile(**(values | changes))


def test_a_budget_is_the_least_of_what_is_asked_and_what_is_free():
    parts = {"total_bytes": 8 * GIB, "other_processes_bytes": GIB, "reserve_bytes": GIB // 2}
    assert Budget(**parts).budget_bytes == 13 * GIB // 2
    assert Budget(**parts, requested_bytes=4 * GIB).budget_bytes == 4 * GIB
    assert Budget(**parts, requested_bytes=40 * GIB).budget_bytes == 13 * GIB // 2
    assert Budget(total_bytes=GIB, other_processes_bytes=2 * GIB).budget_bytes == 0


def test_headroom_and_throughput_follow_from_what_was_read():
    trial = make_profile().trials[0]
    assert trial.headroom_bytes == GIB
    assert trial.throughput_images_per_s == 24
    assert Trial(source="measured", micro_batch=1, verdict=Verdict.OOM, budget_bytes=1).headroom_bytes is None


def test_a_profile_comes_back_from_its_json():
    profile = make_profile()
    assert Profile.from_json(profile.to_json()) == profile
    assert json.loads(profile.to_json())["plan"]["effective_batch"] == 12
    assert profile.trial(6) is profile.trials[0]
    assert profile.trial(7) is None


@pytest.mark.parametrize("where", [(), ("plan",), ("job",)])
def test_an_unknown_key_is_named(where):
    document = json.loads(make_profile().to_json())
    place = document
    for key in where:
        place = place[key]
    place["surprise"] = 1
    with pytest.raises(ProfileError, match=r"mine\.json: '.*surprise' is not valid"):
        Profile.from_json(json.dumps(document), where="mine.json")


def test_what_is_no_json_is_said():
    with pytest.raises(ProfileError, match="the document"):
        Profile.from_json("{")


def test_records_are_frozen():
    with pytest.raises(ValidationError):
        make_profile().plan.micro_batch = 7


@pytest.mark.parametrize(
    ("verdict", "used", "high", "excess"),
    [("fits", 6, 7, 0), ("risky", 7, 9, 1), ("over_budget", 9, 11, 1), ("risky", 9, 11, 1), ("oom", 9, None, 1)],
)
def test_a_trial_exceeds_its_budget_by_one_figure(verdict, used, high, excess) -> None:
    band = None if high is None else (used - 1, high)
    trial = Trial(
        source="predicted",
        micro_batch=1,
        verdict=verdict,
        budget_bytes=8,
        device_used_bytes=used,
        device_used_band_bytes=band,
    )
    assert trial.excess_bytes == excess
    assert trial.verdict == "fits" or trial.headroom_bytes in (-excess, 1)
