"""Tables of trials: what every reader sees, at any width."""

from io import StringIO

import pytest
from made_records import make_profile, make_trial
from rich.console import Console

from vramfit.records import Budget, Lever, Loading, Machine, Plan, Schedule, Verdict
from vramfit.report import table as tables
from vramfit.report import terminal
from vramfit.units import GIB


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def drawn(width: int) -> str:
    console = Console(file=StringIO(), width=width, color_system=None, force_terminal=True)
    for part in terminal.drawn_for(tables.trial_table([make_trial(6)], 6, Schedule()), console):
        console.print(part)
    return console.file.getvalue()


def test_epoch_time_counts_a_partial_step_as_the_share_that_it_is():
    trial = make_trial(6)
    assert tables.epoch_time_s(trial, Schedule(images=13)) == pytest.approx(13 / 6 * 0.24)
    assert tables.epoch_time_s(make_trial(6, step_time_s=None), Schedule()) is None


def test_epoch_time_is_that_of_loading_where_loading_takes_longer():
    slow, fast = (Schedule(images=100, loading=Loading(worker_images_per_s=rate, workers=2)) for rate in (5, 500))
    trial = make_trial(6)
    assert tables.epoch_time_s(trial, slow) == pytest.approx(100 / 10)
    assert tables.epoch_time_s(trial, fast) == pytest.approx(100 * 0.04)
    said = [tables.remarks(make_profile(schedule=schedule))[0] for schedule in (slow, fast)]
    assert "2 workers of this machine, measured, would load 10 images/s: batch 1, 2" in said[0]
    assert said[1].endswith("1000 images/s: limited by the GPU, not by data loading.")


def test_one_row_holds_every_figure():
    text = terminal.plain_text(tables.trial_table([make_trial(6)], 6, Schedule(images=700, epochs=200)))
    row = text.splitlines()[1].split()
    assert row == [
        *(">", "6", "6.00", "6.10", "6.40", "(5.76-7.04)", "+1.10", "fits", "240", "ms", "28.0", "s"),
        *("1", "h", "33", "min", "predicted"),
    ]


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_has_a_risk(verdict):
    words = {Verdict.OOM: "out of memory", Verdict.SPILLED: "spills to RAM", Verdict.OVER_BUDGET: "over budget"}
    text = terminal.plain_text(tables.trial_table([make_trial(1, verdict=verdict)], None, Schedule()))
    assert words.get(verdict, verdict.value) in text


def test_what_was_not_read_is_a_dash_and_emulation_is_said():
    trial = make_trial(
        3,
        source="measured",
        verdict=Verdict.OOM,
        emulated=True,
        step_time_s=None,
        device_used_bytes=None,
        device_used_band_bytes=None,
    )
    text = terminal.plain_text(tables.trial_table([trial], None, Schedule()))
    assert "measured, emulated" in text
    assert text.splitlines()[1].split().count("-") == 5


@pytest.mark.parametrize("width", [60, 80, 120, 300])
def test_no_figure_is_lost_at_any_width(width):
    text = drawn(width)
    for figure in ("6.00", "6.10", "6.40", "+1.10", "240 ms", "28.0 s", "predicted"):
        assert figure in text
    assert "..." not in text
    assert "\u2026" not in text


