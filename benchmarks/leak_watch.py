"""The leak watch: 100 healthy runs, in which it must say nothing; planted leaks; and what it costs of a step.

    python benchmarks/leak_watch.py [--part healthy|leaks|overhead]

Healthy runs are 25 kinds of loops as people write them, each with four seeds and sizes; leaks are 20 kinds. Both train
a small network for real on the CPU, with a clock that counts a second a step, so that the watch looks as often as it
would in a run of steps so long. The overhead is that of a real loop on the real clock: blocks of steps with the watch
and without take turns in one process. Writes benchmarks/results/leak_watch.json.

The result there is of the first run, with 6 alarms in 100 healthy runs, all at lists and caches of a few MiB. Since
then what has no graph is told from 64 MiB on.
"""

import argparse
import copy
import gc
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict, deque
from pathlib import Path

import numpy as np
import torch
from ending import end
from torch import nn
from torch.nn import functional as F

from vramfit.postmortem.leak_watch import LeakWatch

STEPS, SECONDS_A_STEP, EPOCH = 160, 1.0, 20


class Run:
    """A small training run; `keep` does after each step what a kind of loop does."""

    def __init__(self, seed):
        torch.manual_seed(seed)
        self.random = random.Random(seed)
        self.width = 16 + 8 * (seed % 4)
        self.model = nn.Sequential(nn.Linear(16, self.width), nn.Tanh(), nn.Linear(self.width, 4))
        self.optimizer = (torch.optim.AdamW, torch.optim.SGD)[seed % 2](self.model.parameters(), lr=0.01)
        self.list, self.dict, self.total, self.slot = [], {}, 0, None
        self.state_hidden = self.queue = None
        # A list of its own for each kind of leak, as in a script of its own.
        for name, _ in leak_kinds():
            setattr(self, f"kept_{name}", {} if name in ("loss_by_step", "cache") else [])
            setattr(self, f"total_{name}", 0)
        self.step = 0

    def train(self, keep):
        told, seconds = [], itertools.count(1)
        watch = LeakWatch(
            lambda sentence: told.append((self.step, sentence)), clock=lambda: next(seconds) * SECONDS_A_STEP
        )
        for self.step in range(STEPS):  # the kinds below read it
            rows = self.random.randint(4, 64)
            x, y = torch.randn(rows, 16), torch.randn(rows, 4)
            out = self.model(x)
            loss = F.mse_loss(out, y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            keep(self, x, out, loss)
            watch.after_step()
        return told

    @property
    def epoch_ends(self):
        return self.step % EPOCH == EPOCH - 1


def _epoch(run, what):
    if run.epoch_ends:
        what()


class Cached(torch.utils.data.Dataset):
    def __init__(self):
        self.kept, self.order = {}, []

    def __getitem__(self, index):
        self.order.append(torch.zeros(8000))
        return self.kept.setdefault(index, torch.randn(20_000))


def healthy_kinds():
    def dataset(run, x, out, loss):
        run.slot = run.slot or Cached()
        run.slot[run.step]

    def collect_and_clear(run, x, out, loss):
        run.list.append(out.detach().repeat(1, 2000))
        _epoch(run, run.list.clear)

    def losses_of_an_epoch(run, x, out, loss):
        run.list.append(loss)
        _epoch(run, run.list.clear)

    def fresh_list_each_epoch(run, x, out, loss):
        run.list.append(loss.detach())
        if run.epoch_ends:
            run.list = []

    def validation(run, x, out, loss):
        if run.epoch_ends:
            with torch.no_grad():
                outputs = [run.model(torch.randn(64, 16)) for _ in range(20)]
            run.total = torch.cat(outputs).mean().item()

    def replay_buffer(run, x, out, loss):
        run.slot = run.slot if run.slot is not None else deque(maxlen=10_000)
        run.slot.append((x.repeat(1, 500), loss.item()))

    def queue_by_hand(run, x, out, loss):
        run.list.append(x.repeat(1, 500))
        if len(run.list) > 10:
            run.list.pop(0)

    def best_weights(run, x, out, loss):
        if run.slot is None or loss.item() < run.slot[0]:
            run.slot = (loss.item(), copy.deepcopy(run.model.state_dict()))

    def average(run, x, out, loss):
        run.slot = run.slot or copy.deepcopy(run.model)
        with torch.no_grad():
            for mine, theirs in zip(run.slot.parameters(), run.model.parameters(), strict=True):
                mine.lerp_(theirs, 0.1)

    def hidden_state(run, x, out, loss):
        run.slot = torch.zeros(4) if run.slot is None else (0.5 * run.slot + out.mean(0)).detach()

    def keeps_last_graph(run, x, out, loss):
        run.slot = (out, loss)

    def smoothed(run, x, out, loss):
        run.total = 0.9 * run.total + 0.1 * loss.item()

    def accumulated_gradient(run, x, out, loss):
        F.mse_loss(run.model(x), torch.zeros(len(x), 4)).backward()

    def files_opened_and_closed(run, x, out, loss):
        with tempfile.TemporaryFile() as file:
            torch.save(run.model.state_dict(), file)

    def checkpoints_in_memory(run, x, out, loss):
        _epoch(run, lambda: run.dict.update(latest=copy.deepcopy(run.model.state_dict())))

    def memory_bank(run, x, out, loss):
        run.slot = torch.zeros(1000, 4) if run.slot is None else run.slot
        run.slot[run.step % 1000] = out.detach()[0]

    def hook(run, x, out, loss):
        run.dict["features"] = out

    def metrics_of_classes(run, x, out, loss):
        for label in out.argmax(1).tolist():
            run.dict[label] = run.dict.get(label, 0) + 1

    def pairs_of_shapes(run, x, out, loss):
        run.dict.setdefault(tuple(x.shape), torch.zeros(20_000))

    def log_lines(run, x, out, loss):
        run.list.append(f"step {run.step} loss {loss.item():.4f}")

    def curves(run, x, out, loss):
        run.dict = run.dict or defaultdict(list)
        run.dict["loss"].append(loss.item())
        run.dict["time"].append(time.time())

    def confusion(run, x, out, loss):
        run.slot = np.zeros((4, 4)) if run.slot is None else run.slot
        run.slot += np.eye(4)

    def numpy_of_an_epoch(run, x, out, loss):
        run.list.append(out.detach().numpy().repeat(500, 0))
        _epoch(run, run.list.clear)

    def records_an_epoch(run, x, out, loss):
        _epoch(run, lambda: run.list.append({"epoch": run.step, "weights": torch.zeros(20_000)}))

    return [
        ("nothing", lambda run, x, out, loss: None),
        ("numbers", lambda run, x, out, loss: run.list.append(loss.item())),
        *((kind.__name__, kind) for kind in list(locals().values()) if callable(kind)),
    ][:25]


class Meter:
    def __init__(self):
        self.values = []

    def update(self, value):
        self.values.append(value)


ALL_OUTPUTS = []
METERS = defaultdict(Meter)


def leak_kinds():
    """Each kind with what its sentence must name."""

    def loss_list(run, x, out, loss):
        run.kept_loss_list.append(loss)

    def loss_tuples(run, x, out, loss):
        run.kept_loss_tuples.append((run.step, loss, "train"))

    def loss_dicts(run, x, out, loss):
        run.kept_loss_dicts.append({"loss": loss, "rate": 0.1})

    def loss_by_step(run, x, out, loss):
        run.kept_loss_by_step[run.step] = loss

    def running_sum(run, x, out, loss):
        run.total_running_sum += loss

    def running_sum_again(run, x, out, loss):
        run.total_running_sum_again = run.total_running_sum_again + loss

    def moving_average(run, x, out, loss):
        run.total_moving_average = 0.9 * run.total_moving_average + 0.1 * loss

    def hidden_state(run, x, out, loss):
        run.state_hidden = torch.zeros(4) if run.state_hidden is None else torch.tanh(run.state_hidden + out.mean(0))

    def outputs(run, x, out, loss):
        ALL_OUTPUTS.append(out)

    def large_outputs(run, x, out, loss):
        run.kept_large_outputs.append(out.detach().repeat(1, 2000))

    def inputs(run, x, out, loss):
        run.kept_inputs.extend([x.repeat(1, 300), x.repeat(1, 300)])

    def arrays(run, x, out, loss):
        run.kept_arrays.append(out.detach().numpy().repeat(500, 0))

    def gradients(run, x, out, loss):
        run.kept_gradients.append([parameter.grad.clone().repeat(30, 1) for parameter in run.model.parameters()])

    def cache(run, x, out, loss):
        run.kept_cache.setdefault(f"step {run.step}", x.repeat(1, 500))

    def unbounded_queue(run, x, out, loss):
        run.queue = run.queue if run.queue is not None else deque()
        run.queue.appendleft(x.repeat(1, 500))

    def meter(run, x, out, loss):
        METERS["loss"].update(loss)

    def every_fourth(run, x, out, loss):
        if run.step % 4 == 0:
            run.kept_every_fourth.append(loss)

    def weights(run, x, out, loss):
        run.kept_weights.append(
            {name: value.repeat(40) for name, value in run.model.state_dict().items() if value.dim() == 1}
        )

    def images_as_bytes(run, x, out, loss):
        run.kept_images_as_bytes.append(x.repeat(1, 500).numpy().tobytes())

    def closure(run, x, out, loss, kept=[]):  # noqa: B006  # the leak itself
        kept.append(loss)

    return [(kind.__name__, kind) for kind in list(locals().values()) if callable(kind)]


def healthy():
    rows = []
    for name, kind in healthy_kinds():
        for seed in range(4):
            told = Run(seed).train(kind)
            rows.append({"kind": name, "seed": seed, "told": [sentence for _, sentence in told]})
            print(name, seed, told, flush=True)
    return {
        "runs": len(rows),
        "kinds": len({row["kind"] for row in rows}),
        "alarms": [row for row in rows if row["told"]],
    }


def leaks():
    rows = []
    for name, kind in leak_kinds():
        told = Run(1).train(kind)
        line = kind.__code__.co_firstlineno
        named = [
            sentence for _, sentence in told if f"{Path(__file__).name}:{line + 1}" in sentence or _near(sentence, line)
        ]
        rows.append(
            {"kind": name, "step": told[0][0] if told else None, "named": bool(named), "told": [s for _, s in told]}
        )
        print(rows[-1], flush=True)
    return {
        "planted": len(rows),
        "told": sum(bool(row["told"]) for row in rows),
        "line": sum(r["named"] for r in rows),
        "rows": rows,
    }


def _near(sentence, line):
    """Whether a sentence names a line of the function that begins at one, or of the class that it hands to."""
    numbers = [int(part.split(" ")[0]) for part in sentence.split(f"{Path(__file__).name}:")[1:]]
    meter = Meter.update.__code__.co_firstlineno
    return any(line < number <= line + 4 or meter < number <= meter + 2 for number in numbers)


def overhead(blocks=24, steps=25):
    """Seconds of a step with the watch and without, in blocks that take turns."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 32 * 32, 10),
    )
    optimizer = torch.optim.AdamW(model.parameters())
    watch = LeakWatch(print)
    times = {True: [], False: []}
    walls = {True: [], False: []}
    for block in range(2 * blocks):
        watched = block % 2 == 1
        for _ in range(steps):
            began, wall = time.process_time(), time.perf_counter()
            x, y = torch.randn(16, 3, 32, 32), torch.randint(0, 10, (16,))
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if watched:
                watch.after_step()
            times[watched].append(time.process_time() - began)
            walls[watched].append(time.perf_counter() - wall)
    mean = {watched: statistics.fmean(values) for watched, values in times.items()}
    median = {watched: statistics.median(values) for watched, values in times.items()}
    return {
        "steps_each": blocks * steps,
        "step_ms_without": round(1000 * mean[False], 3),
        "step_ms_with": round(1000 * mean[True], 3),
        "median_ms_without": round(1000 * median[False], 3),
        "median_ms_with": round(1000 * median[True], 3),
        "median_wall_ms": [round(1000 * statistics.median(walls[watched]), 3) for watched in (False, True)],
        "overhead_share": round(mean[True] / mean[False] - 1, 4),
        "watch_share_of_its_own": round(watch_cost(watch, steps) / mean[False], 5),
        "looks_s": round(watch.spent_s, 4),
        "objects": len(gc.get_objects()),
    }


def watch_cost(watch, steps):
    """Processor seconds of one call of the watch between looks, on its own."""
    began = time.process_time()
    for _ in range(steps * 8):
        watch.after_step()
    return (time.process_time() - began) / (steps * 8)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("healthy", "leaks", "overhead"))
    part = parser.parse_args().part
    began = time.perf_counter()
    result = {
        name: run()
        for name, run in (("overhead", overhead), ("leaks", leaks), ("healthy", healthy))
        if part in (None, name)
    }
    if part:
        print({key: value for key, value in result[part].items() if key != "rows"})
        sys.exit()
    sound = not result["healthy"]["alarms"] and result["overhead"]["overhead_share"] < 0.01
    end("leak_watch", result, began, sound=sound)


if __name__ == "__main__":
    main()
