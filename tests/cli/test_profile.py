"""`vramfit profile`: finding, showing, comparing and copying."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import make_profile, make_trial

from vramfit import predict, shipped
from vramfit.cli.models import named_job
from vramfit.jobs.levers.apply import free_levers
from vramfit.records import Profile, Verdict

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def shelf(tmp_path, monkeypatch):
    """A folder of shipped profiles with two in it."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "rtx3070ti-1024.json").write_text(make_profile(2).to_json())
    (folder / "rtx3070ti-768.json").write_text(make_profile(6).to_json())
    monkeypatch.setattr(shipped, "shipped_folder", lambda: folder)
    return folder


def test_list_is_by_size_and_says_how_each_was_obtained(vramfit):
    lines = vramfit("profile", "list").out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "rtx3070ti-768", "rtx3070ti-1024"]
    assert all("predicted" in line for line in lines[1:])
    assert list(json.loads(vramfit("profile", "list", "--json").out)["profiles"]) == ["rtx3070ti-768", "rtx3070ti-1024"]


def test_show_by_name_and_by_file(vramfit, shelf):
    by_name = vramfit("profile", "show", "rtx3070ti-768")
    by_file = vramfit("profile", "show", str(shelf / "rtx3070ti-768.json"))
    assert by_name.out == by_file.out
    assert "Predicted on" in by_name.out
    assert Profile.from_json(vramfit("profile", "show", "rtx3070ti-768", "--json").out).plan.micro_batch == 6


def test_unknown_name_lists_the_nearest(vramfit):
    outcome = vramfit("profile", "show", "rtx3070-768")
    assert outcome.code == 5
    assert "rtx3070ti-768" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("damage", ["{", '{"plan": 1}', b"\xff\xfe\xfa"])
def test_a_damaged_profile_is_named(vramfit, tmp_path, damage):
    file = tmp_path / "bad.json"
    file.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    outcome = vramfit("profile", "show", str(file))
    assert outcome.code == 5
    assert "bad.json" in outcome.err
    assert outcome.err.count("\n") == 1


def test_an_unknown_key_is_named(vramfit, tmp_path):
    file = tmp_path / "odd.json"
    file.write_text(json.dumps({**json.loads(make_profile().to_json()), "batch_size": 6}))
    outcome = vramfit("profile", "show", str(file))
    assert outcome.code == 5
    assert "'batch_size'" in outcome.err


def test_diff_names_only_what_differs(vramfit):
    lines = vramfit("profile", "diff", "rtx3070ti-768", "rtx3070ti-1024").out.splitlines()
    assert [line.split() for line in lines] == [
        ["what", "rtx3070ti-768", "rtx3070ti-1024"],
        ["planned", "micro-batch", "6", "2"],
        ["effective", "batch", "6", "2"],
    ]
    changes = json.loads(vramfit("profile", "diff", "rtx3070ti-768", "rtx3070ti-1024", "--json").out)["changes"]
    assert [change["key"] for change in changes] == ["plan.micro_batch", "plan.effective_batch"]
    assert "same" in vramfit("profile", "diff", "rtx3070ti-768", "rtx3070ti-768").out


def test_diff_shows_sizes_in_units_and_batches_that_only_one_tried(vramfit, tmp_path):
    file = tmp_path / "other.json"
    file.write_text(make_profile(trials=(make_trial(1), make_trial(9, verdict="oom"))).to_json())
    out = vramfit("profile", "diff", "rtx3070ti-768", str(file)).out
    rows = {line.split(", GiB")[0]: line for line in out.splitlines()[1:]}
    assert list(rows) == [*(f"batch {size}" for size in range(2, 8)), "batch 9"]
    assert "2.40 (2.16-2.64), fits, 80 ms" in rows["batch 2"]
    assert rows["batch 2"].endswith("not tried")
    assert "not tried" in rows["batch 9"]
    file.write_text(make_profile(notes=("mine",)).to_json())
    assert "read the same" in vramfit("profile", "diff", "rtx3070ti-768", str(file)).out


