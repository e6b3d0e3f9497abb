"""`vramfit probe --slurm`: what to ask a cluster for."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramfit.cli.probe_request import Case
    from vramfit.jobs.job import Job
    from vramfit.records import Profile, Schedule, Trial


def slurm_sentences(plans: "Iterable[tuple[Job, str, Trial]]", schedule: "Schedule") -> list[str]:
    """A line for each job, card and the trial that is planned there, and what to check of them.

    The time is that of the trial's slowest step of its band, over the whole run.
    """
    from vramfit.measure.host import WORKERS, run_host_bytes
    from vramfit.report.slurm import slurm_line, slurm_remark

    lines = []
    for job, card, trial in plans:
        slowest = trial.step_time_band_s[1] if trial.step_time_band_s else trial.step_time_s
        known = slowest if not schedule.assumed else None
        run_s = None if known is None else schedule.epochs * schedule.epoch_time_s(trial.micro_batch / known)
        lines.append(slurm_line(_known(card), run_host_bytes(job, trial.micro_batch), run_s))
    return [*dict.fromkeys(lines), slurm_remark(WORKERS)]


def slurm_of_plans(results: "Sequence[tuple[Case, Profile]]") -> list[str]:
    """What to ask a cluster for, of each plan."""
    planned = [
        (case.job(), profile.machine.card or "gpu", trial)
        for case, profile in results
        if (trial := profile.trial(profile.plan.micro_batch)) is not None
    ]
    return slurm_sentences(planned, results[0][1].schedule)


def _known(card: str) -> str:
    """A driver's name as the table of cards has it; as it is where the table has none, or several."""
    from vramfit.cards import find_card
    from vramfit.errors import UnknownCard

    try:
        return find_card(card).name
    except UnknownCard:
        return card
