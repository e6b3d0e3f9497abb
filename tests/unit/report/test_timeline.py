"""The page of a timeline: whole in itself, every kind coloured, every part in its tables."""

import json
import re

import pytest
from made_records import make_trial
from pages import require_sound

from vramfit.prediction.explain import explain
from vramfit.prediction.timeline import KINDS, Hidden
from vramfit.prediction.trace_records import StorageRecord, Trace
from vramfit.records import Verdict
from vramfit.report.explain import PART_NAMES, modules_table, parts_table, words
from vramfit.report.terminal import plain_text
from vramfit.report.timeline import _COLOURS, timeline_page
from vramfit.units import GIB, MIB, format_size


@pytest.fixture
def explanation():
    storages = [
        StorageRecord(2 * GIB, "to", "net.first", "setup", "parameter"),
        StorageRecord(300 * MIB, "conv2d", "net.second", "forward", "activation"),
        StorageRecord(5 * MIB, "</script><b>", "net.<i>", "backward", "gradient"),
    ]
    trace = Trace(6, storages, [0, 1, 2, ~2, ~1], marks={"step 1": 1})
    return explain(trace, Hidden(context_bytes=400 * MIB, workspaces={1: 64 * MIB}))


def test_the_page_loads_nothing_and_is_balanced(explanation):
    page = timeline_page(explanation, "a <title> & more")
    assert "a &lt;title&gt; &amp; more" in page
    assert "</script><b>" not in page
    require_sound(page)


def test_the_page_says_whether_it_fits_and_draws_the_budget_and_the_whole(explanation):
    trial = make_trial(6, budget_gib=2.0, device_used_bytes=explanation.peak_bytes, device_used_band_bytes=None)
    page = timeline_page(explanation, "title", trial.model_copy(update={"verdict": Verdict.OVER_BUDGET}))
    require_sound(page)
    assert "It does not fit: the card has 2.00 GiB" in page
    assert "budget 2.00 GiB" in page
    assert f"peak of the card {format_size(explanation.peak_bytes)}" in page
    heights = {name: float(y) for name, y in re.findall(r"class='limit (\w+)'[^>]* y1='([\d.]+)'", page)}
    assert heights["peak"] < heights["budget"], "what is more stands higher"
    assert "It fits" in timeline_page(explanation, "title", trial.model_copy(update={"verdict": Verdict.FITS}))


def test_every_drawing_and_table_can_be_kept(explanation):
    page = timeline_page(explanation, "title")
    for said in ("image/svg+xml", "text/csv", "@media print{.save{display:none}"):
        assert said in page


def test_the_moments_can_be_read_from_the_page(explanation):
    page = timeline_page(explanation, "title")
    data = json.loads(re.search(r"id='data'>(.*?)</script>", page)[1])
    assert len(data["columns"]) == len(explanation.timeline.columns)
    assert max(sum(column[3]) for column in data["columns"]) == 2 * GIB + 305 * MIB


def test_every_part_has_a_colour():
    assert set(_COLOURS) == {*KINDS, *PART_NAMES}


def test_the_tables_sum_to_the_peak(explanation):
    rows = plain_text(parts_table(explanation)).splitlines()
    *parts, peak = [int(row.split()[-1]) for row in rows[1:]]
    assert sum(parts) == peak == explanation.peak_bytes
    modules = plain_text(modules_table(explanation)).splitlines()
    level_one = [int(row.split()[-1]) for row in modules[1:-1] if not row.startswith("  ")]
    assert sum(level_one) == int(modules[-1].split()[-1]) == explanation.tensors_bytes


def test_the_sentence_says_when(explanation):
    assert words(explanation).startswith("Predicted peak 2.7")
    assert "at batch 6: in step 1, backward" in words(explanation)
