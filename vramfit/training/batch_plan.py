"""What to train with: every run is checked against its card before it begins."""

from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch

from vramfit.cards import find_card, require_bf16
from vramfit.choices import AUTO, FREE
from vramfit.errors import NoUsableGpu, UsageError
from vramfit.jobs.job import Job, job_key
from vramfit.jobs.levers.apply import available
from vramfit.jobs.levers.text import levers_sentence, short_levers
from vramfit.jobs.optimizers import learning_rate
from vramfit.jobs.ranks import Ranks
from vramfit.measure.budget import read_budget, who_took
from vramfit.measure.device import Device, local_device
from vramfit.measure.machine import read_machine
from vramfit.plan.choose import divide_batch, division_note, learning_rate_offer
from vramfit.plan.reuse import judge_reuse
from vramfit.probe.fit import run_probe
from vramfit.probe.recall import fit_or_recall
from vramfit.probe.request import ProbeRequest
from vramfit.records import Budget, Lever, Plan, Profile, Schedule
from vramfit.shipped import load_profile
from vramfit.training.run_options import DeviceChoice, RunOptions
from vramfit.units import format_size

DEFAULT_BATCH = 6


@dataclass(frozen=True)
class Decision:
    """The batch of a run, the profile behind it, the sentences that say why, and the levers, the same on all ranks."""

    effective_batch: int
    micro_batch: int
    profile: Profile | None = None
    notes: tuple[str, ...] = ()
    levers: tuple[Lever, ...] = ()


