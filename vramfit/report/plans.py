"""Several plans of one question, such as one an image size or card: why each was chosen, and what to keep in mind."""

from collections.abc import Sequence

from vramfit.records import Profile
from vramfit.report.table import plan_sentence, remarks


def plan_sentences(plans: Sequence[tuple[str, Profile]]) -> list[str]:
    """One line a case: its plan and the reason for it."""
    return [plan_sentence(profile).replace("Plan:", f"Plan for {case}:", 1) for case, profile in plans]


def shared_remarks(plans: Sequence[tuple[str, Profile]]) -> list[str]:
    """What to keep in mind, each remark once: first those of some cases, which they name, then those of all."""
    cases_of: dict[str, list[str]] = {}
    for case, profile in plans:
        for remark in remarks(profile):
            cases_of.setdefault(remark, []).append(case)
    of_some = [f"{', '.join(cases)}: {remark}" for remark, cases in cases_of.items() if len(cases) < len(plans)]
    return of_some + [remark for remark, cases in cases_of.items() if len(cases) == len(plans)]
