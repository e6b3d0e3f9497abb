"""How a benchmark ends: its result, with versions and date, in benchmarks/results and on the terminal."""

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import torch

from vramfit.files import write_atomically

RESULTS = Path(__file__).resolve().parent / "results"


def end(name: str, result: dict[str, Any], began: float, *, sound: bool) -> NoReturn:
    """Write `results/NAME.json`, print it, and exit with 0 if what it was to show is so.

    `began` is `time.perf_counter()` at the start.
    """
    whole = {
        **result,
        "torch": torch.__version__,
        "platform": platform.platform(terse=True),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.perf_counter() - began, 1),
    }
    text = json.dumps(whole, indent=2) + "\n"
    write_atomically(RESULTS / f"{name}.json", text)
    print(text, end="")
    sys.exit(0 if sound else 1)
