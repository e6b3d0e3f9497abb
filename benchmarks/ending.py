"""How a benchmark ends: its result, with hardware, versions and date, in benchmarks/results and on the terminal."""

import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

from vramfit._version import __version__
from vramfit.files import write_atomically

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("torch", "timm", "numpy")
LIBRARIES = ("torch", "torchvision", "timm", "transformers", "diffusers", "peft", "monai")


def keep(name: str, result: Mapping[str, Any], *, packages: tuple[str, ...] = PACKAGES) -> None:
    """Write `results/NAME.json` with what it was made on, and print it."""
    text = json.dumps({**result, **machine(packages)}, indent=2) + "\n"
    write_atomically(RESULTS / f"{name}.json", text)
    print(text, end="")


def end(name: str, result: Mapping[str, Any], began: float, *, sound: bool) -> NoReturn:
    """Keep a result, and exit with 0 if what it was to show is so.

    `began` is `time.perf_counter()` at the start.
    """
    keep(name, {**result, "seconds": round(time.perf_counter() - began, 1)})
    sys.exit(0 if sound else 1)


def machine(packages: tuple[str, ...] = PACKAGES) -> dict[str, Any]:
    """Processor, cores, system, versions and date."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "platform": platform.platform(terse=True),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "date": time.strftime("%Y-%m-%d"),
    }


def versions(packages: tuple[str, ...] = LIBRARIES) -> dict[str, str]:
    """Of vramfit, Python, and the packages that are here."""
    found = {name: _version(name) for name in packages}
    here = {name: known for name, known in found.items() if known is not None}
    return {"vramfit": __version__, "python": platform.python_version(), **here}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
