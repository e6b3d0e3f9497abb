"""What a task does once its run is over is done with the best checkpoint, and said before the end."""

from dataclasses import dataclass

from small_runs import Numbers, NumberTask, job

from vramfit import RunOptions, train
from vramfit.training.checkpoint import load
from vramfit.training.listeners import Listener


@dataclass
class Finishing(NumberTask):
    def finish(self, best, device):
        return [f"epoch {load(best)['position']['epoch']} on {device.type}", "done"]


class Ear(Listener):
    def __init__(self):
        self.heard = []

    def on_note(self, text):
        self.heard.append(text)

    def on_end(self, summary):
        self.heard.append(summary)


def test_a_task_finishes_with_the_best_checkpoint_before_the_end_is_told(tmp_path):
    ear = Ear()
    options = RunOptions(epochs=3, batch_size=4, device="cpu", save_dir=tmp_path / "run", log_dir=tmp_path / "logs")
    summary = train(Finishing(job(), Numbers(11), Numbers(5)), options, [ear])
    assert ear.heard == [f"epoch {summary.best_epoch} on cpu", "done", summary]