def test_a_terminal_gets_rules_and_a_pipe_none(monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    drawn_on, pipe = Terminal(), StringIO()
    for file in (drawn_on, pipe):
        terminal.show(tables.trial_table([make_trial(6)], 6, Schedule()), file)
    assert "\u2500" in drawn_on.getvalue()
    assert pipe.getvalue().isascii()


@pytest.mark.parametrize("stream", [StringIO, Terminal])
def test_names_are_shown_as_they_are_written(stream):
    table = terminal.make_table(("name",))
    table.add_row("Ceph [old] [/x] :skull:")
    file = stream()
    terminal.show(table, file)
    assert "Ceph [old] [/x] :skull:" in file.getvalue()


def test_sentences_show_each_part():
    budget = Budget(
        total_bytes=8 * GIB, requested_bytes=7 * GIB, driver_bytes=GIB // 4, reserve_bytes=GIB // 2, context_bytes=GIB
    )
    assert tables.budget_sentence(budget) == (
        "Budget 7.00 GiB (CUDA context 1.00 GiB included): card 8.00 GiB - 256 MiB driver - 512 MiB reserve; "
        "7.00 GiB asked."
    )
    plan = Plan(micro_batch=3, accumulation_steps=2, world_size=2, reason="Because.")
    assert tables.plan_sentence(make_profile(plan=plan)) == (
        "Plan: batch 3 x 2 accumulation steps x 2 cards = effective batch 12. Because."
    )
    uneven = Plan(micro_batch=7, accumulation_steps=2, last_micro_batch=6, reason="Because.")
    assert tables.plan_sentence(make_profile(plan=uneven)) == (
        "Plan: batch 7 x 2 accumulation steps (the last of 6) = effective batch 13. Because."
    )


def test_a_limit_below_a_larger_card_says_what_the_smaller_card_has():
    larger = Budget(total_bytes=24 * GIB, requested_bytes=8 * GIB)
    assert "8.00 GiB asked, and a card sold with 8 GB has 7.42 to 7.93 GiB for it" in tables.budget_sentence(larger)
    for requested in (None, 24 * GIB, 7 * GIB + 1):
        assert "sold with" not in tables.budget_sentence(larger.model_copy(update={"requested_bytes": requested}))


def test_remarks_explain_bands_emulation_and_notes():
    trials = (make_trial(1, emulated=True, note="first step skipped"),)
    text = "\n".join(tables.remarks(make_profile(trials=trials, notes=("last",))))
    for word in ("9 times in 10", "Emulated", "Batch 1: first step skipped", "last", "700 images"):
        assert word in text


def test_the_headline_says_what_the_levers_make_of_the_job():
    levers = (Lever(name="channels_last"), Lever(name="amp", setting="bf16"))
    levered = make_profile(plan=Plan(micro_batch=6, levers=levers))
    assert tables.headline(levered) == "hrnet_w32 768x768 bf16 channels_last AdamW on RTX 3070 Ti (predicted)"
    plain = make_profile(plan=Plan(micro_batch=6, levers=(Lever(name="amp", setting="off"),)))
    assert tables.headline(plain) == "hrnet_w32 768x768 fp32 AdamW on RTX 3070 Ti (predicted)"


def test_the_levers_of_a_plan_are_told():
    levers = (Lever(name="fused_optimizer"), Lever(name="recompute", setting="block", modules=("a", "b")))
    told = tables.remarks(make_profile(plan=Plan(micro_batch=6, levers=levers)))
    assert told[0] == "Levers of the plan: fused_optimizer, recompute=block (2 modules)."
    assert not any(line.startswith("Levers") for line in tables.remarks(make_profile()))


def test_every_predicted_time_has_its_range():
    trial = make_trial(2, step_time_s=0.2, step_time_band_s=(0.1, 0.3))
    schedule = Schedule(images=100, epochs=1000)
    assert tables.step_cell(trial) == "200 ms (100-300 ms)"
    assert tables.step_cell(trial, 2) == "400 ms (200-600 ms)"
    assert tables.epoch_cell(trial, schedule) == "10.0 s (5-15 s)"
    assert tables.epoch_cell(trial, schedule, 1000) == "2 h 47 min (1 h 23-4 h 10)"
    slow = schedule.model_copy(update={"loading": Loading(worker_images_per_s=8, workers=1)})
    assert tables.epoch_cell(trial, slow) == "12.5 s (12-15 s)"
    text = terminal.plain_text(tables.trial_table([trial], 2, schedule))
    for cell in ("200 ms (100-300 ms)", "10.0 s (5-15 s)", "2 h 47 min (1 h 23-4 h 10)"):
        assert cell in text
    assert tables.step_cell(trial.model_copy(update={"step_time_band_s": None})) == "200 ms"


def test_a_prediction_says_which_memory_it_counts():
    text = "\n".join(tables.remarks(make_profile(machine=Machine(card="L40S"))))
    assert "CUDA sees; NVML shows 471 MiB more as used" in text
    assert "NVML" not in "\n".join(tables.remarks(make_profile(machine=Machine(card="some card"))))


@pytest.mark.parametrize(
    ("waiting", "said"),
    [
        ((), None),
        ((2,), "At batch 2 the card waits for the host"),
        (
            (1, 2),
            "At batch 2 and below the card waits for the host: the time is that of launching each operation, a lower",
        ),
    ],
)
def test_times_that_are_launches_alone_are_said_to_be_lower_bounds(waiting, said):
    trials = [make_trial(batch, host_bound=batch in waiting) for batch in (1, 2, 4)]
    sentences = tables.host_bound_sentences(trials)
    assert (sentences == []) if said is None else sentences[0].startswith(said)
