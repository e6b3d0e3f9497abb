"""Lightning with `FitCallback`: the scenarios that Lightning tests its batch-size finder with, and recovery.

Different on purpose: a size is returned only if it was run (theirs returns the one after `max_trials`), and never one
beyond the data set; validation takes the new size too; the default looks for the largest size without a margin;
`max_trials=0` is refused where theirs returns `init_val`; several processes are not searched, but recovered.
"""

import contextlib
import gc

import pytest
import torch
from faults import FaultAt
from torch import nn

import vramfit

pl = pytest.importorskip("pytorch_lightning")
pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]

SAMPLES = 64


class Data(pl.LightningDataModule):
    def __init__(self, batch_size=None):
        super().__init__()
        if batch_size is not None:
            self.batch_size = batch_size

    def train_dataloader(self):
        return loader(getattr(self, "batch_size", 1))

    val_dataloader = train_dataloader


class Network(pl.LightningModule):
    """Runs out of memory beyond so many samples; `seen` has each pass's, negative in evaluation."""

    def __init__(self, batch_size=None, limit=37):
        super().__init__()
        torch.manual_seed(0)
        if batch_size is not None:
            self.batch_size = batch_size
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8, momentum=0.0), nn.Tanh(), nn.Linear(8, 1)
        ).double()
        self.layers[1].eval()
        self.limit, self.seen = limit, []

    def on_train_epoch_start(self):
        self.layers[1].eval()  # else the parts of a batch have statistics of their own

    def take(self, batch, sign=1):
        self.seen.append(sign * len(batch))
        if len(batch) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.layers(batch).pow(2).mean()

    def training_step(self, batch, index):
        loss = self.take(batch)
        self.log("loss", loss)
        return {"loss": loss, "mine": 1}

    def validation_step(self, batch, index):
        self.log("validation", self.take(batch, -1))

    test_step = validation_step

    def predict_step(self, batch, index):
        return self.take(batch, -1)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return loader(getattr(self, "batch_size", 1))

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


def loader(size):
    generator = torch.Generator().manual_seed(1)
    return torch.utils.data.DataLoader(
        torch.randn(SAMPLES, 4, dtype=torch.float64, generator=generator), batch_size=size
    )


def fit_callback(*given, **named):
    from vramfit.integrations.lightning import FitCallback

    return FitCallback(*given, **named)


@pytest.fixture
def trainer(tmp_path):
    def make(*callbacks, **options):
        quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary", "logger"), False)
        told = {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": tmp_path, "num_sanity_val_steps": 0}
        return pl.Trainer(callbacks=list(callbacks), **quiet | told | options)

    return make


# -- what Lightning promises ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("model_size", "data_size"), [(2, -1), (2, 2), (None, 2)])
def test_the_size_goes_to_whoever_has_the_attribute(trainer, model_size, data_size):
    model, data = Network(model_size), None if data_size == -1 else Data(data_size)
    callback = fit_callback(init_val=4)
    run = trainer(callback)
    run.fit(model, datamodule=data)
    assert callback.optimal_batch_size == 37
    holders = [one for one, size in ((model, model_size), (data, data_size)) if size not in (None, -1)]
    assert [one.batch_size for one in holders] == [37] * len(holders)
    assert run.train_dataloader.batch_size == run.val_dataloaders.batch_size == 37


def test_hparams_take_the_size_and_a_double_is_warned_of(trainer):
    class Double(Network):
        def __init__(self, batch_size=2):
            super().__init__(batch_size)
            self.save_hyperparameters()

    with pytest.warns(UserWarning, match="mutually exclusive"):
        trainer(fit_callback()).fit(Double())

    class OnlyHparams(Double):
        def __init__(self, batch_size=2):
            super().__init__()
            self.__dict__.pop("batch_size", None)

        def train_dataloader(self):
            return loader(self.hparams.batch_size)

        val_dataloader = train_dataloader

    model = OnlyHparams()
    trainer(fit_callback()).fit(model)
    assert model.hparams.batch_size == 37


def test_everything_is_put_back_after_the_search(trainer, tmp_path):
    class Peek(pl.Callback):
        def on_train_start(self, trainer, module):
            names = ("global_step", "current_epoch", "max_steps", "limit_train_batches", "limit_val_batches")
            self.seen = {name: getattr(trainer, name) for name in names}
            self.weights = [value.clone() for value in module.state_dict().values()]
            self.callbacks, self.drawn = list(trainer.callbacks), torch.rand(1)
            self.state = dict(trainer.optimizers[0].state)

    plain, after, finder = Peek(), Peek(), fit_callback()
    trainer(plain).fit(Network(37))
    run = trainer(finder, after)
    run.fit(Network(2))
    assert after.seen == plain.seen
    assert after.callbacks[:2] == [finder, after]
    assert after.state == {}
    assert torch.equal(after.drawn, plain.drawn)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(after.weights, plain.weights, strict=True))
    assert list(tmp_path.iterdir()) == []


