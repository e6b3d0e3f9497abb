"""A run as a person reads it off a terminal: what each line says, and what it leaves out."""

from io import StringIO

from made_records import make_profile, make_trial
from made_runs import EVENT, GROWTH, ON_CARD, ON_CPU, start, summary
from rich.console import Console

from vramfit.landmarks.training.task import metric_words
from vramfit.report.console import ConsoleListener, epoch_line, start_lines, summary_lines
from vramfit.training.listeners import Progress
from vramfit.units import GIB


def listener():
    out = StringIO()
    return ConsoleListener(Console(file=out, width=80, highlight=False, soft_wrap=True, markup=False, emoji=False)), out


def test_the_head_says_what_where_and_why():
    first, reason, places = start_lines(start())
    assert first == "Training hrnet_w32 on CPU: 700 images, 150 to validate, epochs 1 to 200, batch 6."
    assert reason == "batch 6: 7 exceeds the budget by 0.4 GiB."
    assert places == "Checkpoints: checkpoints; TensorBoard: logs"
    assert "on CPU on 2 ranks" in start_lines(start(world_size=2))[0]
    assert start_lines(start(micro_batch=3))[0].endswith("batch 6, in micro-batches of 3.")


def test_an_epoch_is_one_line_without_what_was_not_measured():
    assert epoch_line(ON_CPU, 200, metric_words(ON_CPU.metrics)) == (
        "epoch 2/200 | loss 1.2346 | LR 3.00e-04 | MRE 1.50 mm | SDR@2.0mm 81.2 % | "
        "31.4 images/s | data wait 7 % | 22.3 s"
    )


def test_an_epoch_on_a_card_has_its_memory_and_its_ooms():
    line = epoch_line(ON_CARD, 200)
    assert "VRAM allocated 6.00 GiB reserved 7.00 GiB device 7.50 GiB" in line
    assert line.endswith("1 OOM, micro-batch 3")


def test_an_epoch_fits_the_width_and_keeps_what_matters():
    line = epoch_line(ON_CARD, 200, ["MRE 1.50 mm", "SDR@2.0mm 81.2 % SDR@2.5mm 90.0 %"], width=80)
    assert len(line) <= 80
    for words in ("epoch 2/200", "loss", "MRE 1.50 mm", "1 OOM, micro-batch 3"):
        assert words in line
    assert "LR" not in line
    assert epoch_line(ON_CPU, 200, width=200) == epoch_line(ON_CPU, 200)


def test_off_a_terminal_all_is_plain_lines():
    console, out = listener()
    console.on_data("decoding films of 'train'", 1, 8)
    console.on_start(start())
    console.on_progress(Progress(1, 1, 117, None, 3e-4, 31.4, 3600.0))
    console.on_event(EVENT)
    console.on_note("Little is left.")
    console.on_epoch(ON_CARD)
    console.on_grow_back(GROWTH)
    console.on_end(summary())
    lines = out.getvalue().splitlines()
    assert len(lines) == 3 + 1 + 1 + 1 + 1 + 3
    assert lines[3].startswith("Out of memory in the backward of epoch 2, step 7: the same samples again")
    assert "micro-batches of 3 in place of 6" in lines[3]
    assert lines[6] == "Epoch 3 had no OOM: from epoch 4 on micro-batches of 6 again, in place of 3."
    assert out.getvalue().isascii()
    assert "\x1b" not in out.getvalue()


def test_a_long_run_says_once_how_long_it_will_take():
    console, out = listener()
    for step in (1, 2, 3):
        console.on_progress(Progress(1, step, 117, None, 3e-4, 31.4, 133_200.0))
    assert out.getvalue() == "About 37 h 00 min to the end of the run at this pace.\n"
    short, out = listener()
    for step in (1, 2, 3):
        short.on_progress(Progress(1, step, 117, None, 3e-4, 31.4, 500.0))
    assert out.getvalue() == ""


def test_a_long_epoch_has_a_line_a_minute_off_a_terminal(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    console, out = listener()
    for step in (1, 2, 3):
        now[0] += 40
        console.on_progress(Progress(1, step, 117, None, 3e-4, 0.1, 500.0))
    assert out.getvalue() == "epoch 1/0, step 2 of 117 | 0.1 images/s | 8 min 20 s left\n"


def test_ctrl_c_is_answered_at_once(capfd):
    listener()[0].on_stop_asked()
    assert capfd.readouterr().err == "Finishing this step; Ctrl-C again stops at once.\n"


def test_one_epoch_is_not_called_epochs():
    assert summary_lines(summary(epochs=1))[0].startswith("Done: 1 epoch in ")


def test_a_run_goes_on_when_its_reader_has_left(monkeypatch):
    class Left(StringIO):
        def write(self, _):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Left())
    console = ConsoleListener()
    console.on_start(start())
    console.on_epoch(ON_CARD)
    console.on_end(summary())


def test_on_a_terminal_a_bar_shows_the_time_left_and_goes_away():
    out = StringIO()
    console = ConsoleListener(Console(file=out, width=100, force_terminal=True, color_system=None))
    console.on_start(start())
    console.on_progress(Progress(3, 40, 117, 0.5, 3e-4, 31.4, 3600.0))
    console.close()
    assert "epoch 3/200" in out.getvalue()
    assert "40/117" in out.getvalue()
    assert "31.4 images/s, 1 h 00 min left" in out.getvalue()
    console.close()


def test_the_summary_compares_a_plan_with_a_run_on_a_card():
    lines = summary_lines(summary(profile=make_profile(), device_used_bytes=6 * GIB, oom_events=(EVENT,)))
    assert lines == [
        "Done: 200 epochs in 1 h 02 min. Best epoch: 150, MRE 1.23 mm.",
        "VRAM: predicted for RTX 3070 Ti 6.40 GiB, real 6.00 GiB.",
        "Step time: predicted for RTX 3070 Ti 240 ms, real 250 ms.",
        "OOM events: 1.",
        "Checkpoints: checkpoints",
    ]


def test_a_measured_plan_needs_no_card_named():
    profile = make_profile(trials=(make_trial(6, source="measured"),))
    assert "VRAM: measured 6.40 GiB, real 6.00 GiB." in summary_lines(
        summary(profile=profile, device_used_bytes=6 * GIB)
    )


def test_a_run_on_a_cpu_is_not_compared_with_a_cards_plan():
    said = " ".join(summary_lines(summary(profile=make_profile())))
    assert "VRAM" not in said
    assert "Step time" not in said


def test_a_finished_run_says_so():
    assert summary_lines(summary(finished_before=True)) == [
        "Nothing to do: the run finished its 200 epochs before. Best epoch: 150, MRE 1.23 mm."
    ]


def test_without_a_finished_epoch_there_is_no_best():
    assert summary_lines(summary(best_epoch=None))[0].endswith("No epoch was finished.")
