"""Traces of every model of the calibration files, kept on disk so that a run can be broken off and gone on with.

python benchmarks/calibration_traces.py --cache FOLDER [--limit N] [--report]

`--report` traces nothing: it writes how many models were traced, and why others were not, to results/trace_sweep.json.
"""

import argparse
import pickle
import random
import sys
import time
import warnings
import zlib
from pathlib import Path

from calibration_rows import device_rows, job_of, ladder_rows, uncast_for, uses_fused_attention
from ending import keep

from vramfit.errors import VramfitError
from vramfit.files import write_atomically
from vramfit.prediction.tracing.trace import trace_step
from vramfit.prediction.transforms.rescale import TraceCurve

DEFAULT_CACHE = Path(__file__).resolve().parent / ".cache"


def keys() -> list[str]:
    """Every trace wanted, in an order that mixes families and sources."""
    wanted = sorted({row.key for row in ladder_rows()} | {row.key for row in device_rows()})
    random.Random(0).shuffle(wanted)
    return wanted


def load(cache: Path, key: str) -> TraceCurve | str | None:
    """A kept trace, the reason why there is none, or None if it was not tried."""
    path = cache / f"{key}.trace"
    if not path.exists():
        return None
    loaded: TraceCurve | str = pickle.loads(zlib.decompress(path.read_bytes()))  # our own file
    return loaded


def make(cache: Path, key: str) -> TraceCurve | str:
    result = trace(key)
    write_atomically(cache / f"{key}.trace", zlib.compress(pickle.dumps(result), 1))
    return result


def trace(key: str) -> TraceCurve | str:
    import timm

    timm.layers.set_fused_attn(uses_fused_attention(key))
    try:
        job = job_of(key)
        small, large = (trace_step(job, batch, validation=False, uncast=uncast_for(key)) for batch in (2, 3))
    except (VramfitError, RuntimeError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"
    return TraceCurve.through(small, large) or "events differ between batches"


def report(cache: Path) -> dict[str, object]:
    """Distinct models tried and traced so far, and the reasons of those that were not."""
    tried = {key: load(cache, key) for key in keys() if (cache / f"{key}.trace").exists()}
    failed = {key: found for key, found in tried.items() if isinstance(found, str)}
    traced = {model_of(key) for key in tried if key not in failed}
    return {"models_tried": len({model_of(key) for key in tried}), "models_traced": len(traced), "failed": failed}


def model_of(key: str) -> str:
    source, rest = key.split("-", 1)
    return rest.rsplit("-", 1)[0] if source == "ladder" else rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if options.report:
        keep("trace_sweep", report(options.cache))
        return
    options.cache.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    for number, key in enumerate(keys()[: options.limit]):
        if (options.cache / f"{key}.trace").exists():
            continue
        start = time.monotonic()
        result = make(options.cache, key)
        said = result if isinstance(result, str) else f"{len(result.traces[0].events)} events"
        print(f"{number} {key}: {said} ({time.monotonic() - start:.1f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
