"""Predictions of other tools and of vramfit on the same measured runs in half precision, as one table.

    python benchmarks/peers_prediction.py --cache FOLDER --environment FOLDER

The peers, pinned below, are installed from PyPI without their dependencies into an environment of their own, which the
script makes with venv; torch, torchvision, transformers and what else they need are those that run the script. Every
figure is compared with what NVML showed less what the driver keeps (of AutoBatch's rows: with what was reserved).
Ours is held out by family (`half_precision.py`), the others have nothing that is fitted to these rows that we know of.
"""

import argparse
import json
import subprocess
import sys
import sysconfig
import venv
from collections import defaultdict
from pathlib import Path
from typing import Any

import half_precision
import numpy as np
from calibration_traces import DEFAULT_CACHE
from ending import keep
from half_precision_rows import HalfRow, half_rows
from peers_prediction_worker import BATCHES, PEERS

PINNED = ("torch-kitsune==0.7.0", "torch-preflight==0.5.0", "libcst==1.9.0", "vram-check==0.1.1")
OURS = "vramfit, held out"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="folder of the traces")
    parser.add_argument("--environment", type=Path, default=DEFAULT_CACHE / "peers", help="where the peers live")
    options = parser.parse_args()
    rows = [row for row in half_rows() if row.fair]
    said, failed = _ask(_environment(options.environment))
    relative = {name: _relative(rows, said[name]) for name in PEERS}
    relative[OURS] = {(one.peaks.row): _ours(one) for one in half_precision.held_out(options.cache)}
    table = {name: _errors(len(rows), errors) for name, errors in relative.items()}
    keep("peers_prediction", {"rows": len(rows), "peers": table, "failed": failed})
    for line in _markdown(table):
        print(line)


def _environment(folder: Path) -> Path:
    """The interpreter of an environment that has the peers and sees this one's packages."""
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *PINNED], check=True)
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    mine = [path for path in sys.path if path.endswith("site-packages")] or [sysconfig.get_path("purelib")]
    (Path(site) / "callers.pth").write_text("\n".join(mine) + "\n", encoding="utf-8")
    return python


def _ask(python: Path) -> tuple[dict[str, dict[tuple[str, str], list[float]]], dict[str, dict[str, str]]]:
    """What each peer says of each job at two batches, and why it said nothing of the others."""
    worker = Path(__file__).with_name("peers_prediction_worker.py")
    done = subprocess.run([python, worker], check=True, stdout=subprocess.PIPE, text=True)
    said: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(dict)
    failed: dict[str, dict[str, str]] = defaultdict(dict)
    for line in done.stdout.splitlines():
        answer: dict[str, Any] = json.loads(line)
        if "bytes" in answer:
            said[answer["peer"]][answer["key"], answer["gpu"]] = answer["bytes"]
        else:
            failed[answer["peer"]][f"{answer['key']} on {answer['gpu']}"] = answer["error"]
    return said, failed


def _relative(rows: list[HalfRow], said: dict[tuple[str, str], list[float]]) -> dict[HalfRow, float]:
    """Predicted over measured, less one, of the rows that a peer said something of."""
    found = {}
    for row in rows:
        if (row.key, row.gpu) in said:
            small, large = said[row.key, row.gpu]
            slope = (large - small) / (BATCHES[1] - BATCHES[0])
            found[row] = (small + slope * (row.batch - BATCHES[0])) / _measured(row) - 1
    return found


def _measured(row: HalfRow) -> float:
    return row.measured_bytes - (0 if row.reserved else row.driver_bytes)


def _ours(one: half_precision.Residual) -> float:
    row = one.peaks.row
    return (one.predicted - (0 if row.reserved else row.driver_bytes)) / _measured(row) - 1


def _errors(rows: int, relative: dict[HalfRow, float]) -> dict[str, float]:
    errors = np.array(list(relative.values()))
    if not len(errors):
        return {"answered": 0.0}
    return {
        "answered": round(len(errors) / rows, 4),
        "median": round(float(np.median(np.abs(errors))), 4),
        "p90": round(float(np.quantile(np.abs(errors), 0.9)), 4),
        "bias": round(float(np.median(errors)), 4),
        "within_10_percent": round(float(np.mean(np.abs(errors) <= 0.1)), 4),
        "too_low": round(float(np.mean(errors < -0.05)), 4),
    }


def _markdown(table: dict[str, dict[str, float]]) -> list[str]:
    lines = [
        "| predictor | rows answered | error, median | 90th percentile | bias | within 10 % | over 5 % too low |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in table.items():
        if one["answered"]:
            figures = [f"{100 * one[key]:.3g} %" for key in ("median", "p90", "bias", "within_10_percent", "too_low")]
            lines.append(f"| {name} | {100 * one['answered']:.0f} % | " + " | ".join(figures) + " |")
    return lines


if __name__ == "__main__":
    main()
