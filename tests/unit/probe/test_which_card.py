"""Which card for a job: shared traces say what a card's own say, the picks are right, and money is money."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn, optim

from vramfit.cards import CARDS, cards_of, find_card
from vramfit.errors import DataError, NothingFits, UsageError
from vramfit.jobs.job import Job
from vramfit.prediction.predict import Predictor, card_budget
from vramfit.prediction.shared_traces import SharedPredictor, SharedTraces
from vramfit.prediction.tracing.cuda_kernels import kernel_class
from vramfit.prediction.tracing.trace import trace_step
from vramfit.probe.fit import run_probe
from vramfit.probe.prices import read_prices
from vramfit.probe.request import MemoryLimits, ProbeRequest
from vramfit.probe.which_card import which_card
from vramfit.records import Lever, Schedule, Verdict
from vramfit.report.which_card import (
    choices_document,
    choices_page,
    choices_table,
    pareto,
    pick_sentences,
    reading_sentences,
)
from vramfit.units import MIB

SCHEDULE = Schedule(images=512, epochs=10)


class Attending(nn.Module):
    """Heads of 96, which the kernels of attention treat differently by card."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(192, 576)

    def forward(self, tokens):
        query, key, value = (
            part.unflatten(-1, (2, 96)).transpose(1, 2) for part in self.project(tokens).chunk(3, dim=-1)
        )
        return torch.nn.functional.scaled_dot_product_attention(query, key, value).sum(dim=(1, 2, 3))


def attending_job():
    return Job(
        model=Attending,
        batch=lambda n: (torch.randn(n, 64, 192), torch.randn(n)),
        loss=nn.functional.mse_loss,
        optimizer=partial(optim.SGD, lr=0.1),
        amp="fp16",
    )


def convolving_job(width=64):
    return Job(
        model=lambda: nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, 10),
        ),
        batch=lambda n: (torch.randn(n, 3, 256, 256), torch.randn(n, 10)),
        loss=nn.functional.mse_loss,
        optimizer=partial(optim.AdamW, lr=1e-3),
        amp="fp16",
    )


def test_cards_of_one_class_leave_the_same_trace():
    by_class: dict[tuple, set] = {}
    for capability in {card.compute_capability for card in CARDS}:
        trace = trace_step(attending_job(), 4, capability=capability)
        said = (tuple(trace.events), tuple(storage.size_bytes for storage in trace.storages))
        by_class.setdefault(kernel_class(capability), set()).add(said)
    assert len(by_class) > 4
    assert all(len(traces) == 1 for traces in by_class.values())


@pytest.mark.parametrize("job", [attending_job, convolving_job])
def test_shared_trials_are_those_of_the_card_alone(job):
    shared = SharedTraces(job())
    for name in ("B200", "rtx4090", "rtx3060", "T4", "gtx1080ti", "H100", "A100 40GB", "RTX 3070 Laptop"):
        card = find_card(name)
        of_many = SharedPredictor(shared, card, card_budget(card)).trial(8)
        alone = Predictor(job(), card, card_budget(card)).trial(8)
        assert of_many.verdict == alone.verdict
        assert abs(of_many.device_used_bytes - alone.device_used_bytes) <= 4 * MIB
        assert of_many.step_time_s == pytest.approx(alone.step_time_s, rel=1e-9)


def test_a_job_without_attention_is_traced_once_for_all_cards(monkeypatch):
    made = []

    def counted(job, micro_batch, **how):
        made.append(micro_batch)
        return trace_step(job, micro_batch, **how)

    monkeypatch.setattr("vramfit.prediction.shared_traces.trace_step", counted)
    answer = which_card(convolving_job(8), ProbeRequest(schedule=SCHEDULE), CARDS)
    assert len(answer.holds) > 250
    assert len(made) <= 8