def test_export_refuses_to_overwrite(vramfit, tmp_path):
    target = tmp_path / "copy.json"
    assert vramfit("profile", "export", "rtx3070ti-768", str(target)).code == 0
    assert Profile.from_json(target.read_text()) == make_profile(
        6, created=Profile.from_json(target.read_text()).created
    )
    refused = vramfit("profile", "export", "rtx3070ti-1024", str(target))
    assert (refused.code, Profile.from_json(target.read_text()).plan.micro_batch) == (8, 6)
    assert vramfit("profile", "export", "rtx3070ti-1024", str(target), "--force").code == 0


@pytest.fixture
def judged(monkeypatch):
    """Replace the card's part of verify by given reasons and a given trial."""

    def install(reasons, trial):
        monkeypatch.setattr("vramfit.cli.profile._judged", lambda profile, model: (reasons, trial))

    return install


def test_verify_proves_by_a_trial(vramfit, judged):
    judged(("The profile is predicted.",), make_trial(6, source="measured"))
    outcome = vramfit("profile", "verify", "rtx3070ti-768")
    assert outcome.code == 0
    assert "The profile is predicted." in outcome.out
    assert "batch 6 fits" in outcome.out


def test_verify_refuses_what_does_not_fit(vramfit, judged):
    judged(("The profile is predicted.",), make_trial(6, source="measured", verdict="oom"))
    outcome = vramfit("profile", "verify", "rtx3070ti-768")
    assert outcome.code == 5
    assert "batch 6" in outcome.err


def test_verify_without_a_card_says_that_nothing_was_proved(vramfit, tmp_path, monkeypatch):
    from vramfit.cli.models import resolve_job
    from vramfit.jobs.job import job_key

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    job = resolve_job("hrnet_w18_small_v2", image_size=(64, 64), amp="fp16", channels_last=False)
    file = tmp_path / "mine.json"
    file.write_text(make_profile(job=job_key(job)).to_json())
    outcome = vramfit("profile", "verify", str(file))
    assert outcome.code == 0, outcome.err
    assert "Checked: the profile is valid, and its model and image size" in outcome.out
    assert "Not checked: whether its batch fits, for there is no card here" in outcome.out


def test_verify_asks_for_a_job_of_your_own(vramfit, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(make_profile(job={"name": "mine", "model": "Net"}).to_json())
    outcome = vramfit("profile", "verify", str(file))
    assert outcome.code == 2
    assert "--model" in outcome.err


@pytest.mark.parametrize("size", [256, 512, 768, 1024])
def test_the_shipped_profiles_load_and_say_how_they_were_obtained(size):
    profile = Profile.from_json((REPOSITORY / "profiles" / f"rtx3070ti-{size}.json").read_text(encoding="utf-8"))
    assert profile.source == "predicted"
    assert profile.vramfit_version
    assert profile.machine.card == "RTX 3070 Ti"
    assert profile.job.image_size == (size, size)
    trial = profile.trial(profile.plan.micro_batch)
    assert trial is not None
    assert trial.verdict is Verdict.FITS


def test_a_shipped_profile_is_what_is_predicted_now():
    """Of the smallest image, the plan's batch: what `vramfit probe` says and what a profile says are one."""
    profile = Profile.from_json((REPOSITORY / "profiles" / "rtx3070ti-256.json").read_text(encoding="utf-8"))
    kept = profile.trial(profile.plan.micro_batch)
    job = named_job("hrnet", image_size=(256, 256))
    now = predict(replace(job, levers=profile.plan.levers), micro_batch=kept.micro_batch, gpu="rtx3070ti")
    stale = "run: python scripts/make_profiles.py"
    assert now.device_used_bytes == pytest.approx(kept.device_used_bytes, rel=0.01), stale
    assert now.step_time_s == pytest.approx(kept.step_time_s, rel=0.03), stale
    # What the profile is for is that batch with the levers that cost no time.
    assert {lever.name for lever in free_levers(job)} <= {lever.name for lever in profile.plan.levers}
