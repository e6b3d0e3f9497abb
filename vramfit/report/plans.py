"""Several plans of one question, such as one an image size or card: why each was chosen, and what to keep in mind."""

from collections.abc import Sequence

from vramfit.records import Profile
from vramfit.report.table import plan_sentence, remarks


def plan_sentences(plans: Sequence[tuple[str, Profile]]) -> list[str]:
    """One line a case: its plan and the reason for it."""
    return [plan_sentence(profile).replace("Plan:", f"Plan for {case}:", 1) for case, profile in plans]


def shared_remarks(plans: Sequence[tuple[str, Profile]]) -> list[str]:
    """What to keep in mind of the plans' own trials, each once: first that of some cases, which it names, then of all.

    The other trials stand in no table of several plans, so that nothing is said of them.
    """
    cases_of: dict[str, list[str]] = {}
    for case, profile in plans:
        shown = tuple(trial for trial in profile.trials if trial.micro_batch == profile.plan.micro_batch)
        for remark in remarks(profile.model_copy(update={"trials": shown})):
            cases_of.setdefault(remark, []).append(case)
    of_some = [f"{', '.join(cases)}: {remark}" for remark, cases in cases_of.items() if len(cases) < len(plans)]
    return of_some + [remark for remark, cases in cases_of.items() if len(cases) == len(plans)]
