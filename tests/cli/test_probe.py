"""`vramfit probe`: options, tables, documents and refusals, with the engine replaced."""

import json

import pytest
from made_records import make_profile, make_trial
from pages import require_sound

from vramfit.cli.probe_request import Case
from vramfit.errors import NothingFits
from vramfit.probe.request import MemoryLimits, ProbeRequest
from vramfit.records import Profile, Schedule


@pytest.fixture
def asked(monkeypatch):
    """The cases that reach the engine, which answers each with the same profile."""
    cases = []

    def answer(self, on_trial, frontier=None):
        cases.append(self)
        for trial in make_profile().trials:
            on_trial(trial)
        return make_profile()

    monkeypatch.setattr(Case, "answer", answer)
    return cases


def test_the_table_names_the_budget_the_choice_and_the_reason(vramfit, asked):
    out = vramfit("probe").out
    assert "hrnet_w32 768x768 fp16 AdamW on RTX 3070 Ti (predicted)" in out
    assert "Budget 7.50 GiB: card 8.00 GiB - 512 MiB driver." in out
    assert next(line for line in out.splitlines() if line.lstrip().startswith(">")).split()[1] == "6"
    assert "Plan: batch 6: 7 exceeds the budget by 0.4 GiB." in out


def test_a_pipe_gets_no_boxes_and_every_column(vramfit, asked):
    out = vramfit("probe").out
    header = next(line for line in out.splitlines() if line.startswith("batch"))
    for column in ("allocated", "reserved", "device", "headroom", "risk", "step time", "time per epoch", "total"):
        assert column in header
    assert out.isascii()
    assert all(line == line.rstrip() for line in out.splitlines())


def test_options_reach_the_engine(vramfit, asked):
    outcome = vramfit(
        *("probe", "--model", "timm:resnet50", "--image_size", "512", "640", "--vram", "8GB", "--gpu", "rtx3070ti"),
        *("--reserve", "600MB", "--batch_sizes", "6,5,4", "--mode", "predict", "--objective", "largest"),
        *("--effective-batch", "12", "--amp", "off", "--channels-last", "--epochs", "3", "--images", "70"),
        *("--levers", "none"),
    )
    assert outcome.code == 0, outcome.err
    assert asked == [
        Case(
            label="rtx3070ti",
            request=ProbeRequest(
                limits=MemoryLimits.parse(vram="8GB", reserve="600MB"),
                gpu="rtx3070ti",
                mode="predict",
                batch_sizes=(6, 5, 4),
                objective="largest",
                effective_batch=12,
                schedule=Schedule(images=70, epochs=3),
            ),
            model="timm:resnet50",
            image_size=(512, 640),
            amp="off",
            channels_last=True,
        )
    ]


@pytest.mark.parametrize(
    ("words", "free", "auto"),
    [
        ([], True, False),
        (["--model", "timm:resnet18"], True, False),
        (["--levers", "free"], True, False),
        (["--levers", "none"], False, False),
        (["--levers", "half_upsample"], False, False),
        (["--levers", "auto"], False, True),
        (["--model", "my.module:job"], False, False),
        (["--model", "my.module:job", "--levers", "free"], True, False),
    ],
)
def test_levers_that_cost_nothing_are_on_but_for_a_job_of_ones_own(vramfit, asked, monkeypatch, words, free, auto):
    monkeypatch.setattr(Case, "frontier", lambda self: None)
    assert vramfit("probe", *words).code == 0
    assert (asked[0].request.free_levers, asked[0].request.choose_levers) == (free, auto)


def test_json_is_one_document_that_loads_back(vramfit, asked):
    out = vramfit("probe", "--json").out
    assert Profile.from_json(out).plan == make_profile().plan


def test_image_sizes_make_the_second_table(vramfit, asked):
    out = vramfit("probe", "--image-sizes", "256,512,768,512x640").out
    assert [case.image_size for case in asked] == [(256, 256), (512, 512), (768, 768), (512, 640)]
    assert out.splitlines()[0].split()[0] == "image"
    assert [line.split()[0] for line in out.splitlines()[1:5]] == ["256x256", "512x512", "768x768", "512x640"]


def test_every_case_has_its_plan_and_what_holds_for_all_is_said_once(vramfit, asked):
    lines = vramfit("probe", "--image-sizes", "256,512").out.splitlines()
    for case in ("256x256", "512x512"):
        assert f"Plan for {case}: batch 6: 7 exceeds the budget by 0.4 GiB." in lines
    assert len([line for line in lines if line.startswith("Times:")]) == 1
    assert lines[-1].startswith("Predicted:")


def test_several_cards_make_one_table(vramfit, asked):
    document = json.loads(vramfit("probe", "--gpu", "rtx3060", "--gpu", "t4", "--json").out)
    assert [case["card"] for case in document["cases"]] == ["rtx3060", "t4"]
    assert Profile.from_json(json.dumps(document["cases"][1]["profile"])).plan.micro_batch == 6


