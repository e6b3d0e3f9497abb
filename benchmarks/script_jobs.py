"""The peak of each unchanged script beside that of the same training described as a Job: goal, within 2 %.

    python benchmarks/run_scripts.py && python benchmarks/script_jobs.py

The scripts' peaks are read from results of `run_scripts.py`. The Jobs are written here by hand from the scripts' own
classes, which are taken from their files without running these. Not compared: scripts whose step no Job describes
(several ranks, two networks in turn, batches of random length).
"""

import argparse
import ast
import json
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from ending import RESULTS, end
from torch import nn
from torch.nn import functional as F

from vramfit.cards import find_card
from vramfit.jobs.job import Job
from vramfit.prediction.tracing.trace import trace_step
from vramfit.prediction.transforms.accumulate import accumulating
from vramfit.units import MIB

SCRIPTS = Path(__file__).resolve().parent / "scripts"
CARD = find_card("RTX 3070 Ti")
GOAL = 0.02
SEEN = ("run_scripts", "run_scripts_unseen")
ACCUMULATING = {"hf_language_model"}  # two micro-batches a step
adam = partial(torch.optim.AdamW, lr=1e-3)


def defined(name, **given):
    """What a script imports and defines, and the settings that it writes out, without what it does."""
    tree = ast.parse((SCRIPTS / f"{name}.py").read_text())
    kept = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)
    tree.body = [part for part in tree.body if isinstance(part, kept) or _is_setting(part)]
    names = {"__name__": name, **given}
    exec(compile(tree, name, "exec"), names)
    return SimpleNamespace(**names)


def _is_setting(part):
    if not isinstance(part, ast.Assign):
        return False
    return not any(isinstance(inner, (ast.Call, ast.Name)) for inner in ast.walk(part.value))


class LossAlone(nn.Module):
    """A network of transformers that lets go of its other outputs, as `model(**batch).loss` does."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, input_ids, labels, attention_mask=None):
        """The loss."""
        return self.network(input_ids=input_ids, labels=labels, attention_mask=attention_mask).loss


def tokens(count, length):
    """A batch of a language model: ids and labels."""

    def batch(n):
        ids = torch.randint(1, count, (n, length))
        return {"input_ids": ids, "labels": ids.clone()}

    return batch


def images(size, classes, channels=3):
    return lambda n: (torch.randn(n, channels, size, size), torch.randint(0, classes, (n,)))


class BroughtAhead:
    """A loader that has its batch and the next on the card while a step runs, beside a copy in the network's order."""

    def __init__(self):
        self.held = ()

    def __call__(self, inputs, targets, training):
        """The batch as it is."""
        self.held = (inputs, inputs.clone()) if training else ()
        return inputs, targets


def plain_loop():
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    return Job(model=defined("plain_loop").Net, batch=images(64, 10), loss=loss, optimizer=adam, clip_norm=1.0), 32


def timm_like():
    import timm
    from timm.loss import SoftTargetCrossEntropy
    from timm.optim import create_optimizer_v2

    return Job(
        model=lambda: timm.create_model("resnet18", num_classes=100, drop_path_rate=0.1),
        batch=lambda n: (torch.randn(n, 3, 128, 128), torch.rand(n, 100)),
        loss=SoftTargetCrossEntropy(),
        optimizer=lambda parameters: create_optimizer_v2(list(parameters), opt="lamb", lr=5e-3, weight_decay=0.02),
        prepare=BroughtAhead(),
        channels_last=True,
        clip_norm=1.0,
        late_zero_grad=True,
        ema_decay=0.999,
        cudnn_benchmark=True,
    ), 16


def hf_trainer():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=5000, n_positions=256, n_embd=256, n_layer=4, n_head=4, use_cache=False
    )  # as Trainer has it

    def batch(n):
        return {**tokens(5000, 128)(n), "attention_mask": torch.ones(n, 128, dtype=torch.int64)}

    return Job(
        model=lambda: LossAlone(GPT2LMHeadModel(config)), batch=batch, optimizer=adam, amp=None, clip_norm=1.0
    ), 8


def hf_language_model():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=1000, n_embd=128, n_layer=3, n_head=4, n_positions=128, use_cache=False)
    return Job(
        model=lambda: LossAlone(GPT2LMHeadModel(config)),
        batch=tokens(1000, 128),
        optimizer=adam,
        amp="bf16",
        clip_norm=1.0,
    ), 4


