"""Write the shipped profiles anew, and the tables of docs/ that quote them: one command after a change of predictions.

    python scripts/make_profiles.py            # some three minutes of processor time
    python scripts/make_profiles.py --tables   # the tables alone, from the profiles as they are

Each profile is as `vramfit probe --gpu CARD --image-size N --effective-batch B` makes it, with the levers that cost no
time. They are predictions, and say so; `vramfit train --profile` proves one by a trial on the real card before it is
used. Some of their owners train on Windows, whose allocator lacks one of those levers: a note of the profile says what
is predicted there, and training tries what fits without it.
"""

import argparse
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from vramfit.cli.main import main as vramfit
from vramfit.files import write_atomically
from vramfit.jobs.levers.registry import kind_of
from vramfit.jobs.levers.text import describe_levers, short_levers
from vramfit.landmarks.report.guide import PROMISED
from vramfit.records import Profile, Trial
from vramfit.report.table import device_cell, epoch_cell, plan_sentence
from vramfit.units import format_size

REPOSITORY = Path(__file__).resolve().parents[1]
PROFILES = REPOSITORY / "profiles"
CARDS = ("rtx3070ti",)
# The effective batch for each image size: that of the guide whose owners these profiles serve, or near it.
EFFECTIVE_BATCHES = {256: 8, 512: 6, 768: 6, 1024: 6}
GUIDE, LEVERS = REPOSITORY / "docs" / "guide.fa.md", REPOSITORY / "docs" / "levers.md"
EPOCHS = 200
# The tables of the Persian guide by their names: image sizes and batches of the old guide.
GUIDE_TABLES = {"batches": {768: (6, 5, 4, 3, 2, 1)}, "sizes": {256: (8,), 512: (6,), 1024: (1,)}}


def main() -> None:
    """The profiles, and then the tables; stops at the first probe that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="write the tables alone")
    if not parser.parse_args().tables:
        for card in CARDS:
            for size, batch in EFFECTIVE_BATCHES.items():
                make(card, size, batch)
        write_table(LEVERS, "free-levers", free_lever_rows())
    for name, batches in GUIDE_TABLES.items():
        write_table(GUIDE, name, guide_rows(batches))


def make(card: str, size: int, effective_batch: int) -> None:
    """Probe one image size on one card and write its profile."""
    asked = ("--gpu", card, "--image-size", str(size), "--effective-batch", str(effective_batch))
    profile = probed(*asked)
    notes = (*profile.notes, *windows_notes(profile, asked))
    # How fast the machine that predicts would load films says nothing of the machine that will train.
    schedule = profile.schedule.model_copy(update={"loading": None})
    profile = profile.model_copy(update={"schedule": schedule, "notes": notes})
    write_atomically(PROFILES / f"{card}-{size}.json", profile.to_json())


def probed(*words: str) -> Profile:
    """What `vramfit probe` with some options finds."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "profile.json"
        try:
            vramfit(["probe", *words, "--export", str(file)])
        except SystemExit as stop:
            if stop.code:
                raise
        return Profile.from_json(file.read_text(encoding="utf-8"), where=file)


def windows_notes(profile: Profile, asked: Iterable[str]) -> tuple[str, ...]:
    """What is predicted for Windows, where it knows fewer of the plan's levers; nothing where it knows all."""
    missing = [lever for lever in profile.plan.levers if "win32" in kind_of(lever.name).missing_on]
    if not missing:
        return ()
    kept = [lever for lever in profile.plan.levers if lever not in missing]
    other = probed(*asked, "--levers", describe_levers(kept))
    trial = planned(other)
    return (
        f"The plan assumes {short_levers(missing)}, which PyTorch does not have on Windows. Predicted there: "
        f"{plan_sentence(other).removeprefix('Plan: ').split('. ')[0].removesuffix('.')}, {device_cell(trial)} GiB; "
        "`train --profile` proves what fits by a trial.",
    )


def guide_rows(batches: dict[int, tuple[int, ...]]) -> list[str]:
    """What the old guide promised and what the profiles predict, a row for each size and batch."""
    rows = []
    for size, tried in batches.items():
        profile = shipped(size)
        for batch in tried:
            memory, hours = PROMISED[size, batch]
            first = [str(batch)] if size == 768 else [f"{size}×{size}", str(batch)]
            trial = trial_of(profile, batch)
            rows.append(row(*first, memory, hours, device_cell(trial), epoch_cell(trial, profile.schedule, EPOCHS)))
    return rows


def free_lever_rows() -> list[str]:
    """What the free levers change for the reference job: without them, and with them."""
    plain, free = probed("--gpu", CARDS[0], "--levers", "none"), probed("--gpu", CARDS[0])
    both = (plain, free)
    return [
        row("levers", *(", ".join(f"`{lever.name}`" for lever in one.plan.levers) or "none" for one in both)),
        row("largest batch that is sure to fit", *(str(largest(one)) for one in both)),
        row("plan", *(f"batch {one.plan.micro_batch}" for one in both)),
        row("device memory of the plan, margin", *(margin(planned(one)) for one in both)),
        row("batch 6", *(margin(trial_of(one, 6)) for one in both)),
        row("time of an epoch with the plan", *(times(one, 1) for one in both)),
        row(f"{EPOCHS} epochs", *(times(one, EPOCHS) for one in both)),
    ]


def times(profile: Profile, epochs: int) -> str:
    """How long so many epochs with the plan take."""
    return epoch_cell(planned(profile), profile.schedule.model_copy(update={"loading": None}), epochs)


def largest(profile: Profile) -> int:
    """The largest micro-batch whose band is within the budget."""
    return max(trial.micro_batch for trial in profile.trials if trial.verdict == "fits")


def margin(trial: Trial) -> str:
    """The middle of the band, and what it leaves of the budget or lacks."""
    used, spare = trial.device_used_bytes or 0, trial.headroom_bytes or 0
    return f"{format_size(used)}: {format_size(abs(spare))} {'to spare' if spare >= 0 else 'too much'}"


def planned(profile: Profile) -> Trial:
    """The trial of the plan."""
    return trial_of(profile, profile.plan.micro_batch)


def trial_of(profile: Profile, batch: int) -> Trial:
    """The trial of one micro-batch."""
    trial = profile.trial(batch)
    if trial is None:
        raise SystemExit(f"batch {batch} of {profile.job.image_size} was not tried")
    return trial


def shipped(size: int) -> Profile:
    """The profile of one size, as it lies in the repository."""
    file = PROFILES / f"{CARDS[0]}-{size}.json"
    return Profile.from_json(file.read_text(encoding="utf-8"), where=file)


def row(*cells: str) -> str:
    """One row of a table of Markdown."""
    return f"| {' | '.join(cells)} |"


def write_table(page: Path, name: str, rows: list[str]) -> None:
    """Put rows in place of those that follow the head of the table marked `<!-- profiles: NAME -->`."""
    text = page.read_text(encoding="utf-8")
    table = re.compile(rf"(<!-- profiles: {name} -->\n\n\|.*\n\|[-|]+\n)(?:\|.*\n)*")
    if not table.search(text):
        raise SystemExit(f"{page} has no table marked {name}")
    write_atomically(page, table.sub(lambda found: found[1] + "".join(f"{one}\n" for one in rows), text))


if __name__ == "__main__":
    main()
