"""How many events a second the allocator's replay takes on one core.

Run: python benchmarks/allocator_speed.py

The events are those of a made training job: a few hundred live tensors of sizes from 4 bytes to 40 MiB, half of them
freed soon after they were made. Processor time is counted, the best of five runs of each setting.
"""

import argparse
import random
import time

from ending import keep

from vramfit.prediction.allocator.allocator import CachingAllocator, Settings

REQUIRED_EVENTS_PER_S = 300_000
CONFS = ("", "expandable_segments:True", "max_split_size_mb:32", "roundup_power2_divisions:4")
SIZES = (4, 512, 2048, 40_000, 300_000, 2 << 20, 5 << 20, 9 << 20, 40 << 20)


def made_events(requests: int = 200_000, seed: int = 0) -> tuple[list[int], list[int]]:
    """Events (`i` allocates, `~i` frees) and the bytes of every request."""
    rng = random.Random(seed)
    events, sizes, live = [], [], []
    for number in range(requests):
        if live and rng.random() < 0.5:
            events.append(~live.pop(rng.randrange(max(0, len(live) - 40), len(live))))
        sizes.append(rng.choice(SIZES) + rng.randrange(4096))
        events.append(number)
        live.append(number)
        while len(live) > 800:
            events.extend(~key for key in live[200:])
            del live[200:]
    return events, sizes


def events_per_s(conf: str, events: list[int], sizes: list[int]) -> float:
    """The best of five runs."""
    times = []
    for _ in range(5):
        allocator = CachingAllocator(Settings.parse(conf))
        start = time.process_time()
        allocator.replay(events, sizes)
        times.append(time.process_time() - start)
    return len(events) / min(times)


def main() -> None:
    """Print a line for each setting; exit 1 if any is too slow."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    events, sizes = made_events()
    rates = {conf or "defaults": round(events_per_s(conf, events, sizes)) for conf in CONFS}
    for conf, rate in rates.items():
        print(f"{conf:32} {rate:>9,} events/s  ({len(events):,} events)")
    keep("allocator_speed", {"events_per_s": rates})
    raise SystemExit(0 if min(rates.values()) >= REQUIRED_EVENTS_PER_S else 1)


if __name__ == "__main__":
    main()
