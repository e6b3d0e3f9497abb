"""Lines that a training needs to survive its batch, and what comes of them: vramfit's integrations and the peers'.

Each training is a few lines of text, run as it is with a network that runs out of memory beyond 37 samples; each tool
changes some of its lines. A line that imports is counted apart. `vramfit run` takes the plain script as a file and
predicts for a card that is not here. Needs the extra `integrations`:

    python benchmarks/lines_to_answer.py
"""

import difflib
import gc
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from textwrap import dedent

import torch
from ending import keep
from torch import nn

LIMIT, SAMPLES = 37, 512
ROOT = Path(__file__).resolve().parents[1]
X = torch.randn(SAMPLES, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

FUNCTION = """
def train(batch_size):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    for start in range(0, 4 * batch_size, batch_size):
        model(X[start : start + batch_size]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return batch_size
answer = train(128)
"""
TRAINER = """
from transformers import Trainer, TrainingArguments
arguments = TrainingArguments(folder, per_device_train_batch_size=64, max_steps=4, use_cpu=True, **quiet_arguments)
trainer = Trainer(returning(network()), arguments, train_dataset=rows)
trainer.train()
answer = trainer._train_batch_size
"""
LIGHTNING = """
import pytorch_lightning as pl
trainer = pl.Trainer(max_steps=4, accelerator="cpu", default_root_dir=folder, **quiet_trainer)
trainer.fit(module)
answer = module.batch_size
"""
# What each tool replaces: (tool, training, [(line as it is, lines in its place)]).
CASES = (
    ("accelerate", FUNCTION, [
        ("def train(batch_size):", "from accelerate.utils import find_executable_batch_size\n"
         "@find_executable_batch_size(starting_batch_size=128)\ndef train(batch_size):"),
        ("answer = train(128)", "answer = train()"),
    ]),
    ("vramfit.fits", FUNCTION, [
        ("def train(batch_size):", "import vramfit\n@vramfit.fits(start=128)\ndef train(batch_size):"),
        ("answer = train(128)", "answer = train()"),
    ]),
    ("Trainer, auto_find_batch_size", TRAINER, [("use_cpu=True,", "use_cpu=True, auto_find_batch_size=True,")]),
    ("Trainer, FitCallback", TRAINER, [
        ("arguments =", "from vramfit.integrations.transformers import FitCallback\narguments ="),
        ("train_dataset=rows", "train_dataset=rows, callbacks=[FitCallback()]"),
    ]),
    ("Trainer, FitCallback(find=True)", TRAINER, [
        ("arguments =", "from vramfit.integrations.transformers import FitCallback\narguments ="),
        ("train_dataset=rows", "train_dataset=rows, callbacks=[FitCallback(find=True)]"),
    ]),
    ("Lightning, BatchSizeFinder", LIGHTNING, [
        ("trainer =", "from pytorch_lightning.callbacks import BatchSizeFinder\ntrainer ="),
        ("default_root_dir=folder", "default_root_dir=folder, callbacks=[BatchSizeFinder('binsearch', margin=0)]"),
    ]),
    ("Lightning, FitCallback", LIGHTNING, [
        ("trainer =", "from vramfit.integrations.lightning import FitCallback\ntrainer ="),
        ("default_root_dir=folder", "default_root_dir=folder, callbacks=[FitCallback()]"),
    ]),
)  # fmt: skip
SCRIPT = """
import argparse, torch
parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=128)
batch_size = parser.parse_args().batch_size
model = torch.nn.Sequential(torch.nn.Linear(65536, 256), torch.nn.ReLU(), torch.nn.Linear(256, 65536)).cuda()
optimizer = torch.optim.AdamW(model.parameters())
for _ in range(4):
    loss = model(torch.randn(batch_size, 65536, device="cuda")).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""


class Network(nn.Module):
    """The mean of the squares of a linear layer's outputs; notes its passes."""

    def __init__(self, seen, limit):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3).double()
        self.seen, self.limit = seen, limit

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.limit:
            raise RuntimeError("CUDA out of memory.")
        return self.layer(x).pow(2).mean()


def names(seen, folder, limit):
    """What the texts know."""
    import pytorch_lightning as pl

    class Returning(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return {"loss": self.model(x)}

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.batch_size = Network(seen, limit), 2

        def training_step(self, batch, _):
            return self.model(batch)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.05)

        def train_dataloader(self):
            return torch.utils.data.DataLoader(X, batch_size=self.batch_size)

    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return {
        "torch": torch,
        "X": X,
        "network": lambda: Network(seen, limit),
        "returning": Returning,
        "rows": [{"x": row} for row in X],
        "module": Module(),
        "folder": folder,
        "quiet_arguments": {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True},
        "quiet_trainer": quiet,
    }


def run(text, limit=LIMIT):
    """The answer, the passes, and the random number that comes next."""
    seen = []
    with tempfile.TemporaryDirectory() as folder:
        known = names(seen, folder, limit)
        exec(text, known)  # the text of a training above
    trainer = known.get("trainer")
    accumulated = getattr(getattr(trainer, "args", None), "gradient_accumulation_steps", 1)
    return {"batch": known["answer"], "effective_batch": known["answer"] * accumulated, "passes": seen}


def row(tool, training, replaced):
    text = training
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new, 1)
    added = [line[2:] for line in difflib.ndiff(training.splitlines(), text.splitlines()) if line.startswith("+ ")]
    imports = sum(line.startswith(("import ", "from ")) for line in added)
    began = time.perf_counter()
    result = run(text)
    return {
        "tool": tool,
        "lines": len(added) - imports,
        "imports": imports,
        "ooms": sum(size > LIMIT for size in result["passes"]),
        "effective_batch": result["effective_batch"],
        "largest_pass": max(size for size in result["passes"] if size <= LIMIT),
        "seconds": round(time.perf_counter() - began, 2),
    }


def plain_script():
    """`vramfit run` on the script as a file."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "train.py"
        script.write_text(dedent(SCRIPT))
        began = time.perf_counter()
        command = [sys.executable, "-m", "vramfit", "run", "--gpu", "rtx3070ti", "--find", "batch-size", "--"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, sys.executable, str(script)], capture_output=True, text=True, check=False, env=environment
        )
    assert done.returncode == 0, done.stderr[-300:]
    return {
        "tool": "vramfit run --find, predicted for an RTX 3070 Ti",
        "lines": 0,
        "imports": 0,
        "ooms": 0,
        "seconds": round(time.perf_counter() - began, 2),
    }


def table(rows):
    head = "| tool | lines | imports | OOMs | effective batch | largest pass, of 37 |\n|---|---|---|---|---|---|"
    body = [
        f"| {one['tool']} | {one['lines']} | {one['imports']} | {one['ooms']} | {one.get('effective_batch', '')} "
        f"| {one.get('largest_pass', '')} |"
        for one in rows
    ]
    return "\n".join([head, *body])


def main():
    warnings.filterwarnings("ignore")
    for name in ("vramfit", "pytorch_lightning", "transformers", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import pytorch_lightning  # noqa: F401  # loaded here, that no tool's garbage collection goes through it
    import transformers  # noqa: F401

    gc.freeze()
    rows = [plain_script(), *(row(*case) for case in CASES)]
    packages = ("torch", "transformers", "accelerate", "pytorch-lightning")
    keep("lines_to_answer", {"rows": rows}, packages=packages)
    print(table(rows))


if __name__ == "__main__":
    main()