def accelerate_loop():
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=3000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024
    )

    def batch(n):
        ids = torch.randint(1, 3000, (n, 64))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.zeros(n, dtype=torch.int64)}

    return Job(
        model=lambda: LossAlone(BertForSequenceClassification(config)),
        batch=batch,
        optimizer=adam,
        amp=None,
        clip_norm=1.0,
    ), 16


def accelerate_cv():
    from torchvision.models import resnet18

    frozen = ("conv1", "bn1", "layer1", "layer2", "layer3")
    adam_only = partial(torch.optim.Adam, lr=1e-3)
    return Job(
        model=lambda: resnet18(num_classes=5),
        batch=images(64, 5),
        loss=F.cross_entropy,
        optimizer=adam_only,
        clip_norm=1.0,
        frozen=frozen,
    ), 16


def lightning_module():
    network = partial(nn.Sequential, nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 64), nn.Linear(64, 512), nn.ReLU())
    return Job(
        model=lambda: network(nn.Linear(512, 784)),
        batch=lambda n: (torch.rand(n, 784), torch.rand(n, 784)),
        loss=lambda outputs, _: F.mse_loss(outputs, torch.rand_like(outputs, dtype=torch.float32)),
        optimizer=adam,
    ), 64


def nanogpt_like():
    script = defined("nanogpt_like")

    def step(run, batch):
        for tokens, following in zip(*(part.chunk(script.gradient_accumulation_steps) for part in batch), strict=True):
            _logits, loss = run.model(tokens, following)  # the logits live until the next are there
            run.backward(loss / script.gradient_accumulation_steps)
        run.update()
        return loss

    return Job(
        model=script.GPT,
        batch=lambda n: (torch.randint(0, 8192, (n, 256)), torch.randint(0, 8192, (n, 256))),
        step=step,
        optimizer=partial(torch.optim.AdamW, lr=6e-4, fused=True),
        amp="bf16",
        clip_norm=1.0,
    ), 16


def diffusion():
    from diffusers import UNet2DModel

    def network():
        return UNet2DModel(
            sample_size=32, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(64, 128),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip

    return Job(
        model=network,
        batch=lambda n: ((torch.randn(n, 3, 32, 32), torch.randint(0, 1000, (n,))), torch.randn(n, 3, 32, 32)),
        loss=lambda outputs, noise: F.mse_loss(outputs.sample.float(), noise),
        optimizer=adam,
        amp="bf16",
        clip_norm=1.0,
        ema_decay=0.999,
    ), 16


def lora():
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    def network():
        config = LlamaConfig(
            vocab_size=8000, hidden_size=512, intermediate_size=1376, num_hidden_layers=6, num_attention_heads=8,
            num_key_value_heads=8,
        )  # fmt: skip
        model = LlamaForCausalLM(config).to(torch.bfloat16)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
        adapter = LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        return LossAlone(get_peft_model(model, adapter))

    return Job(model=network, batch=tokens(8000, 256), optimizer=adam, amp=None, clip_norm=1.0), 4


def torchvision_segmentation():
    from torchvision.models.segmentation import fcn_resnet50

    script = defined("torchvision_segmentation")
    return Job(
        model=lambda: fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True),
        batch=lambda n: (torch.rand(n, 3, 160, 160), torch.randint(0, 21, (n, 160, 160))),
        loss=script.criterion,
        optimizer=partial(torch.optim.SGD, lr=0.01, momentum=0.9),
        amp=None,
        late_zero_grad=True,
    ), 4


def toml_config():
    script = defined("toml_config")
    settings = SimpleNamespace(width=96, depth=2, patch=8, image=64)

    def loss(logits, _):
        labels = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels)) / 2

    def prepare(inputs, targets, _):
        pictures, texts = inputs
        return (pictures.float().div_(255).sub_(0.5).div_(0.25), texts), targets

    def batch(n):
        pictures = torch.randint(0, 256, (n, 3, 64, 64), dtype=torch.uint8)
        return (pictures, torch.randint(0, 800, (n, 32))), torch.zeros(n)

    return Job(
        model=lambda: script.Contrastive(settings),
        batch=batch,
        loss=loss,
        optimizer=adam,
        prepare=prepare,
        late_zero_grad=True,
    ), 16


