"""Hugging Face's Trainer with `FitCallback`: an OOM changes no weight, whatever is accumulated and counted."""

import gc
import itertools

import pytest
import torch
from faults import FaultAt, strike_second_step
from torch import nn

import vramfit

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]

SAMPLES, BATCH = 20, 6


class Numbers(torch.utils.data.Dataset):
    """Samples with labels of which some are not valid."""

    def __init__(self, *, classes, ignored=slice(0)):
        generator = torch.Generator().manual_seed(3)
        self.x = torch.randn(SAMPLES, 4, generator=generator, dtype=torch.float64)
        self.y = torch.randint(0, 3, (SAMPLES, 5), generator=generator)
        self.y[::3, 2:] = -100
        self.y[ignored] = -100
        self.classes = classes

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return {"x": self.x[index], "labels": self.y[index] if self.classes else self.x[index].mean()}


class Network(nn.Module):
    """Its loss is a mean, or a sum over `num_items_in_batch` where that is given."""

    def __init__(self, *, counts):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 15)).double()
        if counts:
            self.forward = self.forward_counting

    def forward(self, x, labels):
        return self.outputs(x, labels)

    def forward_counting(self, x, labels, num_items_in_batch=None, **kwargs):
        return self.outputs(x, labels, num_items_in_batch)

    def outputs(self, x, labels, items=None):
        logits = self.layers(x)
        if labels.is_floating_point():
            return {"loss": ((logits.mean(1) - labels) ** 2).mean(), "logits": logits}
        each = nn.functional.cross_entropy(logits.view(-1, 3), labels.flatten(), reduction="sum", ignore_index=-100)
        return {"loss": each / ((labels != -100).sum() if items is None else items), "logits": logits}


@pytest.fixture
def train(tmp_path):
    """Train three steps; the callback, the Trainer and the weights."""

    def run(
        *,
        limit=None,
        fault_at=None,
        accumulation=1,
        counts=False,
        classes=True,
        callback=None,
        ignored=slice(0),
        **options,
    ):
        callback = callback or fit_callback()
        callbacks = [callback, *options.pop("others", ()), *([] if fault_at is None else [failing(fault_at)])]
        model = Network(counts=counts)
        if limit is not None:
            limit(model)
        arguments = transformers.TrainingArguments(
            output_dir=tmp_path,
            max_steps=3,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=accumulation,
            learning_rate=0.05,
            max_grad_norm=0.3,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
            **options,
        )
        data = Numbers(classes=classes, ignored=ignored)
        trainer = transformers.Trainer(model, arguments, train_dataset=data, eval_dataset=data, callbacks=callbacks)
        trainer.train()
        return callback, trainer, [parameter.detach().clone() for parameter in model.parameters()]

    return run


def failing(k):
    """A callback after `FitCallback`: the second step runs out of memory at its operation k."""
    from vramfit.integrations.transformers import _calling_trainer

    class Failing(transformers.TrainerCallback):
        def on_train_begin(self, args, state, control, **given):
            strike_second_step(_calling_trainer(), FaultAt(k))

    return Failing()


def fit_callback(**told):
    from vramfit.integrations.transformers import FitCallback

    return FitCallback(**told)


def difference(mine, theirs):
    return max(float((one - other).abs().max()) for one, other in zip(mine, theirs, strict=True))


def limited(most, *, fail_after=0):
    """A network whose forward pass runs out of memory beyond so many samples, once some passes have gone well."""
    passes = itertools.count()

    def limit(model):
        def check(module, given):
            if next(passes) >= fail_after and len(given[0]) > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        model.layers.register_forward_pre_hook(check)

    return limit


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize(("counts", "classes"), [(False, False), (False, True), (True, True)])
def test_smaller_micro_batches_learn_the_same(train, accumulation, counts, classes):
    told = {"accumulation": accumulation, "counts": counts, "classes": classes}
    whole, _, weights = train(**told)
    callback, trainer, again = train(limit=limited(2, fail_after=accumulation + 1), **told)
    assert (whole.micro_batch, whole.events) == (None, [])
    assert callback.micro_batch == 2
    assert [event.micro_batch_after for event in callback.events] == [3, 2]
    assert difference(weights, again) < 1e-12
    assert trainer.state.train_batch_size == BATCH


