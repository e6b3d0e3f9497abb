"""Which row of the frontier is picked, and what is said of the others; the search is scripted."""

from types import SimpleNamespace

import pytest

from vramfit.errors import NothingFits
from vramfit.prediction.frontier import find_frontier
from vramfit.prediction.lever_search import Fitted
from vramfit.records import Lever, Schedule, Trial, Verdict
from vramfit.report.frontier import frontier_table, legend, show_frontier
from vramfit.report.terminal import plain_text
from vramfit.units import GIB

BUDGET = 8 * GIB
HALF = (Lever(name="half_upsample"),)
# GiB an image and seconds an image: as it is, with free levers, and recomputed one way or another.
COSTS = {
    "as it is": (1.1, 0.055),
    "free": (1.0, 0.05),
    "selective": (0.75, 0.055),
    "block": (0.5, 0.066),
    "module": (0.4, 0.068),
    "planned": (0.4, 0.06),
    # With one lever that saves memory, and with all.
    "offload": (0.45, 0.07),
    "checkpointing": (0.42, 0.055),
    "adapters": (0.2, 0.03),
    "together": (0.3, 0.08),
}
OFFLOAD, CHECKPOINTING = Lever(name="offload_activations"), Lever(name="gradient_checkpointing")
ADAPTERS = Lever(name="lora", setting="16")


class ScriptedSearch:
    """A job whose memory and time are so much an image."""

    def __init__(self, scale=1.0, *, batch_norm=True, levers=None):
        self.scale = scale
        self.levers = levers or {}
        self.batch_norm = batch_norm
        self.as_it_is = SimpleNamespace(
            job=SimpleNamespace(levers=()),
            trial=lambda size: self._trial("as it is", size),
            **self._largest("as it is"),
        )
        job = SimpleNamespace(levers=HALF, image_size=(768, 768))
        self.plain = SimpleNamespace(job=job, **self._largest("free"))

    def _largest(self, kind):
        return {
            "largest_that_fits": lambda maximum: max(
                (n for n in range(1, maximum + 1) if self._fits(kind, n)), default=0
            )
        }

    def _fits(self, kind, size):
        return self._trial(kind, size).verdict is Verdict.FITS

    def _trial(self, kind, size):
        memory, seconds = COSTS[kind]
        used = round(memory * self.scale * size * GIB)
        verdict = Verdict.FITS if used <= BUDGET else Verdict.OVER_BUDGET
        return Trial(
            source="predicted",
            micro_batch=size,
            verdict=verdict,
            budget_bytes=BUDGET,
            device_used_bytes=used,
            device_used_band_bytes=(used, used),
            step_time_s=seconds * size,
        )

    def _recomputed(self, kind, size):
        return Fitted((*HALF, Lever(name="recompute", setting="block", modules=(kind,))), self._trial(kind, size))

    def without(self, size):
        return Fitted(HALF, self._trial("free", size))

    def uniform(self, size, setting):
        return self._recomputed(setting, size)

    def smallest(self, size):
        return self._recomputed("planned", size)

    def cheapest(self, size):
        if self._fits("free", size):
            return self.without(size)
        return self._recomputed("planned", size) if self._fits("planned", size) else None

    def saving(self, size):
        return [Fitted((*HALF, lever), self._trial(kind, size)) for kind, lever in self.levers.items()]

    def together(self, size):
        fits = self.levers and self._fits("together", size)
        return Fitted((*HALF, *self.levers.values()), self._trial("together", size)) if fits else None

    def largest(self, maximum):
        return max((size for size in range(1, maximum + 1) if self.cheapest(size)), default=0)


def rows(frontier):
    return {row.label: row for row in frontier.rows}


def test_a_batch_that_fits_as_it_is_is_left_alone():
    frontier = find_frontier(ScriptedSearch(), batch_size=7)
    assert frontier.choice.label == "as it is"
    assert frontier.choice.levers == ()
    assert "faster per image than the plan" in rows(frontier)["free levers"].reason


def test_free_levers_come_before_those_that_cost_time():
    choice = find_frontier(ScriptedSearch(), batch_size=8).choice
    assert (choice.label, choice.levers) == ("free levers", HALF)


def test_recomputation_makes_a_batch_fit_and_every_loser_is_told_why():
    frontier = find_frontier(ScriptedSearch(), batch_size=12)
    assert frontier.choice.label == "planned recomputation"
    assert frontier.choice.reason == "fits at 20.0% more time than the same batch without recomputation"
    said = {label: row.reason for label, row in rows(frontier).items()}
    assert said["free levers"] == "exceeds the budget by 4.00 GiB"
    assert said["selective, everywhere"] == "exceeds the budget by 1.00 GiB"
    # By the measure that the pick is told by: 0.05 s an image.
    assert said["block, everywhere"] == "32.0% slower per image than free levers alone"
    assert said["accumulation"] == "as fast as free levers alone, but BatchNorm sees 6 images at a time"
    assert sum(row.chosen for row in frontier.rows) == 1