def choose_device(choice: DeviceChoice, ranks: Ranks) -> torch.device:
    """The device of this rank.

    Raises:
        NoUsableGpu: `--device cuda` without one.

    """
    if choice == "cpu" or (choice == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    try:
        card = local_device(ranks.local_rank)
    except NoUsableGpu as error:
        if choice == "auto":
            raise
        reason = str(error).removesuffix(".")
        raise NoUsableGpu(f"--device cuda: {reason}, or train with --device cpu.") from None
    # CUDA itself starts later: while trials are measured, this process is to hold no memory of the card.
    return torch.device("cuda", card.index)


def _require_native_bf16(job: Job, options: RunOptions, device: torch.device) -> None:
    """Refuse bf16 on a card, here or planned for, that only emulates it, unless it is insisted on."""
    if options.gpu is not None:
        planned = find_card(options.gpu)
        require_bf16(planned.name, planned.compute_capability, job.amp, insisted=options.emulated_bf16)
    if device.type == "cuda":
        card = local_device(device.index or 0)
        if card.compute_capability is not None:
            require_bf16(card.name, card.compute_capability, job.amp, insisted=options.emulated_bf16)


def decide(
    job: Job, options: RunOptions, device: torch.device, ranks: Ranks, *, samples: int, effective: int | None
) -> Decision:
    """Choose the micro-batch; `effective` is the effective batch asked for, None to choose it too.

    Raises:
        NothingFits: not even a micro-batch of 1 fits.
        ProfileError: the profile is of another job or a larger card.
        UsageError: options that make no sense together, or bf16 for a card that only emulates it.

    """
    _require_native_bf16(job, options, device)
    schedule = Schedule(images=samples, epochs=options.epochs)
    if options.profile is not None:
        decision = _from_profile(job, options, device, schedule, effective=effective, ranks=ranks)
    elif device.type == "cpu" and options.gpu is None:
        decision = _without_card(options, effective, ranks)
    else:
        decision = _from_probe(job, options, schedule, effective, ranks)
    decision = _over_ranks(decision, ranks)
    # A rank without a profile of its own, not the first of its node, takes what the first of all found.
    levers = ranks.gather(decision.profile.plan.levers if decision.profile else job.levers)[0]
    decision = replace(decision, levers=levers)
    return replace(decision, notes=(*decision.notes, *_compile_notes(options, device)))


def _without_card(options: RunOptions, effective: int | None, ranks: Ranks) -> Decision:
    effective = effective or DEFAULT_BATCH
    note = "A CPU has no VRAM limit: the batch was not checked" + (
        f", and --auto-batch has nothing to find; the batch is {effective}." if options.auto_batch else "."
    )
    return Decision(effective, -(-effective // ranks.world_size), notes=(note,))


def _from_probe(job: Job, options: RunOptions, schedule: Schedule, effective: int | None, ranks: Ranks) -> Decision:
    wanted = effective or (None if options.auto_batch else DEFAULT_BATCH)
    each = None if wanted is None else -(-wanted // ranks.world_size)
    # One probe a node: its other ranks, on cards of the same kind, take what it found.
    profile, said = _probe(job, options, schedule, each) if ranks.local_rank == 0 else (None, None)
    micro_batch = ranks.minimum(profile.plan.micro_batch if profile else samples_limit(schedule))
    chosen = wanted or micro_batch * ranks.world_size
    notes = (*(_notes(profile.plan) if profile else ()), *([said] if said else []))
    offer = learning_rate_offer(learning_rate(job.optimizer), DEFAULT_BATCH, chosen) if options.auto_batch else None
    return Decision(chosen, micro_batch, profile, (*notes, *([offer] if offer else [])))


def _notes(plan: Plan) -> tuple[str, ...]:
    """Why this plan; how this rank's share is divided is left out, for `_over_ranks` tells of the whole batch."""
    levers = [levers_sentence(plan.levers)] if plan.levers else []
    return (plan.reason, *levers, *(note for note in plan.notes if note != division_note(plan)))


def samples_limit(schedule: Schedule) -> int:
    """A micro-batch that no run exceeds: all its samples at once."""
    return schedule.images


def _probe(job: Job, options: RunOptions, schedule: Schedule, effective: int | None) -> tuple[Profile, str | None]:
    request = ProbeRequest(
        limits=options.limits,
        gpu=options.gpu,
        # A batch that is asked for is split only where it does not fit, whatever would be faster.
        objective="fastest" if effective is None else "largest",
        # A batch that levers are to make fit is wanted at once, not in parts.
        batch_sizes=(effective,) if effective is not None and options.levers == AUTO else None,
        effective_batch=effective,
        schedule=schedule,
        choose_levers=options.levers == AUTO,
        free_levers=options.levers == FREE,
        fresh=options.fresh,
    )
    return fit_or_recall(job, request)


def _from_profile(
    job: Job,
    options: RunOptions,
    device: torch.device,
    schedule: Schedule,
    *,
    effective: int | None,
    ranks: Ranks,
) -> Decision:
    profile = load_profile(options.profile or "")
    card = local_device(device.index or 0) if device.type == "cuda" else None
    plan = profile.plan
    # A lever that this machine does not know makes no other job: a trial tells what becomes of the plan.
    key = job_key(replace(job, levers=plan.levers))
    reuse = judge_reuse(profile, key, read_machine(card), card.total_bytes if card else None)
    notes = (plan.reason, *_lever_notes(plan.levers), *reuse.reasons)
    decision = Decision(effective or plan.effective_batch, plan.micro_batch, profile, notes)
    # One trial a node, as with a probe: the others take what its first rank found.
    if card is None or ranks.local_rank != 0:
        return decision
    return _proved(decision, job, options, card, schedule, ranks=ranks, verify=reuse.verify)


def _lever_notes(levers: tuple[Lever, ...]) -> tuple[str, ...]:
    """The levers of a profile, and which of them this machine does not know."""
    missing = [lever for lever in levers if lever not in available(levers)]
    named = (f"Levers of the profile: {short_levers(levers)}.",) if levers else ()
    if not missing:
        return named
    return (*named, f"This system has no {short_levers(missing)}: what fits is tried without.")


def _proved(
    decision: Decision, job: Job, options: RunOptions, card: Device, schedule: Schedule, *, ranks: Ranks, verify: bool
) -> Decision:
    """The profile's decision where it holds now; a new one where less is free, or where a trial says otherwise."""
    profile = decision.profile
    assert profile is not None
    limits = options.limits.or_vram(profile.budget.requested_bytes)
    now = read_budget(card, limits)
    missing = len(available(profile.plan.levers)) < len(profile.plan.levers)
    if not verify and not missing and _still_fits(profile, decision.micro_batch, now):
        return decision
    taken = who_took(profile.budget, now, card.processes) if now.budget_bytes < profile.budget.budget_bytes else None
    request = ProbeRequest(
        limits=limits,
        # The profile's own batch first: where it holds, one trial is all. Smaller ones should it not.
        batch_sizes=tuple(range(decision.micro_batch, 0, -1)),
        effective_batch=-(-decision.effective_batch // ranks.world_size),
        schedule=schedule,
    )
    predicted = frozenset(lever.name for lever in job.levers) if profile.source == "predicted" else frozenset()
    proved = run_probe(job, request, predicted_levers=predicted)
    micro_batch = proved.plan.micro_batch
    verdict = "Proved by a trial" if micro_batch == decision.micro_batch else "Planned anew"
    note = f"{verdict}: micro-batch {micro_batch} within {format_size(now.budget_bytes)}."
    notes = (*decision.notes, *([taken] if taken else []), note)
    return replace(decision, micro_batch=micro_batch, profile=proved, notes=notes)


def _still_fits(profile: Profile, micro_batch: int, now: Budget) -> bool:
    trial = profile.trial(micro_batch)
    used = trial.device_used_bytes if trial else None
    return used is not None and used <= now.budget_bytes


def _compile_notes(options: RunOptions, device: torch.device) -> tuple[str, ...]:
    """What --compile means for the plan.

    Raises:
        UsageError: it needs Triton on a card, and there is none.

    """
    if not options.compile:
        return ()
    if device.type == "cuda" and find_spec("triton") is None:
        raise UsageError("--compile needs Triton on a card, and it is not installed here; leave --compile away.")
    return ("--compile changes what a step takes: the plan is for the network as it is.",)


def _over_ranks(decision: Decision, ranks: Ranks) -> Decision:
    """The smallest rank's plan for all, in as few and as even parts as fit; says so when that is a split."""
    micro_batch = ranks.minimum(decision.micro_batch)
    division = divide_batch(decision.effective_batch, micro_batch, ranks.world_size)
    if division.accumulation_steps == 1:
        return replace(decision, micro_batch=division.micro_batch)
    note = (
        f"Each step takes its {decision.effective_batch} images in {division.accumulation_steps} micro-batches of "
        f"{division.micro_batch} at most; the effective batch stays {decision.effective_batch}."
    )
    return replace(decision, micro_batch=division.micro_batch, notes=(*decision.notes, note))
