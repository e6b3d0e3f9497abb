"""Does a prediction ever say "fits" of a step that takes more? Random networks and losses against real CPU tensors.

Each job of `random_jobs` is predicted at one micro-batch, and the largest that fits is searched for in a budget that is
the high end of the band at twice that. Then its steps run for real on the CPU, in a loop of their own (`cpu_peaks`), at
that micro-batch and at the largest that was said to fit. A wrong "fits" is one whose real tensors take more than the
trial's band. The band of small jobs is wide, for it holds workspaces that a CPU has not; so the tensors are compared
too: what was predicted of them before any rounding and workspace, against what lived.

Nothing was tuned on these jobs. float32; kernels that differ between a CPU and a card are not drawn.

    python benchmarks/adversarial.py [--jobs N] [--first SEED]
"""

import argparse
import json
import platform
import time
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from cpu_peaks import true_peak_bytes
from random_jobs import Drawn, draw

from vramfit._version import __version__
from vramfit.cards import find_card
from vramfit.errors import VramfitError
from vramfit.files import write_atomically
from vramfit.prediction.predict import Predictor, card_budget
from vramfit.records import Budget, Verdict

RESULTS = Path(__file__).resolve().parent / "results" / "adversarial.json"
CARD = "rtx3090"


@dataclass(frozen=True)
class Compared:
    """One micro-batch of one job, bytes: what was predicted of its tensors and of the card, and what was true."""

    seed: int
    parts: tuple[str, ...]
    micro_batch: int
    is_largest: bool
    predicted_bytes: int
    true_bytes: int
    claimed_bytes: int
    is_wrong_fit: bool

    @property
    def error(self) -> float:
        """Predicted against true tensors, as a share."""
        return self.predicted_bytes / self.true_bytes - 1


def compare(seed: int) -> list[Compared]:
    """The job of a seed at its own micro-batch, and at the largest that is said to fit its budget.

    Raises:
        VramfitError: the job is refused.

    """
    drawn, card = draw(seed), find_card(CARD)
    plain = Predictor(drawn.job, card, card_budget(card))
    twice = plain.trial(2 * drawn.micro_batch)
    high = (twice.device_used_band_bytes or (0, 0))[1]
    small = Predictor(drawn.job, card, Budget(total_bytes=high, context_bytes=twice.context_bytes or 0))
    largest = small.largest_that_fits(3 * drawn.micro_batch)
    found = [_compared(seed, drawn, plain, drawn.micro_batch, is_largest=False)]
    if largest and largest != drawn.micro_batch:
        found.append(_compared(seed, drawn, small, largest, is_largest=True))
    return found


def _compared(seed: int, drawn: Drawn, predictor: Predictor, micro_batch: int, *, is_largest: bool) -> Compared:
    trial = predictor.trial(micro_batch)
    true = true_peak_bytes(drawn.job, micro_batch)
    band = trial.device_used_band_bytes or (0, 0)
    claimed = band[1] - (trial.context_bytes or 0)
    return Compared(
        seed=seed,
        parts=drawn.parts,
        micro_batch=micro_batch,
        is_largest=is_largest,
        predicted_bytes=predictor.rehearsal(micro_batch).peak_bytes,
        true_bytes=true,
        claimed_bytes=claimed,
        is_wrong_fit=trial.verdict is Verdict.FITS and true > claimed,
    )


def summary(found: list[Compared], refused: Counter[str], seconds: float) -> dict[str, Any]:
    """The figures that are claimed, and every row that is off by more than one in a hundred."""
    errors = sorted(abs(row.error) for row in found)
    off = [row for row in found if abs(row.error) > 0.01]
    return {
        "made": datetime.now(UTC).replace(microsecond=0).isoformat(),
        "versions": {"vramfit": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": f"CPU {platform.machine()}, {torch.get_num_threads()} threads",
        "card_predicted": CARD,
        "seconds": round(seconds),
        "jobs": len({row.seed for row in found}),
        "comparisons": len(found),
        "largest_batches": sum(row.is_largest for row in found),
        "refused": dict(refused),
        "wrong_fits": sum(row.is_wrong_fit for row in found),
        "tensors": {
            "exact": sum(row.predicted_bytes == row.true_bytes for row in found),
            "within_0.1_percent": sum(error <= 0.001 for error in errors),
            "within_1_percent": sum(error <= 0.01 for error in errors),
            "within_5_percent": sum(error <= 0.05 for error in errors),
            "below_by_more_than_5_percent": sum(row.error < -0.05 for row in found),
            "median_percent": round(100 * median(errors), 4),
            "p90_percent": round(100 * quantiles(errors, n=10)[-1], 4),
            "lowest_percent": round(100 * min(row.error for row in found), 3),
            "highest_percent": round(100 * max(row.error for row in found), 3),
        },
        "off_by_more_than_1_percent": [{**asdict(row), "error_percent": round(100 * row.error, 2)} for row in off],
    }


def main() -> None:
    """Compare, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    found: list[Compared] = []
    refused: Counter[str] = Counter()
    begin = time.perf_counter()
    for seed in range(asked.first, asked.first + asked.jobs):
        try:
            found += compare(seed)
        except VramfitError as error:
            refused[str(error)[:300]] += 1
            print(seed, draw(seed).parts, "refused:", error, flush=True)
        for row in found[-2:]:
            if row.seed == seed and abs(row.error) > 0.01:
                print(seed, row.micro_batch, row.parts, f"{100 * row.error:+.2f} %", row.is_wrong_fit, flush=True)
    said = summary(found, refused, time.perf_counter() - begin)
    write_atomically(asked.out, json.dumps(said, indent=1) + "\n")
    print(json.dumps({key: value for key, value in said.items() if key != "off_by_more_than_1_percent"}, indent=1))


if __name__ == "__main__":
    main()