@pytest.mark.parametrize("counts", [False, True])
def test_a_part_whose_labels_are_all_ignored_leaves_no_nan(train, counts):
    """Its mean is 0/0, and NaN times a share of 0 is NaN; samples in order, half of them ignored."""
    told = {"counts": counts, "ignored": slice(0, SAMPLES, 2), "logging_nan_inf_filter": False}
    _, whole, weights = train(**told)
    callback, trainer, again = train(limit=limited(1), **told)
    losses = [one.state.log_history[-1]["train_loss"] for one in (whole, trainer)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert callback.micro_batch == 1
    assert all(value.isfinite().all() for value in weights)
    assert difference(weights, again) < 1e-12


@pytest.mark.parametrize(("accumulation", "operations"), [(1, range(0, 330, 23)), (2, range(5, 480, 41))])
def test_a_fault_at_any_operation_changes_no_weight(train, accumulation, operations):
    gc.collect()
    gc.freeze()
    _, _, weights = train(accumulation=accumulation)
    phases = set()
    for k in operations:
        callback, _, again = train(accumulation=accumulation, fault_at=k)
        assert difference(weights, again) < 1e-12, k
        phases |= {event.phase for event in callback.events}
    assert phases == {"forward", "backward", "optimizer"}


@pytest.mark.parametrize("ignored", [slice(0), slice(0, 6)])
def test_an_evaluation_that_does_not_fit_is_taken_in_halves(train, ignored):
    _, trainer, _ = train(per_device_eval_batch_size=8, ignored=ignored)
    whole = trainer.predict(trainer.eval_dataset)
    limited(3)(trainer.model)
    halved = trainer.predict(trainer.eval_dataset)
    assert halved.predictions == pytest.approx(whole.predictions, abs=1e-12)
    assert (halved.label_ids == whole.label_ids).all()
    assert halved.metrics["test_loss"] == pytest.approx(whole.metrics["test_loss"], rel=1e-6)


def test_a_single_sample_that_does_not_fit_is_said(train):
    with pytest.raises(vramfit.OutOfMemory, match="micro-batch of 1"):
        train(limit=limited(0))


def test_one_callback_serves_one_trainer_after_another(train):
    _, _, whole = train()
    callback = fit_callback()
    for fold in (1, 2):
        _, trainer, weights = train(limit=limited(2), callback=callback)
        assert len(callback.events) == 2 * fold
        assert difference(weights, whole) < 1e-12
        assert left_in(trainer) == set()


def test_a_training_that_raised_is_not_in_the_next_ones_way(train):
    def limit(model):
        passes = itertools.count()

        def check(module, given):
            if next(passes) == 1:
                raise KeyError("films")

        model.layers.register_forward_pre_hook(check)

    callback, trainers = fit_callback(), []

    class Keeps(transformers.TrainerCallback):
        def on_train_begin(self, args, state, control, **given):
            from vramfit.integrations.transformers import _calling_trainer

            trainers.append(_calling_trainer())

    with pytest.raises(KeyError, match="films"):
        train(limit=limit, callback=callback, others=[Keeps()])
    (trainer,) = trainers
    trainer.train()
    assert left_in(trainer) == set()


def left_in(trainer):
    """What of a Trainer and its optimizer a training left replaced; the schedule marks the optimizer's step itself."""
    from vramfit.integrations import transformers as mine

    left = {"training_step", "compute_loss", "_clip_grad_norm"} & set(vars(trainer))
    return left | ({"step"} if trainer.optimizer.step.__code__.co_filename == mine.__file__ else set())


def test_what_cannot_be_recovered_is_refused(train):
    with pytest.raises(vramfit.UsageError, match="does not work with auto_find_batch_size"):
        train(auto_find_batch_size=True)
    with pytest.raises(vramfit.UsageError, match="reserve_bytes is of a CUDA card"):
        train(callback=fit_callback(reserve_bytes=1))


def test_events_are_told_and_another_training_goes_on_with_what_fits(train, caplog):
    told = []
    callback, trainer, _ = train(limit=limited(2), callback=fit_callback(on_event=told.append))
    assert told == callback.events
    assert "ran out of memory with a micro-batch of 6; it goes on with 3" in caplog.text
    trainer.train()
    assert callback.events == told


@pytest.mark.parametrize("counts", [False, True])
def test_a_batch_is_found_before_the_run_and_the_effective_batch_kept(train, counts, caplog):
    told = {"counts": counts, "classes": counts}
    _, _, whole = train(**told)
    callback, trainer, weights = train(limit=limited(2), callback=fit_callback(find=True), **told)
    assert callback.result.batch_size == trainer.args.per_device_train_batch_size == 2
    assert trainer.args.gradient_accumulation_steps == 3
    assert callback.result.reason == "batch 2, 3 times a step: 3 runs out of memory."
    assert "Trainer: batch 2, 3 times a step" in caplog.text
    assert (callback.events, trainer.state.global_step) == ([], 3)
    assert difference(weights, whole) < 1e-12
    assert len(trainer.state.log_history) == 1


def test_fewer_accumulation_steps_are_found_and_a_longer_sample_is_still_recovered(train):
    most = [6]

    def limit(model):
        def check(module, given):
            if len(given[0]) > most[0]:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        model.layers.register_forward_pre_hook(check)

    class Longer(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **given):
            most[0] = 2

    callback = fit_callback(find=True, effective_batch=12)
    callback, trainer, weights = train(limit=limit, callback=callback, others=[Longer()], accumulation=4, classes=False)
    assert (trainer.args.per_device_train_batch_size, trainer.args.gradient_accumulation_steps) == (6, 2)
    assert callback.micro_batch == 2
    most[0] = 100
    found = [one.micro_batch for one in callback.result.trials]
    trainer.train()
    assert [one.micro_batch for one in callback.result.trials] == found
    assert all(value.isfinite().all() for value in weights)


def test_a_resumed_run_keeps_the_batch_of_its_checkpoint(train, tmp_path):
    _, trainer, _ = train(limit=limited(2), callback=fit_callback(find=True), classes=False)
    trainer._save_checkpoint(trainer.model, None)
    callback, again = fit_callback(find=True), tmp_path / "checkpoint-3"
    arguments = transformers.TrainingArguments(
        tmp_path, max_steps=4, per_device_train_batch_size=BATCH, use_cpu=True, report_to=[], save_strategy="no"
    )
    data = Numbers(classes=False)
    resumed = transformers.Trainer(Network(counts=False), arguments, train_dataset=data, callbacks=[callback])
    resumed.train(resume_from_checkpoint=str(again))
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (2, 3)
    assert (callback.result, resumed.state.global_step) == (None, 4)


def test_a_trial_leaves_mixed_precision_and_a_given_optimizer_as_they_were(tmp_path):
    model = Network(counts=False).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    arguments = transformers.TrainingArguments(
        tmp_path,
        max_steps=1,
        per_device_train_batch_size=BATCH,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        bf16=True,
    )
    data = Numbers(classes=True)
    data.x = data.x.float()
    callback, before = fit_callback(find=True), []

    class Notes(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, model, **given):
            before.append(vars(model)["_original_forward"].__func__)

    trainer = transformers.Trainer(
        model, arguments, train_dataset=data, callbacks=[callback, Notes()], optimizers=(optimizer, schedule)
    )
    trainer.train()
    assert callback.result.batch_size == BATCH
    assert {float(state["step"]) for state in optimizer.state.values()} == {1.0}
    assert schedule.last_epoch == 1
    assert before == [Network.forward]  # autocast is around it once


def test_a_search_that_cannot_be_is_refused(train):
    with pytest.raises(vramfit.NothingFits, match="not even 1"):
        train(limit=limited(0), callback=fit_callback(find=True))
    with pytest.raises(vramfit.UsageError, match="with find=True"):
        fit_callback(effective_batch=8)
    _, trainer, _ = train()
    trainer.add_callback(fit_callback(find=True))
    with pytest.raises(vramfit.UsageError, match="from the start"):
        trainer.train()
