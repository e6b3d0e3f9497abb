"""What a run trains with: asked of a scripted card or of a prediction, and said in sentences."""

import sys
from dataclasses import dataclass, field, replace

import pytest
import small_runs as small
import torch
from scripted_card import ScriptedCard, other_process

from vramfit.errors import NothingFits, NoUsableGpu, ProfileError, UsageError
from vramfit.jobs.levers.expandable_segments import ExpandableSegments
from vramfit.jobs.ranks import Ranks
from vramfit.measure.budget import read_budget
from vramfit.measure.machine import read_machine
from vramfit.probe.probe import Probe
from vramfit.probe.request import ProbeRequest
from vramfit.records import Lever
from vramfit.training import batch_plan as planning
from vramfit.training.batch_plan import choose_device, decide
from vramfit.training.run_options import RunOptions
from vramfit.training.trainer import with_levers_of
from vramfit.units import GIB

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
JOB = small.job()


@dataclass
class ScriptedBackend:
    card: ScriptedCard
    budget: object
    source: str = "measured"
    notes: list = field(default_factory=list)

    def __post_init__(self):
        self.machine = read_machine(self.card)
        self.can_spill = self.card.can_spill

    def trial(self, micro_batch):
        return self.card.trial(micro_batch, self.budget)

    def reviewed(self, trials):
        return trials

    def guess(self, maximum):
        return maximum


def fit_on(card, source="measured"):
    """The probe, with its real search, on a scripted card."""

    def run_probe(job, request, *, predicted_levers=frozenset()):
        assert request.gpu is None
        backend = ScriptedBackend(card, read_budget(card, request.limits), source)
        return Probe(backend, request, lambda _: None, predicted_levers=predicted_levers).profile(job)

    return run_probe


def recalled(run_probe):
    return lambda job, request: (run_probe(job, request), "Probed anew, as was asked." if request.fresh else None)


@pytest.fixture
def card(monkeypatch):
    """A card on which seven samples fit, and on which planning makes its trials."""
    card = ScriptedCard()
    monkeypatch.setattr(planning, "local_device", lambda _: card)
    monkeypatch.setattr(planning, "run_probe", fit_on(card))
    monkeypatch.setattr(planning, "fit_or_recall", recalled(fit_on(card)))
    return card


class Others(Ranks):
    """One rank of two, whose other one has a smaller number to offer."""

    def __init__(self, theirs, rank=0):
        super().__init__(rank, 2, rank)
        self.theirs = theirs

    def minimum(self, mine):
        return min(mine, self.theirs)

    def gather(self, mine):
        return [mine, mine] if self.rank == 0 else [FIRSTS, mine]


FIRSTS = (Lever(name="channels_last"),)


def slow_sgd(parameters):
    return torch.optim.SGD(parameters, lr=3e-4)


def decided(device=CUDA, *, job=JOB, effective=None, samples=40, ranks=None, **options):
    chosen = RunOptions(**options)
    return decide(job, chosen, device, ranks or Ranks(), samples=samples, effective=effective)


def kept(profile, folder):
    path = folder / "profile.json"
    path.write_text(profile.to_json(), encoding="utf-8")
    return str(path)


def probed(card, source="measured", job=JOB, **wanted):
    return fit_on(card, source)(job, ProbeRequest(schedule=planning.Schedule(images=40, epochs=2), **wanted))


def test_a_cpu_trains_the_guides_batch_and_says_that_nothing_was_checked():
    decision = decided(CPU)
    assert (decision.effective_batch, decision.micro_batch, decision.profile) == (6, 6, None)
    assert decision.notes == ("A CPU has no VRAM limit: the batch was not checked.",)
    assert "--auto-batch has nothing to find; the batch is 6" in decided(CPU, auto_batch=True).notes[0]


def test_a_card_that_is_not_here_is_predicted():
    decision = decided(CPU, effective=4, gpu="rtx3070ti")
    assert (decision.effective_batch, decision.micro_batch) == (4, 4)
    assert decision.profile.source == "predicted"
    assert decision.notes[0] == decision.profile.plan.reason


def test_a_batch_that_fits_is_not_split_though_smaller_ones_are_faster(card):
    card.seconds = lambda n: 0.1 * n if n <= 2 else 0.2 * n
    decision = decided(effective=6)
    assert decision.micro_batch == 6
    assert not any("does not fit" in note for note in decision.notes)


def test_a_batch_that_does_not_fit_is_split_evenly_and_said(card):
    decision = decided(effective=8)
    assert (decision.effective_batch, decision.micro_batch) == (8, 4)
    assert decision.notes[-1] == (
        "Each step takes its 8 images in 2 micro-batches of 4 at most; the effective batch stays 8."
    )
    assert card.trains(4)
    assert not card.trains(8)


