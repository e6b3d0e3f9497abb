"""Probes that were made before on this machine: used again where nothing has changed, and never silently.

What was asked, the job, the card and the allocator's settings name the file that keeps a profile. Another driver or
torch, a job that is not vramfit's own, or a little less free memory is settled by one trial; more than that asks for a
new probe.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vramfit._version import __version__
from vramfit.errors import CannotWrite, ProfileError
from vramfit.files import user_cache_folder, write_atomically
from vramfit.jobs.job import Job, job_key
from vramfit.measure.backend import NOTABLE_BYTES
from vramfit.measure.budget import read_budget
from vramfit.measure.device import Device
from vramfit.measure.machine import read_machine
from vramfit.measure.worker import JobSource
from vramfit.plan.reuse import judge_reuse
from vramfit.probe.backend import card_here, open_backend
from vramfit.probe.fit import on_cards, run_probe, tell_nobody, with_free_levers, with_loading
from vramfit.probe.probe import OnTrial
from vramfit.probe.request import ProbeRequest
from vramfit.records import Budget, Profile, Verdict
from vramfit.units import format_size

# Of these the key tells all that memory depends on; the code of another job may change under the same names.
_OURS = ("landmark", "backbone")


def fit_or_recall(job: JobSource, request: ProbeRequest, on_trial: OnTrial = tell_nobody) -> tuple[Profile, str | None]:
    """The profile of a request, new or kept, and one sentence of which and why; None where nothing is measured or kept.

    Raises:
        As `fit` does.

    """
    if isinstance(job, Job):
        request = on_cards(request, job.cards)
    device = None if request.mode == "predict" or request.choose_levers else card_here(request)
    if device is None:
        return run_probe(job, request, on_trial), None
    built = job if isinstance(job, Job) else job()
    if request.free_levers:
        job = built = with_free_levers(built, request)
        request = replace(request, free_levers=False)
    recall = _Recall(job, built, request, device, on_trial)
    kept, sentence = (None, "Probed anew, as was asked.") if request.fresh else recall.profile()
    profile = kept or run_probe(job, request, on_trial)
    if kept is None:
        sentence += recall.keep(profile)
    return profile.model_copy(update={"notes": (sentence, *profile.notes)}), sentence


@dataclass
class _Recall:
    """One request to one card, and the file that keeps its answer."""

    source: JobSource
    job: Job
    request: ProbeRequest
    device: Device
    on_trial: OnTrial

    @property
    def file(self) -> Path:
        machine = read_machine(self.device)
        # A fresh probe, or one that had to measure, answers the same question.
        asked = replace(self.request, mode=ProbeRequest.mode, fresh=ProbeRequest.fresh)
        parts = (machine.card, self.device.total_bytes, machine.allocator_settings, job_key(self.job), asked)
        digest = hashlib.sha256(repr((parts, _described(self.job))).encode()).hexdigest()[:24]
        return user_cache_folder() / "profiles" / f"{digest}.json"

    def profile(self) -> tuple[Profile | None, str]:
        """The kept profile, where it holds, and why or why not."""
        if not self.file.is_file():
            return None, "Probed, for no earlier probe of this job on this card is kept."
        try:
            kept = Profile.from_json(self.file.read_text(encoding="utf-8"), where=self.file)
        except (ProfileError, OSError, UnicodeDecodeError) as error:
            return None, f"Probed anew, for the earlier probe cannot be read ({error})."
        made = f"{kept.created:%Y-%m-%d %H:%M} UTC"
        refusal, doubts = self._judge(kept)
        if refusal is not None:
            return None, f"Probed anew, for the probe of {made} does not hold: {refusal}"
        if not doubts:
            return (
                kept,
                f"The probe of {made} holds: same job, card, driver, torch and free memory (--fresh probes anew).",
            )
        return self._proved(kept, made, " ".join(doubts))

    def _judge(self, kept: Profile) -> tuple[str | None, list[str]]:
        """Why a profile cannot be used, if so, and the doubts that one trial settles."""
        now = read_budget(self.device, self.request.limits)
        # What the probe added, such as channels_last, is its answer and no other job.
        key = job_key(replace(self.job, levers=kept.plan.levers))
        try:
            reuse = judge_reuse(kept, key, read_machine(self.device), self.device.total_bytes)
        except ProfileError as error:
            return str(error), []
        shift = now.budget_bytes - kept.budget.budget_bytes
        if abs(shift) > NOTABLE_BYTES:
            return f"{format_size(abs(shift))} {'more' if shift > 0 else 'less'} is free than then.", []
        return None, [*reuse.reasons, *self._more_doubts(kept, now)]

    def _more_doubts(self, kept: Profile, now: Budget) -> list[str]:
        doubts = []
        if kept.vramfit_version != __version__:
            doubts.append(f"vramfit was {kept.vramfit_version} and is {__version__}.")
        if self.job.name not in _OURS:
            doubts.append("The job is not vramfit's own, and its code may have changed.")
        trial = kept.trial(kept.plan.micro_batch)
        if trial is None or (trial.device_used_bytes or 0) > now.budget_bytes:
            doubts.append("A little less is free than then.")
        return doubts

    def _proved(self, kept: Profile, made: str, doubts: str) -> tuple[Profile | None, str]:
        """The profile with one new trial, or None where that does not fit."""
        request = replace(with_loading(self.request, self.job), mode="measure")
        backend = open_backend(self.source, self.job, request)
        added = tuple(lever for lever in kept.plan.levers if lever not in self.job.levers)
        trial = backend.trial(kept.plan.micro_batch, added)
        self.on_trial(trial)
        if trial.verdict is not Verdict.FITS:
            verdict = trial.verdict.value.replace("_", " ")
            return None, f"Probed anew, for in a trial batch {trial.micro_batch} of the probe of {made} is {verdict}."
        others = [other for other in kept.trials if other.micro_batch != trial.micro_batch]
        proved = kept.model_copy(
            update={
                "machine": backend.machine,
                "vramfit_version": __version__,
                "trials": tuple(sorted([*others, trial], key=lambda one: one.micro_batch)),
            }
        )
        self.keep(proved)
        return proved, f"The probe of {made} holds, by one trial of batch {trial.micro_batch}: {doubts}"

    def keep(self, profile: Profile) -> str:
        """Keep a profile; what to add to the sentence where that fails, for no probe is lost over it."""
        try:
            write_atomically(self.file, profile.to_json())
        except CannotWrite as error:
            return f" It is not kept: {error}"
        return ""


def _described(job: Job) -> list[Any]:
    """What memory depends on beside the job's key: how the network is built, and what the step calls."""
    return [_name_of(job.model), *(_name_of(part)[0] for part in (job.loss, job.prepare, job.optimizer))]


def _name_of(function: Any) -> tuple[str, str]:
    """What a function is called, and the arguments that are bound to it."""
    bound = ""
    if isinstance(function, partial):
        function, bound = function.func, repr((function.args, sorted(function.keywords.items())))
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}", bound
