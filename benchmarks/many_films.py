"""Time and memory of a film set of 12 megapixels a film, by the number of its films: check, cache, epoch, evaluation.

    python benchmarks/many_films.py [--films 250 500 1000]

Generated heads, drawn 400 pixels high and enlarged to 4000x3000 JPEG, in 'Aariz layout. Each verb is a process of its
own:

    check     `vramfit data check`, which decodes every film
    cache     `vramfit train`, one epoch of hrnet_w18_small at 64x64 with the decoding of all films before it
    epoch     the same once the films are in the cache
    evaluate  `vramfit evaluate --split train`, from the cache

For each the processor's seconds (user and system, of all threads), the wall clock's, and the peak of resident memory.
Writes benchmarks/results/many_films.json; exits with 1 where the time a film of the largest set exceeds that of the
smallest by half, or memory grows by more than a twentieth of a decoded film for each film.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
from ending import end

from vramfit.landmarks.data.image import read_film
from vramfit.landmarks.sample.make import SampleMachine, make_sample

DRAWN, TIMES = 400, 10
MACHINE = SampleMachine("Benchmark Ceph", (300.0 * 0.75, 400.0 * 0.75), 1.0)
TIME_GROWTH, MEMORY_A_FILM = 1.5, 3000 * 4000 / 20


def main() -> None:
    """Measure sets of the sizes asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, nargs="+", default=[250, 500, 1000])
    began = time.perf_counter()
    sizes = sorted(parser.parse_args().films)
    rows = {films: measure(films) for films in sizes}
    small, large = rows[sizes[0]], rows[sizes[-1]]
    growth = {verb: _growth(small[verb], large[verb], sizes[0], sizes[-1]) for verb in small}
    sound = all(each["time"] <= TIME_GROWTH and each["memory_a_film"] <= MEMORY_A_FILM for each in growth.values())
    result: dict[str, Any] = {
        "film": {"size": [3000, 4000], "type": "grey JPEG"},
        "verbs_by_films": {str(films): row for films, row in rows.items()},
        "growth": growth,
        "load_average": os.getloadavg(),
    }
    end("many_films", result, began, sound=sound)


def measure(films: int) -> dict[str, dict[str, float]]:
    """Every verb on a set of so many films."""
    with tempfile.TemporaryDirectory(prefix="vramfit-many-") as folder:
        root, out = enlarged(Path(folder) / "set", films), Path(folder)
        train = (
            *("train", "--dataset-path", str(root), "--model", "hrnet_w18_small", "--image-size", "64"),
            *("--epochs", "1", "--warmup-epochs", "0", "--batch-size", "16", "--weights", "none", "--device", "cpu"),
            *("--num-workers", "0", "--cache-dir", str(out / "cache"), "--log-dir", str(out / "logs")),
        )
        checkpoint = out / "first" / "checkpoint_latest.pth"
        verbs: dict[str, Sequence[str]] = {
            "check": ("data", "check", str(root)),
            "cache": (*train, "--save-dir", str(out / "first")),
            "epoch": (*train, "--save-dir", str(out / "second")),
            "evaluate": (
                *("evaluate", "--checkpoint", str(checkpoint), "--dataset-path", str(root), "--split", "train"),
                *("--device", "cpu", "--cache-dir", str(out / "cache")),
            ),
        }
        return {verb: run(words) for verb, words in verbs.items()}


def enlarged(folder: Path, films: int) -> Path:
    """A set of films of 12 megapixels, drawn small."""
    make_sample(folder, films=films, height=DRAWN, machines=[MACHINE])
    for path in folder.glob("*/Cephalograms/*"):
        film = read_film(path)
        large = cv2.resize(film, (3000, 4000), interpolation=cv2.INTER_CUBIC)
        path.unlink()
        path.with_suffix(".jpg").write_bytes(cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    for path in folder.glob("*/Annotations/**/*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        for entry in content.get("landmarks", []):
            entry["value"] = {axis: TIMES * place for axis, place in entry["value"].items()}
        path.write_text(json.dumps(content), encoding="utf-8")
    table = folder / "cephalogram_machine_mappings.csv"
    shrunk = re.sub(r",(0\.\d+),", lambda found: f",{float(found[1]) / TIMES:.6f},", table.read_text(encoding="utf-8"))
    table.write_text(shrunk, encoding="utf-8")
    return folder


def run(words: Sequence[str]) -> dict[str, float]:
    """A verb in a process of its own: seconds of the processor and of the clock, and its peak of memory."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "vramfit", *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"vramfit {' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}")
    return {
        "processor_s": round(used.ru_utime + used.ru_stime, 2),
        "clock_s": round(time.perf_counter() - start, 2),
        "peak_bytes": used.ru_maxrss * 1024,
    }


def _growth(small: dict[str, float], large: dict[str, float], few: int, many: int) -> dict[str, float]:
    """Time a film of the larger set beside that of the smaller, and memory a further film takes."""
    return {
        "time": round((large["processor_s"] / many) / (small["processor_s"] / few), 3),
        "memory_a_film": round((large["peak_bytes"] - small["peak_bytes"]) / (many - few)),
    }


if __name__ == "__main__":
    main()
