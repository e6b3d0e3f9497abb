"""Trainers of others come to their validation once a script's steps are made."""

import pytest

from vramfit.script.command import parse_command
from vramfit.script.run import watch_script

SCRIPT = """
import sys
import torch
from transformers import Trainer, TrainingArguments

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(16, 2)

    def forward(self, x, labels):
        outputs = self.layer(x)
        return {"loss": torch.nn.functional.cross_entropy(outputs, labels), "logits": outputs}

rows = [{"x": torch.randn(16), "labels": n % 2} for n in range(64)]
told = {"eval_strategy": sys.argv[1]} if sys.argv[1] != "by itself" else {}
arguments = TrainingArguments("out", num_train_epochs=50, report_to="none", **told)
trainer = Trainer(Network(), arguments, train_dataset=rows, eval_dataset=rows[:16])
trainer.train()
trainer.save_model()
if not told:
    print(trainer.evaluate()["eval_loss"])
"""


@pytest.mark.parametrize("when", ["by itself", "steps", "epoch"])
def test_a_trainer_validates_once_its_steps_are_made(tmp_path, monkeypatch, when):
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)
    seen = watch_script(parse_command(["python", "train.py", when]), "RTX 3070 Ti", quiet=True)
    assert seen.validated
    assert [one.name for one in tmp_path.iterdir()] == ["train.py"]