def test_profiles_of_several_cases_go_into_a_folder(vramfit, asked, tmp_path):
    words = ("probe", "--gpu", "rtx3060", "--gpu", "t4", "-o", str(tmp_path / "profiles"))
    assert vramfit(*words).code == 0
    assert sorted(file.name for file in (tmp_path / "profiles").iterdir()) == ["rtx3060.json", "t4.json"]
    assert Profile.from_json((tmp_path / "profiles" / "t4.json").read_text()).plan.micro_batch == 6
    assert vramfit(*words).code == 8


@pytest.mark.parametrize("size", [["--image-size", "512"], ["--imgsz", "512x512"], ["--image_size", "512", "512"]])
def test_an_image_size_is_written_as_people_write_it(vramfit, asked, size):
    assert vramfit("probe", *size).code == 0
    assert asked[0].image_size == (512, 512)


def test_export_never_overwrites_unasked(vramfit, asked, tmp_path):
    target = tmp_path / "profile.json"
    assert vramfit("probe", "--export", str(target)).code == 0
    assert Profile.from_json(target.read_text()).plan.micro_batch == 6
    target.write_text("mine")
    refused = vramfit("probe", "--export", str(target))
    assert refused.code == 8
    assert "--force" in refused.err
    assert target.read_text() == "mine"
    assert vramfit("probe", "--export", str(target), "--force").code == 0


def test_the_page_never_overwrites_unasked(vramfit, asked, tmp_path):
    target = tmp_path / "probe.html"
    outcome = vramfit("probe", "--html", str(target), "--json")
    assert Profile.from_json(outcome.out).plan.micro_batch == 6
    assert f"Report written to {target}" in outcome.err
    require_sound(target.read_text(encoding="utf-8"))
    target.write_text("mine")
    assert vramfit("probe", "--html", str(target)).code == 8
    assert target.read_text() == "mine"
    assert vramfit("probe", "--image-sizes", "256,512", "--html", str(target), "--force").code == 0
    assert "256x256" in target.read_text(encoding="utf-8")


def test_files_are_written_before_a_reader_can_leave(vramfit, asked, tmp_path, monkeypatch):
    files = [tmp_path / "profile.json", tmp_path / "probe.html"]
    seen = []
    monkeypatch.setattr("vramfit.report.table.show_profile", lambda _: seen.append([file.exists() for file in files]))
    assert vramfit("probe", "--export", str(files[0]), "--html", str(files[1])).code == 0
    assert seen == [[True, True]]


@pytest.mark.parametrize(
    "words", [["--gpu", "t4", "--gpu", "a100", "--gpu", "t4"], ["--image-sizes", "256,512,256", "--gpu", "t4"]]
)
def test_what_is_asked_twice_is_answered_once(vramfit, asked, words):
    assert vramfit("probe", *words).code == 0
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--html", "x.json", "--export", "x.json"], "x.json"),
        (["--vram", "8 bananas"], "8 bananas"),
        (["--reserve", "much"], "much"),
        (["--batch-sizes", "6,x"], "6,x"),
        (["--batch-sizes", "0"], "above 0"),
        (["--batch-sizes", "6,5", "--levers", "auto"], "--batch-size in place"),
        (["--image-sizes", "256,big"], "'big'"),
        (["--image-size", "8", "8"], "8x8"),
        (["--mode", "measure", "--gpu", "t4"], "--gpu"),
        (["--image-sizes", "256", "--gpu", "a", "--gpu", "b"], "--image-sizes"),
        (["--image-sizes", "256,512", "--export", "x.json"], "name a folder"),
        (["--epochs", "0"], "--epochs"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_loads(vramfit, asked, words, said):
    outcome = vramfit("probe", *words)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert asked == []


def test_nothing_fits_still_shows_what_was_tried(vramfit, monkeypatch):
    def answer(self, on_trial, frontier=None):
        on_trial(make_trial(1, budget_gib=1.0))
        raise NothingFits("batch 1 needs 0.4 GiB more.")

    monkeypatch.setattr(Case, "answer", answer)
    outcome = vramfit("probe")
    assert outcome.code == 3
    assert "over budget" in outcome.out
    assert outcome.err == "vramfit: batch 1 needs 0.4 GiB more.\n"
    document = {"error": "batch 1 needs 0.4 GiB more.", "exit_code": 3}
    assert json.loads(vramfit("probe", "--json").out) == document


def test_one_size_that_does_not_fit_is_a_row(vramfit, monkeypatch):
    def answer(self, on_trial, frontier=None):
        if self.image_size[0] > 512:
            raise NothingFits("no")
        return make_profile()

    monkeypatch.setattr(Case, "answer", answer)
    outcome = vramfit("probe", "--image-sizes", "512,1024")
    assert outcome.code == 0
    assert "nothing fits" in outcome.out.splitlines()[2]


def test_cards_share_the_job(vramfit, asked):
    outcome = vramfit("probe", "--gpu", "rtx3090", "--cards", "4", "--levers", "fsdp=keep")
    assert outcome.code == 0, outcome.err
    assert asked[0].cards == 4
    assert [(lever.name, lever.setting) for lever in asked[0].levers] == [("fsdp", "keep")]


def test_which_card_is_not_asked_of_several_that_share_a_job(vramfit, asked):
    outcome = vramfit("probe", "--gpu", "all", "--cards", "2")
    assert outcome.code == 2
    assert "leave out --cards, or name one --gpu" in " ".join(outcome.err.split())
    assert not asked
