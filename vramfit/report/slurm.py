"""The line of a Slurm script that asks for what a plan needs."""

import math
import re

from vramfit.units import GIB

_BOARDS = re.compile(r" (SXM\d?|PCIe|NVL|FHHL|\d+GB|\(\w+\)|with|Ada|Blackwell|Laptop)\b|\)")


def slurm_line(card: str, host_bytes: int, run_s: float | None = None) -> str:
    """`#SBATCH` with one card, main memory and, where it is known, a time: hours, rounded up.

    The type of a card is whatever a cluster calls it, often as here: `a100`, `rtx3090`, and a MIG instance's profile.

    >>> slurm_line("A100 SXM 80GB MIG 1g.10gb", 7 * 2**30, 5000)
    '#SBATCH --gres=gpu:1g.10gb:1 --mem=7G --time=2:00:00'
    """
    whole, _, profile = card.partition(" MIG ")
    kind = profile or _BOARDS.sub("", whole).replace(" ", "").lower()
    time = "" if run_s is None else f" --time={math.ceil(run_s / 3600)}:00:00"
    return f"#SBATCH --gres=gpu:{kind}:1 --mem={math.ceil(host_bytes / GIB)}G{time}"


def slurm_remark(workers: int) -> str:
    """What to check of such a line."""
    return (
        f"Slurm: types of cards are the cluster's own, see `sinfo -o %G`; the memory, for {workers} loading processes, "
        "is a rule of thumb, and the time the high end of its range."
    )
