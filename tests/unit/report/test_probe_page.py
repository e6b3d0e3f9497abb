"""The page of a probe: memory and time drawn where the table says, the reason, and no word taken for markup."""

import re

from made_records import make_profile, make_trial
from pages import require_sound

from vramfit.prediction.frontier import Frontier, FrontierRow
from vramfit.records import Lever, Loading, Machine, Plan, Schedule, Verdict
from vramfit.report.probe_page import cases_page, probe_page


def dots(page, mark):
    return re.findall(
        rf"<circle class='(dot|ring) {mark}' cx='([\d.]+)' cy='([\d.]+)' r='([\d.]+)'><title>([^<]+)", page
    )


def make_frontier(**changes):
    rows = [
        FrontierRow(label="as it is", levers=(), trial=make_trial(9), reason="exceeds <the> budget", **changes),
        FrontierRow(
            label="free levers",
            levers=(Lever(name="half_upsample"),),
            trial=make_trial(6, step_time_s=0.3),
            reason="fits",
            chosen=True,
        ),
    ]
    return Frontier(rows=tuple(rows))


def test_the_page_is_sound_and_says_what_was_found():
    page = probe_page(make_profile())
    require_sound(page)
    for words in (
        "hrnet_w32 768x768 fp16",
        "Budget 7.50 GiB",
        "7 exceeds the budget by 0.4 GiB",
        "torch 2.15.0",
        "plan",
    ):
        assert words in page, words


def test_every_trial_is_a_dot_filled_where_it_fits():
    found = dots(probe_page(make_profile(trials=tuple(make_trial(n) for n in range(1, 9)))), "first")
    assert [shape for shape, *_ in found] == ["dot"] * 7 + ["ring"]
    heights = [float(y) for _, _, y, _, _ in found]
    assert heights == sorted(heights, reverse=True)
    chosen = [title for *_, size, title in found if size == "6.5"]
    assert chosen == ["batch 6: 6.40 (5.76-7.04) GiB, 240 ms a step, fits, chosen"]


def test_the_budget_lies_between_what_fits_and_what_does_not():
    page = probe_page(make_profile(trials=(make_trial(6), make_trial(9))))
    (_, _, fits, _, _), (_, _, over, _, _) = dots(page, "first")
    budget = float(re.search(r"<line class='limit' x1='[\d.]+' y1='([\d.]+)'", page)[1])
    assert float(over) < budget < float(fits)


def test_measured_trials_without_a_range_and_an_oom_without_figures():
    measured = {"source": "measured", "device_used_band_bytes": None, "step_time_band_s": None}
    oom = make_trial(
        3, **measured, verdict=Verdict.OOM, device_used_bytes=None, peak_allocated_bytes=None, step_time_s=None
    )
    page = probe_page(
        make_profile(2, source="measured", trials=(make_trial(2, **measured), oom, make_trial(1, **measured)))
    )
    require_sound(page)
    assert "<text class='ink'" in page
    assert ">out of memory</text>" in page
    assert "9 times in 10</li>" not in page


def test_one_trial_is_no_curve_and_none_no_table_of_wonders():
    require_sound(probe_page(make_profile(trials=(make_trial(6),))))
    require_sound(probe_page(make_profile(trials=())))


def test_loading_is_drawn_where_it_is_near():
    near = Schedule(loading=Loading(worker_images_per_s=15, workers=2))
    far = Schedule(loading=Loading(worker_images_per_s=500, workers=2))
    assert "loading 30 images/s" in probe_page(make_profile(schedule=near))
    assert "loading 1000 images/s" not in probe_page(make_profile(schedule=far))


def test_levers_are_a_plot_and_a_numbered_table():
    page = probe_page(make_profile(trials=(make_trial(6),)), make_frontier())
    require_sound(page)
    assert "Levers: free levers, batch 6: fits." in page
    assert [title.split(",")[0] for *_, title in dots(page, "fourth")] == ["as it is"]
    assert [title.split(",")[0] for *_, title in dots(page, "first")] == ["free levers"]
    assert re.search(r"<tr class=marked><td class=word>2</td><td class=word>&gt; free levers", page)
    assert "<p>1. as it is, batch 9: no levers; exceeds &lt;the&gt; budget.</p>" in page


def test_several_cases_are_one_page():
    page = cases_page("card", [("t4", make_profile()), ("<none>", None)])
    require_sound(page)
    assert "nothing fits" in page
    assert "<h2>&lt;none&gt;</h2>" in page


def test_words_of_the_user_are_only_words():
    hostile = Machine(card="<script>x</script>", torch="2", platform="<b>")
    page = probe_page(make_profile(machine=hostile, plan=Plan(micro_batch=6, reason="<i>why</i>"), notes=("<u>note",)))
    require_sound(page)
    for element in ("<script>", "<b>", "<i>why", "<u>"):
        assert element not in page