def test_a_batch_that_no_levers_fit_is_divided():
    choice = find_frontier(ScriptedSearch(), batch_size=24).choice
    assert (choice.label, choice.trial.micro_batch, choice.accumulation_steps) == ("accumulation", 8, 3)
    assert choice.reason == "the whole batch does not fit at once with any levers; BatchNorm sees 8 images at a time"


def test_batch_norm_is_spoken_of_where_there_is_one():
    search = ScriptedSearch(batch_norm=False)
    assert find_frontier(search, batch_size=24).choice.reason == "the whole batch does not fit at once with any levers"
    divided = rows(find_frontier(search, batch_size=12))["accumulation"].reason
    assert divided == "as fast as free levers alone, but the batch is not processed at once"


def test_without_a_batch_the_objective_picks():
    assert find_frontier(ScriptedSearch()).choice.trial.micro_batch == 8
    largest = find_frontier(ScriptedSearch(), objective="largest").choice
    assert (largest.label, largest.trial.micro_batch) == ("planned recomputation", 20)


def test_when_nothing_fits_the_shortfall_and_the_cheapest_change_are_named():
    with pytest.raises(NothingFits, match=r"2\.00 GiB short .* use images of 672x672, or allow 10\.00 GiB"):
        find_frontier(ScriptedSearch(scale=25), batch_size=1)


def test_the_table_marks_the_pick_and_fits_a_pipe(capsys):
    frontier = find_frontier(ScriptedSearch(), batch_size=12)
    text = plain_text(frontier_table(frontier, Schedule(images=700)))
    assert next(line for line in text.splitlines() if line.startswith(">")).split()[1:3] == ["planned", "recomputation"]
    assert "recompute=block (1 module)" in " ".join(legend(frontier))


def test_a_terminal_has_the_levers_below_the_table_by_the_number_of_their_row(capsys):
    frontier = find_frontier(ScriptedSearch(), batch_size=12)
    show_frontier(frontier, Schedule())
    said = capsys.readouterr().out
    table, legend, choice = (part.splitlines() for part in said.rstrip().split("\n\n"))
    assert max(map(len, table)) <= 120
    number = next(line for line in table if line.startswith(">")).split()[1]
    assert [line.split(".")[0] for line in legend] == [str(n) for n in range(1, len(frontier.rows) + 1)]
    assert f"{number}. planned recomputation, batch 12: " in "\n".join(legend)
    assert "recompute=block (1 module)" in legend[int(number) - 1]
    assert choice[0].startswith("Levers: planned recomputation, batch 12: fits at 20.0% more time")


def test_a_saving_lever_is_picked_where_it_is_faster_than_recomputation():
    levers = {"offload": OFFLOAD, "checkpointing": CHECKPOINTING}
    frontier = find_frontier(ScriptedSearch(levers=levers), batch_size=12)
    assert frontier.choice.label == "gradient_checkpointing"
    assert frontier.choice.reason == "fits at 10.0% more time than the same batch without these levers"
    assert rows(frontier)["offload_activations"].reason == "40.0% slower per image than free levers alone"
    slow = find_frontier(ScriptedSearch(levers={"offload": OFFLOAD}), batch_size=12)
    assert slow.choice.label == "planned recomputation"


def test_a_lever_that_changes_what_is_learned_is_shown_and_never_picked():
    frontier = find_frontier(ScriptedSearch(levers={"adapters": ADAPTERS}), batch_size=12)
    assert frontier.choice.label == "planned recomputation"
    assert rows(frontier)["lora=16"].reason.startswith("would fit, and changes what is learned: name it with --levers")


def test_levers_are_taken_together_where_none_is_enough():
    search = ScriptedSearch(levers={"offload": OFFLOAD, "checkpointing": CHECKPOINTING})
    frontier = find_frontier(search, batch_size=24)
    assert frontier.choice.label == "levers together"
    assert frontier.choice in frontier.rows


def test_what_fits_as_it_is_is_not_traced_with_other_levers():
    search = ScriptedSearch(levers={"offload": OFFLOAD})
    search.saving = None
    assert find_frontier(search, batch_size=7).choice.label == "as it is"


def test_where_nothing_fits_a_lever_that_changes_what_is_learned_is_suggested():
    with pytest.raises(NothingFits, match="or, where another result is meant, --levers lora=16"):
        find_frontier(ScriptedSearch(scale=30, levers={"adapters": ADAPTERS}), batch_size=1)
    with pytest.raises(NothingFits) as caught:
        find_frontier(ScriptedSearch(scale=30, levers={"offload": OFFLOAD}), batch_size=1)
    assert "--levers" not in str(caught.value)


def test_without_a_batch_levers_that_make_one_sample_fit_are_found():
    search = ScriptedSearch(scale=25, levers={"offload": OFFLOAD, "checkpointing": CHECKPOINTING})
    choice = find_frontier(search).choice
    assert (choice.label, choice.trial.micro_batch) == ("levers together", 1)