def test_the_data_set_bounds_it(trainer):
    model = Network(2, limit=1000)
    trainer(fit_callback()).fit(model)
    assert model.batch_size == SAMPLES == max(model.seen)


@pytest.mark.parametrize("method", ["validate", "test", "predict"])
def test_evaluation_has_a_search_of_its_own(trainer, method):
    model, callback = Network(2), fit_callback()
    run = trainer(callback)
    getattr(run, method)(model)
    assert model.batch_size == callback.optimal_batch_size == 37
    assert run.global_step == 0


def test_what_has_no_answer_is_refused(trainer):
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    with pytest.raises(MisconfigurationException, match="dataloaders passed directly"):
        trainer(fit_callback()).fit(Network(2), loader(2))
    with pytest.raises(MisconfigurationException, match="Field nothing not found"):
        trainer(fit_callback(batch_arg_name="nothing")).fit(Network(2))
    with pytest.raises(ValueError, match="either of"):
        fit_callback("no such mode")
    with pytest.raises(vramfit.NothingFits, match="Batch size 1 does not fit"):
        trainer(fit_callback()).fit(Network(2, limit=0))


def test_modes_margins_and_trials(trainer):
    for told, expected in (
        ({"mode": "power", "init_val": 4}, 32),
        ({"margin": 0.1}, 33),
        ({"max_val": 20}, 20),
        ({"max_trials": 3, "init_val": 4}, 7),
    ):
        model = Network(2)
        trainer(fit_callback(**told)).fit(model)
        assert model.batch_size == expected, told


# -- what its users ask for -----------------------------------------------------------------------------------------
def test_validation_and_few_errors_are_part_of_the_search(trainer):
    class Greedy(Network):
        def validation_step(self, batch, index):
            if len(batch) > 20:
                raise torch.OutOfMemoryError("CUDA out of memory.")

    model, callback = Greedy(2), fit_callback()
    trainer(callback).fit(model)
    assert model.batch_size == 20
    assert sum(not one.fits for one in callback.result.trials) <= 4


def test_averaged_weights_are_counted(trainer):
    from pytorch_lightning.callbacks import EMAWeightAveraging

    class Counted(EMAWeightAveraging):
        updates = 0

        def on_train_batch_end(self, *given):
            type(self).updates += 1
            super().on_train_batch_end(*given)

    trainer(fit_callback(), Counted()).fit(Network(2))
    assert Counted.updates > 6


def test_the_effective_batch_is_kept(trainer):
    model = Network(2)
    run = trainer(fit_callback(effective_batch=60))
    run.fit(model)
    assert (model.batch_size, run.accumulate_grad_batches) == (37, 2)


def test_a_resumed_run_keeps_its_batch(trainer, tmp_path):
    first = trainer(fit_callback())
    first.fit(Network(2))
    first.save_checkpoint(tmp_path / "kept.ckpt")
    model, callback = Network(2, limit=50), fit_callback()
    trainer(callback, max_epochs=2).fit(model, ckpt_path=tmp_path / "kept.ckpt", weights_only=False)
    assert model.batch_size == 37
    assert callback.result is None