def test_auto_batch_trains_what_it_finds_whole_and_leaves_the_learning_rate(card):
    card.seconds = lambda n: 0.1 + 0.001 * n
    decision = decided(auto_batch=True, job=small.job(optimizer=slow_sgd))
    assert decision.effective_batch == decision.micro_batch == card.true_limit == 7
    assert any(note.startswith("The learning rate stays 0.0003.") for note in decision.notes)


def test_whether_an_earlier_probe_was_used_is_said(card):
    assert "Probed anew, as was asked." in decided(auto_batch=True, fresh=True).notes


def test_no_batch_is_larger_than_the_film_set(card):
    assert decided(auto_batch=True, samples=3).micro_batch <= 3


def test_nothing_fits_is_an_error_and_not_a_default(card):
    card.per_image_bytes = 9 * GIB
    with pytest.raises(NothingFits) as refusal:
        decided(effective=6)
    assert refusal.value.exit_code == 3


def test_the_smallest_rank_decides_for_all(card):
    decision = decided(effective=8, ranks=Others(theirs=2))
    assert (decision.effective_batch, decision.micro_batch) == (8, 2)
    assert "in 2 micro-batches of 2 at most" in decision.notes[-1]


def test_one_rank_of_a_node_probes_for_the_others(card):
    decision = decided(effective=8, ranks=Others(theirs=4, rank=1))
    assert decision.micro_batch == 4
    assert decision.levers == FIRSTS
    assert card.sizes == []


def test_auto_batch_over_ranks_is_the_smallest_plan_on_each(card):
    assert decided(auto_batch=True, ranks=Others(theirs=3)).effective_batch == 6


def test_a_profile_of_this_card_is_used_without_a_trial(card, tmp_path):
    profile = probed(card, effective_batch=6, objective="largest")
    card.sizes.clear()
    decision = decided(profile=kept(profile, tmp_path))
    assert (decision.effective_batch, decision.micro_batch) == (6, 6)
    assert decision.profile == profile
    assert card.sizes == []


def test_a_predicted_profile_is_proved_by_one_trial(card, tmp_path):
    profile = probed(card, "predicted", effective_batch=6, objective="largest")
    card.sizes.clear()
    decision = decided(profile=kept(profile, tmp_path))
    assert decision.notes[-1].startswith("Proved by a trial: micro-batch 6 within")
    assert decision.profile.source == "measured"
    assert card.sizes == [6]


