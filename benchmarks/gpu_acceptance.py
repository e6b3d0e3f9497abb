"""GPU acceptance: what vramfit says of a card beside what the card does. Needs a CUDA card; takes under 8 minutes.

    python benchmarks/gpu_acceptance.py [--results DIR] [--vram 8GB] [--model hrnet_w32] [--image-size 768]

It tries every batch from 1 to one past the limit under the cap, finds the limit without the cap, has another process
hold 2 GB, trains three epochs on generated films with the batch that was chosen, measures what every choice of levers
makes of twice that batch, measures an unchanged script and searches its batch, runs out of memory on purpose and
recovers, and records a memory snapshot and replays it. A part that would begin after six and a half minutes is left
out, and that is said. It writes `gpu_acceptance_<card>_<date>.json` and a Markdown table beside it. Results under a cap
smaller than the card are marked as emulated.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from vramfit import __version__
from vramfit.cards import find_card
from vramfit.errors import UnknownCard, VramfitError
from vramfit.files import write_atomically
from vramfit.jobs.batch import sample_batch
from vramfit.jobs.job import Job
from vramfit.jobs.step import Step
from vramfit.landmarks.model.job import landmark_job
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.measure.budget import read_budget
from vramfit.measure.device import Device, local_device
from vramfit.measure.machine import read_machine
from vramfit.measure.memory import CudaMemory
from vramfit.measure.worker import measure_trial
from vramfit.oom import release_memory
from vramfit.prediction.predict import Predictor
from vramfit.prediction.snapshots.compare import compare
from vramfit.prediction.snapshots.snapshot import load_snapshot
from vramfit.probe.fit import fit, levers_for
from vramfit.probe.request import ProbeRequest
from vramfit.records import Budget, OomEvent, Trial, Verdict
from vramfit.script.command import parse_command
from vramfit.script.source import RunRequest, measuring, open_source
from vramfit.training.recovery import Recovery
from vramfit.units import GIB, MemoryLimits, format_duration, format_size

Report = dict[str, Any]
HELD_BYTES = 2 * GIB
SCRIPT = Path(__file__).parent / "scripts" / "plain_loop.py"
SCRIPT_VRAM = "1GB"
LATEST_START_S = 390.0
PARTS = ("capped", "uncapped", "other_process", "training", "levers", "script", "recovery", "snapshot")
_HOLDER = """
import sys, torch
held = torch.empty(int(sys.argv[1]), dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.readline()
"""


def main() -> None:
    options = _options()
    try:
        device = local_device()
    except VramfitError as error:
        sys.exit(f"{error}")
    job = landmark_job(
        LandmarkJobOptions(model=options.model, image_size=(options.image_size,) * 2, clip_norm=1.0, ema_decay=0.999)
    )
    report: Report = {
        "vramfit": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": read_machine(device).model_dump(),
        "job": {"model": options.model, "image_size": options.image_size, "amp": job.amp},
        "vram": options.vram,
    }
    parts: dict[str, Callable[[], Any]] = {
        "capped": lambda: table(job, device, options.vram),
        "uncapped": lambda: without_cap(job),
        "other_process": lambda: beside_another_process(device, options.vram),
        "training": lambda: training(options, report),
        "levers": lambda: frontier(job, device, options.vram, report),
        "script": lambda: script(device),
        # Last, for these two take memory of the card in this process, and keep its context.
        "recovery": lambda: recovery(job, device, options.vram, report),
        "snapshot": lambda: snapshot(job, options.results),
    }
    began = time.perf_counter()
    for name in options.parts:
        _run_part(name, parts[name] if time.perf_counter() - began < LATEST_START_S else _too_late, report)
        _write(report, options.results)  # whatever stops it later, what was measured is kept
    print(f"written to {options.results}")
    failed = [name for name in options.parts if "error" in report[name]]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def table(job: Job, device: Device, vram: str) -> Report:
    """Every batch from 1 to the first that does not fit, predicted beside measured, under the cap."""
    budget = read_budget(device, MemoryLimits.parse(vram=vram))
    predictor = _predictor(job, device, budget)
    rows: list[Report] = []
    micro_batch = 1
    while True:
        trial = measure_trial(job, micro_batch, budget)
        budget = budget.model_copy(update={"context_bytes": trial.context_bytes or budget.context_bytes})
        rows.append(_row(trial, predictor.trial(micro_batch) if predictor else None))
        print(_line(rows[-1]), flush=True)
        if trial.verdict is not Verdict.FITS:
            return {"budget": budget.model_dump(), "rows": rows, "limit": micro_batch - 1}
        micro_batch += 1


def without_cap(job: Job) -> Report:
    """The largest batch on the whole card: how many trials and OOMs it takes to find."""
    profile = fit(job, objective="largest")
    return {
        "micro_batch": profile.plan.micro_batch,
        "reason": profile.plan.reason,
        "trials": [trial.model_dump(mode="json") for trial in profile.trials],
        "ooms": sum(trial.verdict is Verdict.OOM for trial in profile.trials),
    }


def beside_another_process(device: Device, vram: str) -> Report:
    """The budget before another process takes 2 GB, and while it holds them."""
    before = read_budget(device, MemoryLimits.parse(vram=vram))
    command = [sys.executable, "-c", _HOLDER, str(HELD_BYTES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin
        assert holder.stdout
        if holder.stdout.readline().strip() != "held":
            raise VramfitError("the other process could not take its memory")
        during = read_budget(device, MemoryLimits.parse(vram=vram))
        holder.stdin.write("\n")
        holder.stdin.flush()
    seen = during.other_processes_bytes - before.other_processes_bytes
    return {"held_bytes": HELD_BYTES, "seen_bytes": seen, "noticed": seen >= HELD_BYTES, "notes": list(during.notes)}


def frontier(job: Job, device: Device, vram: str, report: Report) -> Report:
    """What levers make of twice the batch that fits: every choice that is not predicted to fail, beside its measure."""
    size = 2 * max(1, report["capped"].get("limit", 1))
    limits = MemoryLimits.parse(vram=vram)
    request = ProbeRequest(limits=limits, batch_sizes=(size,), choose_levers=True)
    choices = [row for row in levers_for(job, request).rows if row.accumulation_steps == 1]
    budget = read_budget(device, limits)
    rows: list[Report] = []
    for choice in choices:
        if choice.trial.verdict is Verdict.OVER_BUDGET:
            continue
        trial = measure_trial(replace(job, levers=choice.levers), choice.trial.micro_batch, budget)
        rows.append({"levers": choice.label, "chosen": choice.chosen, **_row(trial, choice.trial)})
        print(f"{choice.label}: {_line(rows[-1])}", flush=True)
    return {"batch": size, "rows": rows}


def script(device: Device) -> Report:
    """An unchanged script, a few steps of it predicted beside measured, and the largest batch within a small limit."""
    request = RunRequest(command=parse_command(["python", str(SCRIPT)]), limits=MemoryLimits.parse(vram=SCRIPT_VRAM))
    before = sorted(path.name for path in Path.cwd().iterdir())
    answer = measuring(request, device, _tell).answer()
    (measured,) = answer.profile.trials
    found = measuring(replace(request, option="batch-size"), device, _tell).largest()
    return {
        "row": _row(measured, _foretold(request, device)),
        "steps": answer.steps,
        "validated": answer.validated,
        "phases": answer.phases,
        "untouched": before == sorted(path.name for path in Path.cwd().iterdir()),
        "found": found.profile.plan.micro_batch,
        "reason": found.profile.plan.reason,
        "trials": [trial.model_dump(mode="json") for trial in found.profile.trials],
    }


def _foretold(request: RunRequest, device: Device) -> Trial | None:
    try:
        return open_source(replace(request, gpu=device.name), _tell).answer().profile.trials[0]
    except UnknownCard:
        return None


def _tell(trial: Trial) -> None:
    print(f"batch {trial.micro_batch}: {format_size(trial.device_used_bytes)}, {trial.verdict}", flush=True)


def recovery(job: Job, device: Device, vram: str, report: Report) -> Report:
    """One optimizer step on twice the batch that fits: it must run out, split anew, and give the same loss."""
    limit = max(1, report["capped"].get("limit", 1))
    memory = CudaMemory(device)
    memory.start(read_budget(device, MemoryLimits.parse(vram=vram)))
    events: list[OomEvent] = []
    batch = sample_batch(job, 2 * limit)
    try:
        torch.manual_seed(0)
        recovering = Recovery(Step(job, memory.device), 2 * limit, on_event=events.append)
        loss = float(recovering.train(batch, 2 * limit))
        del recovering
        release_memory()
        torch.manual_seed(0)
        expected = float(Step(job, memory.device).train(batch, (events[-1].micro_batch_after if events else limit)))
    finally:
        memory.stop()
        release_memory()
    return {
        "samples": 2 * limit,
        "events": [event.model_dump() for event in events],
        "loss": loss,
        "loss_without_oom": expected,
        "recovered": bool(events) and abs(loss - expected) <= 1e-3 * abs(expected),
    }


def snapshot(job: Job, results: Path) -> Report:
    """Two steps recorded by torch and replayed by the allocator's rules; the file is kept for the tests."""
    path = results / "gpu_acceptance_snapshot.pickle"
    release_memory()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.memory._record_memory_history(max_entries=500_000, stacks="python", context=None)
    step = Step(job, "cuda")
    for _ in range(2):
        step.train(sample_batch(job, 2), 2)
    torch.cuda.synchronize()
    results.mkdir(parents=True, exist_ok=True)
    torch.cuda.memory._dump_snapshot(str(path))
    torch.cuda.memory._record_memory_history(enabled=None)
    comparison = compare(load_snapshot(path), None, None)
    return {
        "file": path.name,
        "size_bytes": path.stat().st_size,
        "segments_match": comparison.segments_match,
        "recorded_peak_reserved_bytes": comparison.recorded.peak_reserved_bytes,
        "replayed_peak_reserved_bytes": comparison.replayed.peak_reserved_bytes,
        "torch_peak_reserved_bytes": torch.cuda.max_memory_reserved(),
    }


def training(options: argparse.Namespace, report: Report) -> Report:
    """Three epochs on generated films through the command line, with the batch that the table gave."""
    batch = max(1, report["capped"].get("limit", 1))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        _vramfit("sample", str(run / "films"), "--films", "60")
        start = time.perf_counter()
        output = _vramfit(
            *("train", "--dataset-path", str(run / "films"), "--model", options.model, "--batch-size", str(batch)),
            *(
                "--image-size",
                str(options.image_size),
                str(options.image_size),
                "--epochs",
                "3",
                "--vram",
                options.vram,
            ),
            *("--weights", "none", "--mixed-precision", "--save-dir", str(run / "save"), "--log-dir", str(run / "log")),
        )
        return {
            "batch": batch,
            "duration_s": time.perf_counter() - start,
            "checkpoints": sorted(path.name for path in (run / "save").glob("*.pth")),
            "output": output.splitlines()[-40:],
        }


def _vramfit(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "vramfit", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise VramfitError(f"vramfit {arguments[0]} ended with {done.returncode}: {done.stderr[-1500:]}")
    return done.stdout


def _predictor(job: Job, device: Device, budget: Budget) -> Predictor | None:
    try:
        return Predictor(job, find_card(device.name, total_bytes=device.total_bytes), budget)
    except UnknownCard:
        return None


def _row(measured: Trial, predicted: Trial | None) -> Report:
    return {
        "micro_batch": measured.micro_batch,
        "measured": measured.model_dump(mode="json"),
        "predicted": predicted.model_dump(mode="json") if predicted else None,
    }


_COLUMNS = (
    ("allocated", "peak_allocated_bytes", format_size),
    ("reserved", "peak_reserved_bytes", format_size),
    ("device", "device_used_bytes", format_size),
    ("step", "step_time_s", format_duration),
)


def _line(row: Report) -> str:
    cells = [str(row["micro_batch"])]
    for _, key, form in _COLUMNS:
        predicted = row["predicted"] and row["predicted"][key]
        cells.append(f"{form(predicted)} / {form(row['measured'][key])}")
    cells.append(f"{row['predicted']['verdict'] if row['predicted'] else '-'} / {row['measured']['verdict']}")
    return "| " + " | ".join(cells) + " |"


def _markdown(report: Report) -> str:
    machine = report["machine"]
    head = ["batch", *(f"{name}, predicted / measured" for name, _, _ in _COLUMNS), "verdict"]
    rows = report.get("capped", {}).get("rows", ())
    emulated = any(row["measured"]["emulated"] for row in rows)
    lines = [
        f"# GPU acceptance, {machine['card']}, {report['date'][:10]}",
        "",
        f"vramfit {report['vramfit']}, torch {machine['torch']}, CUDA {machine['cuda']}, driver {machine['driver']}. "
        f"{report['job']['model']} at {report['job']['image_size']} pixels, {report['job']['amp']}, "
        f"cap {report['vram']}" + (" (emulated: a larger card under a hard cap)." if emulated else "."),
        "",
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
        *map(_line, rows),
        "",
        *_levers_table(head, report.get("levers", {})),
    ]
    lines += [f"- **{name}**: {_summary(name, report[name])}" for name in PARTS if name in report]
    return "\n".join(lines) + "\n"


def _levers_table(head: list[str], part: Report) -> list[str]:
    rows = [f"| {row['levers']} {_line(row)}" for row in part.get("rows", ())]
    return ["| " + " | ".join(["levers", *head]) + " |", "|" + " --- |" * (len(head) + 1), *rows, ""] if rows else []


def _summary(name: str, part: Report) -> str:
    if "error" in part:
        return f"FAILED: {part['error']}"
    took = f" ({part['took_s']:.0f} s)"
    return {
        "capped": lambda: f"the largest batch that fits is {part['limit']}",
        "uncapped": lambda: f"batch {part['micro_batch']} in {len(part['trials'])} trials with {part['ooms']} OOM",
        "other_process": lambda: f"held {format_size(part['held_bytes'])}, seen {format_size(part['seen_bytes'])}",
        "levers": lambda: f"{len(part['rows'])} choices measured at batch {part['batch']}",
        "script": lambda: (
            f"{part['steps']} steps measured, files untouched: {part['untouched']}; "
            f"largest batch within {SCRIPT_VRAM}: {part['found']} in {len(part['trials'])} trials"
        ),
        "recovery": lambda: (
            f"recovered: {part['recovered']}, {len(part['events'])} OOM, loss {part['loss']:.6g} "
            f"against {part['loss_without_oom']:.6g}"
        ),
        "snapshot": lambda: f"segments match: {part['segments_match']}",
        "training": lambda: f"three epochs with batch {part['batch']}, {format_duration(part['duration_s'])}",
    }[name]() + took


def _too_late() -> Report:
    raise VramfitError("not run: the parts before it took too long")


def _run_part(name: str, part: Callable[[], Report], report: Report) -> None:
    """One part; its failure is written down and the others still run."""
    print(f"== {name}", flush=True)
    start = time.perf_counter()
    try:
        report[name] = part()
    except Exception as error:  # a result file that says what failed is worth more than none
        report[name] = {"error": f"{type(error).__name__}: {error}"}
    report[name]["took_s"] = time.perf_counter() - start
    print(_summary(name, report[name]), flush=True)


def _write(report: Report, results: Path) -> None:
    card = str(report["machine"]["card"]).lower().replace(" ", "-")
    stem = f"gpu_acceptance_{card}_{report['date'][:10]}"
    write_atomically(results / f"{stem}.json", json.dumps(report, indent=2) + "\n")
    write_atomically(results / f"{stem}.md", _markdown(report))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--vram", default="8GB")
    parser.add_argument("--model", default="hrnet_w32")
    parser.add_argument("--image-size", type=int, default=768)
    parser.add_argument("--parts", type=lambda names: names.split(","), default=list(PARTS), metavar="NAME,NAME")
    return parser.parse_args()


if __name__ == "__main__":
    main()