# -- recovery -------------------------------------------------------------------------------------------------------
def failing(k):
    """A callback after `FitCallback`: the second batch runs out of memory at its operation k."""

    class Failing(pl.Callback):
        def on_train_start(self, trainer, module):
            loop = trainer.fit_loop.epoch_loop.automatic_optimization
            run = loop.run

            def faulty(optimizer, batch_idx, kwargs):
                with FaultAt(k if batch_idx == 1 else 10**6):
                    return run(optimizer, batch_idx, kwargs)

            loop.run = faulty

    return Failing()


def trained(trainer, callback, *, limit=99, fault_at=None, **options):
    model = Network(16, limit)
    others = [] if fault_at is None else [failing(fault_at)]
    trainer(*[callback][: callback is not None], *others, gradient_clip_val=0.1, **options).fit(model)
    return model, list(model.state_dict().values())


def difference(mine, theirs):
    return max(float((one - other).abs().max()) for one, other in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("accumulation", [1, 3])
def test_smaller_micro_batches_learn_the_same(trainer, accumulation):
    options = {"accumulate_grad_batches": accumulation, "limit_val_batches": 0}
    _, weights = trained(trainer, None, **options)
    told = []
    callback = fit_callback(find=False, on_event=told.append)
    model, again = trained(trainer, callback, limit=5, **options)
    assert difference(weights, again) < 1e-12
    assert callback.micro_batch == 4
    assert told == callback.events
    assert [event.micro_batch_after for event in told] == [8, 4]
    assert model.trainer.global_step == -(-4 // accumulation)


def test_a_part_whose_labels_are_all_ignored_leaves_no_nan(trainer):
    """Its mean is 0/0, and NaN times a share of 0 is NaN."""

    class Classes(Network):
        def take(self, batch, sign=1):
            x, labels = batch
            if len(x) > self.limit:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            known = labels != -100
            return ((self.layers(x).flatten() - labels) ** 2 * known).sum() / known.sum()

        def train_dataloader(self):
            labels = torch.arange(SAMPLES) % 2
            labels[0:4] = labels[24:30] = -100
            x = torch.stack([sample for batch in loader(16) for sample in batch])
            return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, labels), batch_size=16)

    def weights(limit):
        model = Classes(16, limit)
        trainer(fit_callback(find=False), limit_val_batches=0).fit(model)
        return list(model.state_dict().values())

    whole = weights(limit=16)
    assert all(value.isfinite().all() for value in whole)
    assert difference(weights(limit=2), whole) < 1e-12


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_fault_at_any_operation_changes_no_weight(trainer, accumulation):
    gc.collect()
    gc.freeze()
    _, weights = trained(trainer, None, accumulate_grad_batches=accumulation, limit_val_batches=0)
    phases = set()
    for k in range(1, 260, 31):
        callback = fit_callback(find=False)
        told = {"accumulate_grad_batches": accumulation, "limit_val_batches": 0}
        _, again = trained(trainer, callback, fault_at=k, **told)
        assert difference(weights, again) < 1e-12, k
        phases |= {event.phase for event in callback.events}
    assert phases == {"forward", "backward", "optimizer"}


def test_a_single_sample_that_does_not_fit_is_said(trainer):
    with pytest.raises(vramfit.OutOfMemory, match="micro-batch of 1"):
        trained(trainer, fit_callback(find=False), limit=0)


@pytest.mark.parametrize("limit", [0, 5])
def test_the_loop_is_as_it_was_after_a_run_and_after_one_that_raised(trainer, limit):
    run = trainer(fit_callback(find=False), limit_val_batches=0)
    with contextlib.suppress(vramfit.OutOfMemory):
        run.fit(Network(16, limit))
    assert "run" not in vars(run.fit_loop.epoch_loop.automatic_optimization)


def test_manual_optimization_is_left_alone(trainer, caplog):
    class Manual(Network):
        def __init__(self):
            super().__init__(16, 99)
            self.automatic_optimization = False

        def training_step(self, batch, index):
            self.manual_backward(self.take(batch))

    trainer(fit_callback(find=False)).fit(Manual())
    assert "an OOM in it is not recovered" in caplog.text
