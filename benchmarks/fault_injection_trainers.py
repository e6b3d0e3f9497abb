"""Out of memory at every operation of a step in a plain loop, in Hugging Face's Trainer and in Lightning.

    python benchmarks/fault_injection_trainers.py [--every 1]

Each learns three steps in float64 by AdamW with clipping, the second with a fault at operation k, for every k. Its
weights must be those of the trainer alone, without vramfit and without a fault, to 1e-12. An operation is what torch
dispatches in a forward or backward pass, in clipping or in the optimizer, ours among them; what a trainer computes
between these, such as its running loss, is not struck. Needs the extra `integrations`. Writes
benchmarks/results/fault_injection_trainers.json.
"""

import argparse
import contextlib
import functools
import gc
import logging
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import torch
from torch import nn

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

import pytorch_lightning as pl  # noqa: E402  # the path is set above
import transformers  # noqa: E402
from ending import keep  # noqa: E402
from faults import FaultAt, strike_second_step  # noqa: E402

import vramfit  # noqa: E402
from vramfit.integrations.lightning import FitCallback as LightningCallback  # noqa: E402
from vramfit.integrations.transformers import FitCallback, _calling_trainer  # noqa: E402

SAMPLES, BATCH, STEPS, CLIP = 48, 8, 3, 0.1
NO_FAULT = 1_000_000
X = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 1)).double()


def optimizer_of(model):
    return torch.optim.AdamW(model.parameters(), lr=0.05)


def loss_of(model, x):
    return (model(x) - x.mean(1, keepdim=True)).pow(2).mean()


# -- each returns weights, events and the operations of the step that is struck; k None is the trainer alone ---------
def plain_loop(k, accumulation):
    """A window of batches is one batch of the loop."""
    model = network()
    optimizer = optimizer_of(model)
    fault, events = FaultAt(NO_FAULT if k is None else k), []
    step = vramfit.recovering(model, optimizer, clip_norm=CLIP, on_event=events.append)
    for number in range(STEPS):
        x = X[number * BATCH * accumulation :][: BATCH * accumulation]
        if k is None:
            loss_of(model, x).backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
            continue
        with fault if number == 1 else contextlib.nullcontext():
            step(x, functools.partial(loss_of, model))
    return list(model.parameters()), events, fault.count


class Returning(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = network()

    def forward(self, x):
        return {"loss": loss_of(self.model, x)}


def hugging_face(k, accumulation):
    callback, fault, model = FitCallback(), FaultAt(NO_FAULT if k is None else k), Returning()

    class Failing(transformers.TrainerCallback):
        def on_train_begin(self, args, state, control, **given):
            strike_second_step(_calling_trainer(), fault)

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            max_steps=STEPS,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=accumulation,
            max_grad_norm=CLIP,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        rate = functools.partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0)
        optimizer = optimizer_of(model)
        trainer = transformers.Trainer(
            model,
            arguments,
            train_dataset=[{"x": row} for row in X],
            callbacks=[] if k is None else [callback, Failing()],
            optimizers=(optimizer, rate(optimizer)),
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return list(model.parameters()), callback.events, fault.count


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = network()

    def training_step(self, batch, index):
        return loss_of(self.model, batch)

    def configure_optimizers(self):
        return optimizer_of(self)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(X, batch_size=BATCH)


def lightning(k, accumulation):
    callback, fault, module = LightningCallback(find=False), FaultAt(NO_FAULT if k is None else k), Module()

    class Failing(pl.Callback):
        def on_train_start(self, trainer, module):
            loop = trainer.fit_loop.epoch_loop.automatic_optimization
            run = loop.run

            def faulty(optimizer, batch_idx, kwargs):
                with fault if batch_idx // accumulation == 1 else contextlib.nullcontext():
                    return run(optimizer, batch_idx, kwargs)

            loop.run = faulty

    with tempfile.TemporaryDirectory() as folder:
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = pl.Trainer(
            accelerator="cpu",
            max_steps=STEPS,
            accumulate_grad_batches=accumulation,
            gradient_clip_val=CLIP,
            default_root_dir=folder,
            callbacks=[] if k is None else [callback, Failing()],
            **quiet,
        )
        trainer.fit(module)
    return list(module.parameters()), callback.events, fault.count


TRAINERS = {"plain loop": plain_loop, "Hugging Face Trainer": hugging_face, "Lightning": lightning}


def row(name, accumulation, every):
    train = TRAINERS[name]
    expected, _, _ = train(None, accumulation)
    _, _, operations = train(NO_FAULT, accumulation)
    largest, phases, events = 0.0, Counter(), Counter()
    for k in range(0, operations, every):
        weights, seen, _ = train(k, accumulation)
        gaps = [float((mine - theirs).abs().max()) for mine, theirs in zip(weights, expected, strict=True)]
        largest = max(largest, *gaps)
        phases.update(event.phase for event in seen)
        events[len(seen)] += 1
    return {
        "trainer": name,
        "accumulated_batches": accumulation,
        "operations": operations,
        "faults": len(range(0, operations, every)),
        "phases": dict(phases),
        "events_per_fault": dict(events),
        "largest_difference": largest,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="strike every so many operations alone")
    every = parser.parse_args().every
    warnings.filterwarnings("ignore")
    for name in ("vramfit", "pytorch_lightning", "lightning.pytorch", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    gc.collect()
    gc.freeze()
    began = time.perf_counter()
    rows = [row(name, accumulation, every) for name in TRAINERS for accumulation in (1, 2)]
    sound = all(one["largest_difference"] < 1e-12 and set(one["events_per_fault"]) == {1} for one in rows)
    result = {"rows": rows, "every": every, "seconds": round(time.perf_counter() - began, 1)}
    keep("fault_injection_trainers", result, packages=("torch", "transformers", "accelerate", "pytorch-lightning"))
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
