"""Trials in a child process: a poisoned context, a kill or a leak costs one trial, and the parent holds no CUDA memory.

The child is spawned, so it imports the job afresh: a `Job` that pickles, or an importable function that returns one.
A job that does neither runs in this process instead, and its trial says so.
"""

import pickle
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from vramfit.errors import VramfitError
from vramfit.jobs.job import Job
from vramfit.records import Budget, Trial, Verdict

JobSource = Job | Callable[[], Job]
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class TrialRequest:
    """What one trial is asked: a size, the budget it runs under, and the card."""

    micro_batch: int
    budget: Budget
    device_index: int = 0
    last_batch: int | None = None


Runner = Callable[[Job, TrialRequest], Trial]


class _NotImportable(Exception):
    """The child could not take the job over."""


def run_on_card(job: Job, request: TrialRequest) -> Trial:
    """Run one trial on a CUDA card, in this process."""
    from vramfit.measure.device import local_device
    from vramfit.measure.memory import CudaMemory
    from vramfit.measure.trial import run_trial

    device = local_device(request.device_index)
    budget = request.budget
    taken = budget.driver_bytes + budget.other_processes_bytes
    dedicated = budget.total_bytes - taken if device.can_spill else None
    return run_trial(
        job,
        request.micro_batch,
        request.budget,
        CudaMemory(device),
        last_batch=request.last_batch,
        total_bytes=dedicated,
    )


def measure_trial(
    job: JobSource,
    micro_batch: int,
    budget: Budget,
    *,
    device_index: int = 0,
    last_batch: int | None = None,
    timeout_s: float = TIMEOUT_S,
    runner: Runner = run_on_card,
) -> Trial:
    """Try one micro-batch in a child process.

    A child that is killed or does not end in time is a failed trial. `runner` is what the child does.

    Raises:
        VramfitError: the job itself failed, for another reason than memory.

    """
    request = TrialRequest(micro_batch, budget, device_index, last_batch)
    try:
        return _in_child(_pack((job, runner, request)), request, timeout_s)
    except _NotImportable as error:
        reason = str(error)
    trial = runner(_build(job), request)
    said = f"ran in this process, for the job cannot be handed to a child ({reason})"
    return trial.model_copy(update={"note": "; ".join(part for part in (trial.note, said) if part)})


def _pack(parts: tuple[JobSource, Runner, TrialRequest]) -> bytes:
    try:
        return pickle.dumps(parts)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise _NotImportable((str(error).strip().splitlines() or [type(error).__name__])[-1]) from None


def _in_child(payload: bytes, request: TrialRequest, timeout_s: float) -> Trial:
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_serve, args=(theirs, payload), name="vramfit-trial", daemon=True)
    child.start()
    theirs.close()
    try:
        return _await(child, ours, request, timeout_s)
    finally:
        ours.close()
        child.kill()
        child.join()


def _await(child: SpawnProcess, ours: Connection, request: TrialRequest, timeout_s: float) -> Trial:
    ready, answer = _receive(ours, timeout_s)
    if ready == "not importable":
        raise _NotImportable(answer)
    if ready is None and answer == "ended":
        child.join()
        raise _NotImportable(f"the child ended with exit code {child.exitcode} before it had the job")
    kind, answer = _receive(ours, timeout_s) if ready == "ready" else (ready, answer)
    if kind == "trial":
        assert isinstance(answer, Trial)
        return answer
    if kind == "error":
        raise VramfitError(str(answer))
    return _failed(request, _how_it_ended(child, str(answer), timeout_s))


def _receive(ours: Connection, timeout_s: float) -> tuple[str | None, Any]:
    """The child's next message, or None and why there is none."""
    try:
        if not ours.poll(timeout_s):
            return None, "late"
        kind, answer = ours.recv()
    except (EOFError, OSError):
        return None, "ended"
    return str(kind), answer


def _how_it_ended(child: SpawnProcess, answer: str, timeout_s: float) -> str:
    if answer == "late":
        return f"stopped after {timeout_s:.0f} s without an end"
    child.join()
    code = child.exitcode or 0
    return f"its process was killed (signal {-code})" if code < 0 else f"its process ended with exit code {code}"


def _failed(request: TrialRequest, note: str) -> Trial:
    return Trial(
        source="measured",
        micro_batch=request.micro_batch,
        verdict=Verdict.FAILED,
        budget_bytes=request.budget.budget_bytes,
        note=note,
    )


def _serve(theirs: Connection, payload: bytes) -> None:
    """What the child does: take the job over, say so, run the trial, send it back."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        job, runner, request = pickle.loads(payload)
    except Exception as error:
        theirs.send(("not importable", f"{type(error).__name__}: {error}"))
        return
    theirs.send(("ready", None))
    try:
        theirs.send(("trial", runner(_build(job), request)))
    except VramfitError as error:
        theirs.send(("error", str(error)))


def _build(job: JobSource) -> Job:
    return job if isinstance(job, Job) else job()