def test_a_predicted_profile_that_the_card_refutes_is_planned_anew(card, tmp_path):
    profile = probed(replace(card, per_image_bytes=GIB // 2), "predicted", effective_batch=9, objective="largest")
    assert profile.plan.micro_batch == 9
    decision = decided(profile=kept(profile, tmp_path))
    assert any(note.startswith("Planned anew: micro-batch 5 within") for note in decision.notes)
    # Nine samples are divided evenly once seven at a time are what fits.
    assert (decision.effective_batch, decision.micro_batch) == (9, 5)


@pytest.mark.parametrize("source", ["measured", "predicted"])
def test_a_lever_that_this_system_does_not_know_leaves_a_profile_to_a_trial(card, tmp_path, monkeypatch, source):
    segments, half = Lever(name="expandable_segments"), Lever(name="half_upsample")
    profile = probed(card, source, job=replace(JOB, levers=(segments, half)), effective_batch=6, objective="largest")
    file = kept(profile, tmp_path)
    monkeypatch.setattr(ExpandableSegments, "missing_on", {sys.platform: "this system"})
    card.sizes.clear()
    # Without the lever an image takes more, and six no longer fit at once.
    card.per_image_bytes = GIB * 3 // 2
    job = with_levers_of(JOB, RunOptions(profile=file))
    assert job.levers == (half,)
    decision = decided(job=job, profile=file)
    said = " ".join(decision.notes)
    assert "Levers of the profile: expandable_segments, half_upsample." in said
    assert "This system has no expandable_segments: what fits is tried without." in said
    assert "job.fingerprint" not in said
    assert card.sizes[0] == 6
    assert (decision.effective_batch, decision.micro_batch) == (6, 3)
    assert decision.levers == (half,)


def test_a_memory_order_that_a_prediction_chose_is_measured_against_the_other(card, tmp_path, monkeypatch):
    asked = []

    def answer(job, request, *, predicted_levers=frozenset()):
        asked.append(predicted_levers)
        return fit_on(card)(job, request)

    monkeypatch.setattr(planning, "run_probe", answer)
    levers = (Lever(name="half_upsample"),)
    for source, expected in (("predicted", {"half_upsample"}), ("measured", frozenset())):
        profile = probed(card, source, job=replace(JOB, levers=levers), effective_batch=6, objective="largest")
        card.driver_version = f"of {source}"  # another driver asks for a trial
        decided(job=replace(JOB, levers=levers), profile=kept(profile, tmp_path))
        assert asked.pop() == expected


def test_less_free_memory_than_a_profile_assumed_is_blamed_on_who_took_it(card, tmp_path):
    file = kept(probed(card, effective_batch=6, objective="largest"), tmp_path)
    card.others = (other_process(3 * GIB, "game.exe", 77),)
    decision = decided(profile=file)
    said = " ".join(decision.notes)
    assert "3.00 GiB less is free than the profile assumed" in said
    assert "game.exe (pid 77)" in said
    assert (decision.effective_batch, decision.micro_batch) == (6, 3)


def test_a_profile_of_a_larger_card_is_refused(card, tmp_path):
    file = kept(probed(replace(card, capacity_bytes=24 * GIB), effective_batch=6), tmp_path)
    with pytest.raises(ProfileError, match=r"budget\.budget_bytes") as refusal:
        decided(profile=file)
    assert refusal.value.exit_code == 5


def test_a_profile_of_another_model_is_refused(card, tmp_path):
    other = replace(JOB, model_name="other")
    profile = probed(card, job=other, effective_batch=6)
    with pytest.raises(ProfileError, match=r"job\.model is other"):
        decided(profile=kept(profile, tmp_path))


def test_a_profile_on_a_cpu_is_used_unproved(card, tmp_path):
    decision = decided(CPU, profile=kept(probed(card, effective_batch=6, objective="largest"), tmp_path))
    assert decision.micro_batch == 6
    assert "used unproved" in decision.notes[-1]


def test_a_batch_by_hand_is_divided_by_a_profiles_micro_batch(card, tmp_path):
    file = kept(probed(card, effective_batch=6, objective="largest"), tmp_path)
    decision = decided(profile=file, effective=12)
    assert (decision.effective_batch, decision.micro_batch) == (12, 6)


def test_cuda_that_is_not_here_is_refused_by_the_options_name():
    if torch.cuda.is_available():
        pytest.skip("there is a card here")
    with pytest.raises(NoUsableGpu, match=r"--device cuda: .*, or train with --device cpu"):
        choose_device("cuda", Ranks())
    assert choose_device("auto", Ranks()) == CPU


def test_bf16_is_refused_on_a_card_that_only_emulates_it(card):
    card.compute_capability = (7, 5)
    bf16 = small.job(amp="bf16")
    with pytest.raises(UsageError, match="--emulated-bf16"):
        decided(job=bf16)
    assert decided(job=bf16, emulated_bf16=True).micro_batch == 6
    assert decided(job=small.job(amp="fp16")).micro_batch == 6
    card.compute_capability = (8, 6)
    assert decided(job=bf16).micro_batch == 6


def test_bf16_is_not_planned_for_a_card_that_only_emulates_it():
    with pytest.raises(UsageError, match=r"T4.*no bf16"):
        decided(CPU, gpu="t4", job=small.job(amp="bf16"))


@pytest.mark.parametrize(
    ("levers", "free", "auto", "sizes"),
    [
        ("free", True, False, None),
        ("none", False, False, None),
        ("auto", False, True, (6,)),
        ("half_upsample", False, False, None),
    ],
)
def test_levers_reach_the_probe(card, monkeypatch, levers, free, auto, sizes):
    asked = []

    def answer(job, request):
        asked.append(request)
        return fit_on(card)(job, replace(request, choose_levers=False, free_levers=False)), None

    monkeypatch.setattr(planning, "fit_or_recall", answer)
    options = RunOptions(batch_size=6, levers=levers)
    decision = decide(replace(JOB, levers=options.named_levers), options, CUDA, Ranks(), samples=28, effective=6)
    assert (asked[0].free_levers, asked[0].choose_levers, asked[0].batch_sizes) == (free, auto, sizes)
    said = [note for note in decision.notes if note.startswith("Levers of the plan")]
    assert len(said) == len(options.named_levers)


def test_levers_that_make_no_sense_are_refused_before_data_is_loaded():
    with pytest.raises(UsageError, match="not a lever"):
        RunOptions(levers="magic")
    with pytest.raises(UsageError, match="--profile has the levers"):
        RunOptions(levers="none", profile="rtx3070ti-768")