def monai_spleen():
    from monai.losses import DiceCELoss
    from monai.networks.layers import Norm
    from monai.networks.nets import UNet

    def network():
        return UNet(
            spatial_dims=3, in_channels=1, out_channels=2, channels=(16, 32, 64, 128), strides=(2, 2, 2),
            num_res_units=2, norm=Norm.BATCH,
        )  # fmt: skip

    def batch(n):
        return torch.rand(n, 1, 64, 64, 64), torch.randint(0, 2, (n, 1, 64, 64, 64), dtype=torch.uint8)

    dice = DiceCELoss(to_onehot_y=True, softmax=True)

    def loss(outputs, labels):
        with torch.autocast("cuda"):  # as the script has it: softmax then computes, and keeps, float32
            return dice(outputs, labels)

    return Job(model=network, batch=batch, loss=loss, optimizer=partial(torch.optim.Adam, lr=1e-4)), 8


def trainer_class():
    return Job(
        model=partial(defined("trainer_class").SEResNet, 100),
        batch=images(64, 100),
        loss=F.cross_entropy,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True),
        amp=None,
        clip_norm=5.0,
        late_zero_grad=True,
        ema_decay=0.9998,
    ), 64


def imagenet_prefetch():
    from torchvision.models import resnet18

    return Job(
        model=resnet18,
        batch=images(128, 1000),
        loss=F.cross_entropy,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-4),
        prepare=BroughtAhead(),
        clip_norm=1.0,
        late_zero_grad=True,
        cudnn_benchmark=True,
    ), 32


def notebook_export():
    return Job(
        model=defined("notebook_export").Net,
        batch=lambda n: (torch.rand(n, 3, 96, 96), torch.rand(n)),
        loss=F.binary_cross_entropy_with_logits,
        optimizer=adam,
    ), 48


def cifar_data_parallel():
    return Job(
        model=partial(defined("cifar_data_parallel").PreActResNet, [2, 2, 2, 2]),
        batch=images(32, 10),
        loss=F.cross_entropy,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=5e-4),
        amp=None,
        cudnn_benchmark=True,
    ), 128


def engine_events():
    def step(run, batch):
        loss = F.mse_loss(run.model(batch[0]), batch[1])  # which alone keeps the network's output
        run.backward(loss)
        run.update()
        return loss

    return Job(
        model=partial(defined("engine_events").Net, 3),
        batch=lambda n: (torch.rand(n, 1, 85, 85), torch.rand(n, 1, 255, 255)),
        step=step,
        optimizer=partial(torch.optim.Adam, lr=0.01),
        amp=None,
    ), 16


def vae():
    script = defined("vae")

    def step(run, batch):
        reconstructed, mean, log_variance = run.model(batch[0])
        loss = script.loss_function(reconstructed, batch[0], mean, log_variance)
        run.backward(loss)
        run.update()
        return loss

    return Job(
        model=script.VAE,
        batch=lambda n: (torch.rand(n, 1, 28, 28), torch.randint(0, 10, (n,))),
        step=step,
        optimizer=partial(torch.optim.Adam, lr=1e-3),
        amp=None,
    ), 128


def keras_like():
    return Job(
        model=defined("keras_like").TextCNN,
        batch=lambda n: (torch.randint(1, 5000, (n, 200)), torch.randint(0, 4, (n,))),
        loss=F.cross_entropy,
        optimizer=partial(torch.optim.RMSprop, lr=1e-3),
        amp=None,
    ), 64


def unet_png():
    script = defined("unet_png")

    def loss(outputs, masks):
        shares = F.softmax(outputs, dim=1).float()
        with torch.autocast("cuda"):
            entropy = F.cross_entropy(outputs, masks)
            return entropy + 1 - script.dice_coeff(shares, F.one_hot(masks, 2).permute(0, 3, 1, 2).float())

    return Job(
        model=partial(script.UNet, 3, 2),
        batch=lambda n: (torch.rand(n, 3, 64, 95), torch.randint(0, 2, (n, 64, 95))),
        loss=loss,
        optimizer=partial(torch.optim.RMSprop, lr=1e-5, weight_decay=1e-8, momentum=0.999, foreach=True),
        channels_last=True,
        clip_norm=1.0,
        late_zero_grad=True,
    ), 2