def test_the_picks_are_the_quickest_the_cheapest_and_the_smallest():
    cards = cards_of("rtx3060,rtx4090,A100 80GB,rtx3050 laptop,gtx1050")
    prices = {"RTX 3060": 0.1, "RTX 4090": 0.4, "A100 SXM 80GB": 30.0}
    request = ProbeRequest(schedule=SCHEDULE, batch_sizes=(64, 32))
    answer = which_card(convolving_job(), request, cards, prices)
    assert [choice.run_time_s for choice in answer.holds] == sorted(choice.run_time_s for choice in answer.holds)
    assert answer.picks["fastest"] == answer.holds[0]
    priced = [choice for choice in answer.holds if choice.cost is not None]
    assert answer.picks["cheapest"] == min(priced, key=lambda choice: choice.cost)
    assert answer.picks["smallest"].card.sold_gib == min(choice.card.sold_gib for choice in answer.holds)
    assert {card.name for card in answer.too_small} >= {"GTX 1050"}
    for choice in answer.holds:
        low, high = choice.run_time_band_s
        assert low < choice.run_time_s < high
        assert choice.trial.verdict is Verdict.FITS
        rate = choice.trial.micro_batch / choice.trial.step_time_s
        assert choice.run_time_s == pytest.approx(10 * 512 / rate)
        if choice.price_per_hour is not None:
            assert choice.cost == pytest.approx(choice.price_per_hour * choice.run_time_s / 3600)


def test_a_limit_holds_on_every_card():
    request = ProbeRequest(schedule=SCHEDULE, limits=MemoryLimits.parse(vram="2GB"))
    answer = which_card(convolving_job(), request, cards_of("rtx3060,A100 80GB"))
    assert all(choice.trial.device_used_band_bytes[1] <= 2 * 1024 * MIB for choice in answer.holds)


def test_an_effective_batch_is_divided():
    request = ProbeRequest(schedule=SCHEDULE, effective_batch=96, limits=MemoryLimits.parse(vram="2GB"))
    (choice,) = which_card(convolving_job(), request, cards_of("rtx3060")).holds
    assert choice.accumulation_steps > 1
    assert choice.trial.micro_batch * choice.accumulation_steps >= 96


@pytest.mark.parametrize("asked", [{}, {"objective": "largest", "effective_batch": 96}])
def test_each_card_is_planned_for_as_by_itself(asked):
    limits = MemoryLimits.parse(vram="2GB")
    request = ProbeRequest(schedule=SCHEDULE, free_levers=True, limits=limits, **asked)
    answer = which_card(convolving_job(), request, cards_of("H100 PCIe,rtx4090,gtx1080ti"))
    assert len(answer.holds) == 3
    assert len({choice.levers for choice in answer.holds}) > 1
    for choice in answer.holds:
        alone = run_probe(convolving_job(), replace(request, gpu=choice.card.name))
        assert (choice.trial.micro_batch, choice.accumulation_steps) == (
            alone.plan.micro_batch,
            alone.plan.accumulation_steps,
        )
        assert choice.levers == alone.plan.levers
        trial = alone.trial(alone.plan.micro_batch)
        assert choice.trial.step_time_s == pytest.approx(trial.step_time_s, rel=1e-9)
        assert abs(choice.trial.device_used_bytes - trial.device_used_bytes) <= 4 * MIB


def test_cards_that_hold_not_even_one_sample_are_too_small_whatever_is_known_of_others():
    request = ProbeRequest(schedule=SCHEDULE, limits=MemoryLimits.parse(reserve="1500MB"))
    answer = which_card(convolving_job(), request, cards_of("rtx3060,gtx750ti,gt1030,gtx1050"))
    assert [choice.card.name for choice in answer.holds] == ["RTX 3060"]
    assert {card.name for card in answer.too_small} == {"GTX 750 Ti", "GT 1030", "GTX 1050"}


def test_levers_of_some_cards_alone_have_a_column():
    request = ProbeRequest(schedule=SCHEDULE, free_levers=True, batch_sizes=(16,))
    answer = which_card(convolving_job(), request, cards_of("rtx4090,gtx1080ti"))
    table = choices_table(answer)
    assert [str(column.header) for column in table.columns][-1] == "levers"
    said = dict(zip(table.columns[0]._cells, table.columns[-1]._cells, strict=True))
    assert said == {"RTX 4090": "channels_last=on", "GTX 1080 Ti": ""}
    assert "column of levers" in " ".join(reading_sentences(answer))


def test_what_no_card_holds_is_told():
    with pytest.raises(NothingFits, match="RTX 3050 Laptop"):
        which_card(convolving_job(), ProbeRequest(batch_sizes=(4096,)), cards_of("rtx3050 laptop,gtx1050"))
    with pytest.raises(UsageError, match="--levers auto"):
        which_card(convolving_job(), ProbeRequest(choose_levers=True), cards_of("rtx3060"))


