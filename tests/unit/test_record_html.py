"""Records as a notebook shows them, and the example notebook, cell by cell."""

import json
from pathlib import Path

from made_records import make_profile, make_trial

from vramfit.units import MIB

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "notebooks" / "what_fits.ipynb"


def test_trial_is_a_table_of_what_is_known():
    shown = make_trial(4)._repr_html_()
    assert shown.startswith("<table>")
    assert "<th style='text-align:left'>micro batch</th><td>4</td>" in shown
    assert "None" not in shown


def test_sizes_have_units_and_text_is_escaped():
    shown = make_trial(4).model_copy(update={"context_bytes": 400 * MIB, "note": "<b>"})._repr_html_()
    assert "<td>400 MiB</td>" in shown
    assert "&lt;b&gt;" in shown


def test_profile_shows_its_trials_as_rows_of_one_table():
    profile = make_profile(6)
    shown = profile._repr_html_()
    assert shown.count("<th>micro batch</th>") == 1
    assert shown.count("<table>") == shown.count("</table>")


def test_example_notebook_runs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    space: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), space)
    assert space["trial"].verdict.value == "fits"