def triplet():
    script = defined("triplet")

    def loss(embedded, identities):
        positive, negative = script.hard_example_mining(script.euclidean_dist(embedded, embedded), identities)
        return F.margin_ranking_loss(negative, positive, torch.ones_like(negative), margin=0.3)

    return Job(
        model=partial(script.EmbeddingNet, 128),
        batch=lambda n: (torch.rand(n, 3, 128, 64), torch.arange(n) // 4),
        loss=loss,
        optimizer=partial(torch.optim.Adam, lr=3.5e-4, weight_decay=5e-4),
        amp=None,
    ), 48


def ddpm_scratch():
    script = defined("ddpm_scratch")

    def step(run, batch):
        for pictures in batch[0].chunk(2):
            loss = run.model(pictures) / 2
            run.backward(loss)
        run.update()
        return loss

    return Job(
        model=lambda: script.GaussianDiffusion(script.Unet(32, (1, 2, 4)), image_size=64),
        batch=lambda n: (torch.rand(n, 3, 64, 64), torch.zeros(n)),
        step=step,
        optimizer=partial(torch.optim.Adam, lr=2e-4, betas=(0.9, 0.99)),
        ema_decay=0.995,
    ), 32


def gpt_lecture():
    script = defined("gpt_lecture")

    def step(run, batch):
        for tokens, following in zip(*(part.chunk(4) for part in batch), strict=True):
            _logits, loss = run.model(tokens, following)  # the logits live until the next are there
            run.backward(loss / 4)
        run.update()
        return loss

    return Job(
        model=lambda: script.GPT(script.GPTConfig()),
        batch=lambda n: (torch.randint(0, 256, (n, 256)), torch.randint(0, 256, (n, 256))),
        step=step,
        optimizer=partial(torch.optim.AdamW, lr=6e-4, fused=True),
        amp="bf16",
        clip_norm=1.0,
    ), 32


def segkit():
    sys.path.insert(0, str(SCRIPTS))
    from segkit.models import LightUNet

    class Summed(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = LightUNet(24, 5)

        def forward(self, img, gt):
            return sum(part.mean() for part in self.network(img, return_loss=True, gt=gt).values())

    return Job(
        model=Summed,
        batch=lambda n: {"img": torch.rand(n, 3, 128, 128), "gt": torch.randint(0, 5, (n, 128, 128))},
        optimizer=adam,
        late_zero_grad=True,
    ), 6


JOBS = (
    plain_loop, timm_like, hf_trainer, hf_language_model, accelerate_loop, accelerate_cv, lightning_module,
    nanogpt_like, diffusion, lora, torchvision_segmentation, toml_config, monai_spleen, trainer_class,
    imagenet_prefetch, notebook_export, cifar_data_parallel, engine_events, vae, keras_like, unet_png, triplet,
    ddpm_scratch, gpt_lecture, segkit,
)  # fmt: skip


def compared(make, seen):
    job, samples = make()
    trace = trace_step(job, samples, capability=CARD.compute_capability)
    if make.__name__ in ACCUMULATING:
        trace = accumulating(trace)
    script = seen[make.__name__]["peak_mib"]
    described = round(trace.peak_bytes / MIB, 1)
    return {
        "script": make.__name__,
        "samples": samples,
        "script_peak_mib": script,
        "job_peak_mib": described,
        "difference": round(script / described - 1, 4),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    only = [name for name in parser.parse_args().only.split(",") if name]
    began = time.perf_counter()
    rows = [row for name in SEEN for row in json.loads((RESULTS / f"{name}.json").read_text())["rows"]]
    seen = {row["script"].removesuffix(".py"): row for row in rows}
    table = []
    for make in JOBS:
        if not only or make.__name__ in only:
            table.append(compared(make, seen))
            print(table[-1], flush=True)
    within = sum(abs(row["difference"]) <= GOAL for row in table)
    result = {"card": CARD.name, "goal": GOAL, "scripts": len(table), "within_goal": within, "rows": table}
    end("script_jobs", result, began, sound=within == len(table))


if __name__ == "__main__":
    main()