@pytest.mark.parametrize("wanted", [{}, {"effective_batch": 64}, {"batch_sizes": (32, 16, 8)}])
def test_a_pick_that_its_own_replay_refuses_is_tried_with_smaller_sizes(monkeypatch, wanted):
    """Of one card, of which only batches up to 8 hold."""
    holds = Predictor.trial_of

    def refused_above_8(predictor, trace):
        trial = holds(predictor, trace)
        return trial if trial.micro_batch <= 8 else trial.model_copy(update={"verdict": Verdict.OVER_BUDGET})

    monkeypatch.setattr(Predictor, "trial_of", refused_above_8)
    monkeypatch.setattr(SharedPredictor, "trial_of", holds)
    request = ProbeRequest(schedule=SCHEDULE, objective="largest", **wanted)
    answer = which_card(convolving_job(8), request, cards_of("rtx3060"), {"RTX 3060": 0.5})
    assert answer.too_small == ()
    assert {pick.trial.micro_batch for pick in answer.picks.values()} == {8}
    assert set(answer.picks) == {"fastest", "smallest", "cheapest"}
    with pytest.raises(NothingFits):
        which_card(convolving_job(8), ProbeRequest(batch_sizes=(32, 16)), cards_of("rtx3060"))


def test_a_lever_that_cannot_add_up_gradients_is_refused_with_an_effective_batch():
    job = replace(convolving_job(), levers=(Lever(name="optimizer_in_backward"),))
    with pytest.raises(UsageError, match="optimizer_in_backward cannot add up gradients"):
        which_card(job, ProbeRequest(effective_batch=64), cards_of("rtx3060"))


def test_tables_pages_and_documents_say_the_same():
    cards = cards_of("rtx3060,rtx4090,gtx1050")
    request = ProbeRequest(schedule=SCHEDULE, batch_sizes=(64,))
    answer = which_card(convolving_job(), request, cards, {"RTX 3060": 0.1})
    assert choices_table(answer).row_count == len(answer.holds) == 2
    said = " ".join(pick_sentences(answer))
    assert "The fastest that holds it: RTX 4090" in said
    assert "The cheapest that holds it: RTX 3060" in said
    assert "1 card does not hold it, the largest of them the GTX 1050" in said
    document = choices_document(answer)
    assert document["picks"] == {"fastest": "RTX 4090", "smallest": "RTX 3060", "cheapest": "RTX 3060"}
    page = choices_page(answer, "cards <compared>")
    assert page.count("<svg") == 2
    assert "cards &lt;compared&gt;" in page
    unpriced = which_card(convolving_job(), request, cards)
    assert "give --price FILE" in " ".join(pick_sentences(unpriced))


def test_no_choice_of_the_front_is_beaten_in_both():
    choices = which_card(convolving_job(), ProbeRequest(schedule=SCHEDULE, batch_sizes=(8,)), CARDS).holds
    sizes = [float(choice.card.sold_gib) for choice in choices]
    front = pareto(choices, sizes)
    for place in front:
        beaten = [
            other
            for other in range(len(choices))
            if choices[other].run_time_s < choices[place].run_time_s and sizes[other] <= sizes[place]
        ]
        assert not beaten


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prices.csv", "card,price_per_hour,where\nrtx4090,0.4,here\nA100 80G, 1.5,there\n"),
        ("prices.json", '{"rtx4090": 0.4, "A100 80G": 1.5}'),
    ],
)
def test_prices_are_read_by_the_names_of_cards(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_prices(tmp_path / name) == {"RTX 4090": 0.4, "A100 SXM 80GB": 1.5}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.csv", "card;price\n", "must name the columns card and price_per_hour"),
        ("p.csv", "card,price_per_hour\nrtx4090,free\n", "line 2: 'free' is no price above 0"),
        ("p.csv", "card,price_per_hour\nrtx4090,0.4\na2000,1\n", "line 3: 'a2000' does not say which card"),
        ("p.csv", "card,price_per_hour\nrtx4090,0.4\nRTX 4090,0.5\n", "line 3: RTX 4090 has a price already, 0.4"),
        ("p.json", "[1]", "no object of prices"),
        ("p.json", '{"rtx4090": -1}', "'-1' is no price above 0"),
        ("p.json", "{", "p.json"),
    ],
)
def test_prices_that_make_no_sense_are_refused_with_their_line(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        read_prices(tmp_path / name)
