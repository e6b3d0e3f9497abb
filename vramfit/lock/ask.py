"""From a question of a lock file to what the code of today takes."""

import torch

from vramfit._version import __version__
from vramfit.cards import find_card
from vramfit.jobs.job import Job
from vramfit.lock.lock_file import LockedJob, Question
from vramfit.prediction.phase_peaks import phase_peaks
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.trace import trace_step


def trace_of_job(job: Job, gpu: str, batch_size: int) -> Trace:
    """Two optimizer steps of a job, and a validation step, at one batch, with the kernels of a card.

    Raises:
        UnknownCard: no such card.
        NotTraceable: the step cannot run on storage-less tensors.

    """
    return trace_step(job, batch_size, capability=find_card(gpu).compute_capability)


def locked(question: Question, trace: Trace) -> LockedJob:
    """The answer to a question, modules by their full names."""
    return LockedJob(question=question, torch=torch.__version__, vramfit=__version__, phases=phase_peaks(trace))
