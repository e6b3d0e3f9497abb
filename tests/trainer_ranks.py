"""Hugging Face's Trainer and Lightning over two ranks and gloo; also the program that each rank is.

torchrun starts `python tests/trainer_ranks.py FOLDER`; with `FitCallback` the last rank runs out of memory beyond one
sample, and beyond five.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent
RANKS = 2


def run_trainers(folder):
    """By rank and trainer: how far weights are from those without a failure, the micro-batch, and the phases."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    paths = os.pathsep.join(map(str, (TESTS.parent, TESTS, TESTS / "unit" / "integrations")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [*start, __file__, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    import torch

    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)]


def hugging_face(callbacks, limit):
    import test_transformers as small
    import transformers

    model = small.Network(counts=False)
    if limit:
        small.limited(limit, fail_after=1)(model)
    arguments = transformers.TrainingArguments(
        tempfile.mkdtemp(),
        max_steps=3,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=0.05,
        max_grad_norm=0.3,
        use_cpu=True,
        ddp_backend="gloo",
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    transformers.Trainer(model, arguments, train_dataset=small.Numbers(classes=False), callbacks=callbacks).train()
    return model


def lightning(callbacks, limit):
    import pytorch_lightning as pl
    import test_lightning as small

    model = small.Network(16, limit or 99)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    spread = {"accelerator": "cpu", "devices": RANKS, "strategy": "ddp", "default_root_dir": tempfile.mkdtemp()}
    told = {"max_epochs": 1, "accumulate_grad_batches": 2, "gradient_clip_val": 0.1, "limit_val_batches": 0}
    pl.Trainer(callbacks=callbacks, **quiet | spread | told).fit(model)
    return model


def main(folder):
    import torch

    from vramfit.integrations import lightning as for_lightning
    from vramfit.integrations import transformers as for_transformers

    rank = int(os.environ["RANK"])
    content = {}
    for name, train, callback, limit in (
        ("transformers", hugging_face, for_transformers.FitCallback(), 1),
        ("lightning", lightning, for_lightning.FitCallback(find=False), 5),
    ):
        expected = train([], None).parameters()
        weights = train([callback], limit if rank == RANKS - 1 else None).parameters()
        content[name] = {
            "difference": max(float((one - other).abs().max()) for one, other in zip(weights, expected, strict=True)),
            "micro_batch": callback.micro_batch,
            "phases": [event.phase for event in callback.events],
        }
    torch.save(content, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
