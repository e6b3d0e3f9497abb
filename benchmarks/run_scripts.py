"""Runs every script of `benchmarks/scripts` unchanged under `vramfit run`, on a card that need not be here.

    python benchmarks/run_scripts.py [--only NAME,NAME] [--result NAME]

For each: whether its steps were seen, the peak of its tensors, the host memory of its process (goal: 2 GiB), and the
processor time of its process less that of importing the same alone (goal: 10 s; its own work on the host is in it).
Needs transformers, accelerate, peft, diffusers, monai, torchvision and pytorch-lightning.
"""

import argparse
import ast
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ending import end

from vramfit.errors import VramfitError
from vramfit.script.command import parse_command
from vramfit.script.run import watch_script
from vramfit.units import MIB

SCRIPTS = Path(__file__).resolve().parent / "scripts"
COMMANDS = {
    "segkit": f"PYTHONPATH={SCRIPTS} python -m segkit.train {{script}}/unet.yaml",
    "ddp_torchrun": "torchrun --nproc_per_node 2 {script} --amp --sync-bn",
}
ARGUMENTS = {
    "config_file": "fit data.batch=8",
    "timm_like": "--amp --channels-last --model-ema",
    "hf_language_model": "--output_dir out --do_train --per_device_train_batch_size 4 --gradient_accumulation_steps 2 "
    "--eval_strategy epoch --bf16 --report_to none",
    "hf_seq2seq": "--output_dir out --do_train --do_eval --predict_with_generate --per_device_train_batch_size 8 "
    "--report_to none",
    "accelerate_cv": "--mixed_precision fp16 --gradient_accumulation_steps 2",
    "hydra_like": "data.batch_size=8",
    "subcommands": "train --batch 8",
    "torchvision_masks": "--amp",
    "engine_events": "--cuda",
    "spawn_ddp": "5 1",
    "unet_png": "--amp",
    "word_language_model": "--cuda",
    "flow_dataclass": "--train.batch_size=512",
}
CARD = "RTX 3070 Ti"
GOAL_S, GOAL_MIB = 10.0, 2048
IMPORTS = (ast.Import, ast.ImportFrom)


def processor_s():
    """Processor time of all processes that were started and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def imports_s(script):
    """Processor time of importing what a script, or the files of a package, and `vramfit run` import."""
    files = [script] if script.is_file() else script.glob("*.py")
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, IMPORTS))
    lines = [ast.unparse(node) for node in nodes if not getattr(node, "level", 0) and not _is_optional(node)]
    before = processor_s()
    code = "\n".join(["import vramfit.script.believing", *lines, "import os", "os._exit(0)"])
    subprocess.run([sys.executable, "-c", code], check=True)
    return processor_s() - before


def _is_optional(node):
    """Of Python's future, or of a tracker that a script tries to import."""
    return "__future__" in ast.unparse(node) or "wandb" in ast.unparse(node)


def watched(script):
    """One row of the result."""
    began, before = time.monotonic(), processor_s()
    try:
        line = COMMANDS.get(script.stem, "python {script}").format(script=script)
        command = parse_command([*line.split(), *ARGUMENTS.get(script.stem, "").split()])
        outcome = watch_script(command, CARD, quiet=True)
    except VramfitError as error:
        return {"script": script.name, "refused": str(error)}
    wall, taken, imported = time.monotonic() - began, processor_s() - before, imports_s(script)
    return {
        "script": script.name,
        "steps": outcome.steps_made,
        "validated": outcome.validated,
        "batch": outcome.batch_size,
        "peak_mib": round(outcome.trace.peak_bytes / MIB, 1),
        "wall_s": round(wall, 1),
        "script_s": round(outcome.seconds, 1),
        "processor_s": round(taken, 1),
        "imports_s": round(imported, 1),
        "beyond_imports_s": round(taken - imported, 1),
        "host_mib": round(outcome.host_peak_bytes / MIB),
        "assumptions": len(outcome.trace.assumptions),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--result", default="run_scripts")
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name]
    began, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for script in sorted([*SCRIPTS.glob("*.py"), *(file.parent for file in SCRIPTS.glob("*/train.py"))]):
            if only and script.stem not in only:
                continue
            rows.append(watched(script))
            print(rows[-1], flush=True)
        touched = sorted(path.name for path in Path(folder).iterdir())
        os.chdir(SCRIPTS)
    seen = sum("refused" not in row for row in rows)
    within = [row for row in rows if "refused" not in row and row["beyond_imports_s"] <= GOAL_S]
    small = [row for row in rows if "refused" not in row and row["host_mib"] <= GOAL_MIB]
    result = {
        "card": CARD,
        "scripts": len(rows),
        "seen": seen,
        "within_10_s_beyond_imports": len(within),
        "within_2_gib_of_host": len(small),
        "files_left": touched,
        "rows": rows,
    }
    end(options.result, result, began, sound=seen == len(rows) and not touched)


if __name__ == "__main__":
    main()
