"""Jobs of the size that people train, up to some 8 GB: images, language, diffusion, detection, volumes, sequences."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import diffusers
import monai
import timm
import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import detection, segmentation, video

from vramfit.jobs.job import Job
from vramfit.jobs.levers.text import parse_levers
from vramfit.landmarks.model.job import landmark_job
from vramfit.landmarks.model.options import LandmarkJobOptions

JOBS: dict[str, tuple[Callable[[], Job], int]] = {}


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-4)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def add(name: str, samples: int, amp: Any, **job: Any) -> None:
    """Put a job on the list under its name and precision."""
    job.setdefault("optimizer", adamw)
    shown = f"{name}{' nhwc' if job.get('channels_last') else ''} {amp or 'fp32'} x{samples}"
    JOBS[shown] = partial(Job, amp=amp, **job), samples


def pictures(size: int, classes: int = 1000, channels: int = 3) -> Any:
    return lambda n: (torch.randn(n, channels, size, size), torch.randint(classes, (n,)))


def classifier(model: str, samples: int, amp: Any, size: int = 224, **more: Any) -> None:
    make = partial(timm.create_model, model, **more.pop("arguments", {}))
    add(f"timm {model} {size}", samples, amp, model=make, batch=pictures(size), loss=F.cross_entropy, **more)


for _model, _samples, _amp, _more in (
    ("resnet50", 32, None, {}),
    ("resnet50", 32, "fp16", {}),
    ("resnet50", 64, "fp16", {"channels_last": True}),
    ("resnet50", 32, "bf16", {"cudnn_benchmark": True}),
    ("resnet50", 32, None, {"channels_last": True}),
    ("resnext50_32x4d", 32, "fp16", {"channels_last": True}),
    ("convnext_tiny", 32, "bf16", {}),
    ("convnext_tiny", 32, "bf16", {"channels_last": True}),
    ("efficientnet_b0", 64, "fp16", {}),
    ("efficientnet_b3", 32, "bf16", {"channels_last": True, "size": 300}),
    ("densenet121", 32, None, {}),
    ("regnety_032", 48, "bf16", {}),
    ("mobilenetv3_large_100", 96, "fp16", {"channels_last": True}),
    ("vit_base_patch16_224", 32, "bf16", {}),
    ("vit_small_patch16_224", 64, None, {}),
    ("vit_base_patch16_224", 16, "fp16", {"optimizer": sgd, "clip_norm": 1.0}),
    ("swin_tiny_patch4_window7_224", 32, "fp16", {}),
    ("maxvit_tiny_tf_224", 16, "bf16", {}),
    ("vgg16_bn", 32, "fp16", {"channels_last": True}),
    ("vgg16_bn", 16, None, {}),
    ("dpn68", 32, "bf16", {"channels_last": True}),
    ("ghostnet_100", 96, "fp16", {"ema_decay": 0.999}),
    ("inception_v3", 32, "bf16", {"size": 299}),
    ("fastvit_t8", 64, "bf16", {"size": 256}),
    ("tf_efficientnetv2_s", 32, "fp16", {"channels_last": True, "size": 300}),
    ("hrnet_w18_small_v2", 32, None, {}),
):
    classifier(_model, _samples, _amp, **_more)


def landmarks(samples: int, amp: Any, **options: Any) -> None:
    given = LandmarkJobOptions(image_size=(768, 768), clip_norm=1.0, ema_decay=0.999, amp=amp, **options)
    name = f"landmarks {given.model}{' nhwc' if given.channels_last else ''} 768 {amp or 'fp32'} x{samples}"
    JOBS[name] = partial(landmark_job, given), samples


landmarks(2, "fp16", model="hrnet_w32")
landmarks(4, "fp16", model="hrnet_w32")
landmarks(4, "bf16", model="hrnet_w32", channels_last=True)
landmarks(4, None, model="hrnet_w18_small_v2")


def text(length: int, words: int) -> Any:
    def batch(n: int) -> dict[str, Tensor]:
        ids = torch.randint(5, words, (n, length))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}

    return batch


def language(
    name: str,
    config: Any,
    samples: int,
    length: int,
    amp: Any,
    kind: Any,
    *,
    checkpoint: bool = False,
    attention: str = "sdpa",
    **more: Any,
) -> None:
    def model() -> nn.Module:
        made: nn.Module = kind.from_config(config, attn_implementation=attention)
        if checkpoint:
            made.gradient_checkpointing_enable()
        return made

    shown = f"{name} {length} {attention}{' checkpointed' if checkpoint else ''}"
    add(shown, samples, amp, model=model, batch=text(length, config.vocab_size), **more)


CAUSAL, MASKED, PAIRED = hf.AutoModelForCausalLM, hf.AutoModelForMaskedLM, hf.AutoModelForSeq2SeqLM
LLAMA = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "use_cache": False,
}
language("gpt2", hf.GPT2Config(use_cache=False), 4, 1024, "bf16", CAUSAL)
language("gpt2", hf.GPT2Config(use_cache=False), 4, 512, None, CAUSAL)
language("gpt2", hf.GPT2Config(use_cache=False), 2, 1024, "fp16", CAUSAL, attention="eager")
language("gpt2", hf.GPT2Config(use_cache=False), 8, 1024, "bf16", CAUSAL, checkpoint=True)
language("llama small", hf.LlamaConfig(**LLAMA), 4, 1024, "bf16", CAUSAL)
language("llama small", hf.LlamaConfig(**LLAMA), 2, 1024, None, CAUSAL)
language("qwen3 small", hf.Qwen3Config(**LLAMA, head_dim=64), 4, 1024, "bf16", CAUSAL, checkpoint=True)
language("bert base", hf.BertConfig(), 16, 512, "fp16", MASKED)
language("bert base", hf.BertConfig(), 8, 512, None, MASKED)
language("roberta base", hf.RobertaConfig(), 16, 256, "bf16", MASKED, attention="eager")
language(
    "deberta base", hf.DebertaV2Config(hidden_size=768, num_hidden_layers=6), 8, 256, "bf16", MASKED, attention="eager"
)
language(
    "t5 small",
    hf.T5Config(use_cache=False, decoder_start_token_id=0, pad_token_id=0),
    16,
    512,
    "bf16",
    PAIRED,
    attention="eager",
)
language(
    "bart base",
    hf.BartConfig(
        d_model=768,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=12,
        decoder_attention_heads=12,
        encoder_ffn_dim=3072,
        decoder_ffn_dim=3072,
        use_cache=False,
    ),
    8,
    512,
    "fp16",
    PAIRED,
)
language(
    "mamba",
    hf.MambaConfig(hidden_size=512, num_hidden_layers=8, use_cache=False),
    4,
    256,
    None,
    CAUSAL,
    attention="eager",
)


class Denoising(nn.Module):
    """The training step of a diffusion model: noise, a time, the network, the mean square."""

    def __init__(self, network: Callable[[], nn.Module], steps: int = 1000) -> None:
        super().__init__()
        self.network = network()
        self.register_buffer("kept", torch.linspace(0.999, 0.001, steps))

    def forward(self, latents: Tensor, text: Tensor | None = None) -> Tensor:
        noise = torch.randn_like(latents)
        time = torch.randint(0, len(self.kept), (len(latents),), device=latents.device)
        share = self.kept[time].view(-1, 1, 1, 1)
        noisy = share.sqrt() * latents + (1 - share).sqrt() * noise
        more = {} if text is None else {"encoder_hidden_states": text}
        return F.mse_loss(self.network(noisy, time, **more).sample.float(), noise)


def sd_like() -> nn.Module:
    return Denoising(
        lambda: diffusers.UNet2DConditionModel(
            sample_size=64, block_out_channels=(160, 320, 640, 640), cross_attention_dim=768
        )
    )


add(
    "diffusers UNet2D 64",
    16,
    "fp16",
    model=lambda: Denoising(
        lambda: diffusers.UNet2DModel(
            sample_size=64,
            block_out_channels=(128, 128, 256, 256, 512, 512),
            down_block_types=("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
        )
    ),
    batch=lambda n: {"latents": torch.randn(n, 3, 64, 64)},
)
add(
    "diffusers UNet2DCondition",
    4,
    "bf16",
    model=sd_like,
    batch=lambda n: {"latents": torch.randn(n, 4, 64, 64), "text": torch.randn(n, 77, 768)},
)
add(
    "diffusers UNet2DCondition",
    2,
    None,
    model=sd_like,
    batch=lambda n: {"latents": torch.randn(n, 4, 64, 64), "text": torch.randn(n, 77, 768)},
)


def found(n: int, size: int = 640, *, masks: bool = False) -> Any:
    images, targets = [], []
    for number in range(n):
        boxes = torch.rand(4 + number % 3, 4) * size / 2
        boxes[:, 2:] += boxes[:, :2] + 16
        target = {"boxes": boxes, "labels": torch.randint(1, 21, (len(boxes),))}
        if masks:
            target["masks"] = torch.randint(2, (len(boxes), size, size), dtype=torch.uint8)
        images.append(torch.rand(3, size, size))
        targets.append(target)
    return images, targets


BARE = {"weights": None, "weights_backbone": None, "num_classes": 21, "min_size": 640, "max_size": 640}
for _name, _samples, _amp, _batch in (
    ("fasterrcnn_resnet50_fpn", 4, None, found),
    ("fasterrcnn_resnet50_fpn", 4, "fp16", found),
    ("retinanet_resnet50_fpn", 4, "bf16", found),
    ("maskrcnn_resnet50_fpn", 2, "fp16", partial(found, masks=True)),
):
    build = partial(getattr(detection, _name), **BARE)
    add(f"torchvision {_name} 640", _samples, _amp, model=build, batch=_batch, optimizer=sgd)
add(
    "torchvision ssd300",
    16,
    None,
    model=partial(detection.ssd300_vgg16, weights=None, weights_backbone=None, num_classes=21),
    batch=partial(found, size=300),
    optimizer=sgd,
)


def pixels(size: int, classes: int) -> Any:
    return lambda n: (torch.randn(n, 3, size, size), torch.randint(classes, (n, size, size)))


def first(loss: Any) -> Any:
    return lambda outputs, targets: loss(outputs["out"], targets)


add(
    "torchvision deeplabv3_resnet50 384",
    8,
    "fp16",
    model=partial(segmentation.deeplabv3_resnet50, weights=None, weights_backbone=None, num_classes=21),
    batch=pixels(384, 21),
    loss=first(F.cross_entropy),
    optimizer=sgd,
)
add(
    "torchvision fcn_resnet50 384",
    4,
    None,
    model=partial(segmentation.fcn_resnet50, weights=None, weights_backbone=None, num_classes=21),
    batch=pixels(384, 21),
    loss=first(F.cross_entropy),
    optimizer=sgd,
)
add(
    "torchvision r3d_18",
    4,
    "fp16",
    model=partial(video.r3d_18, weights=None),
    batch=lambda n: (torch.randn(n, 3, 16, 112, 112), torch.randint(400, (n,))),
    loss=F.cross_entropy,
)


def volumes(size: int, classes: int) -> Any:
    return lambda n: (torch.randn(n, 1, size, size, size), torch.randint(classes, (n, 1, size, size, size)))


def dice(outputs: Tensor, targets: Tensor) -> Tensor:
    found: Tensor = monai.losses.DiceCELoss(to_onehot_y=True, softmax=True)(outputs, targets)
    return found


def unet3d() -> nn.Module:
    return monai.networks.nets.UNet(3, 1, 4, (32, 64, 128, 256), (2, 2, 2), num_res_units=2)


add("monai UNet 96", 2, "fp16", model=unet3d, batch=volumes(96, 4), loss=dice)
add("monai UNet 96", 2, None, model=unet3d, batch=volumes(96, 4), loss=dice)
add(
    "monai SwinUNETR 64",
    1,
    "bf16",
    model=partial(monai.networks.nets.SwinUNETR, in_channels=1, out_channels=4, feature_size=24),
    batch=volumes(64, 4),
    loss=dice,
)


class Unet(nn.Module):
    """A plain U-Net of four levels."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()

        def block(a: int, b: int) -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(a, b, 3, padding=1),
                nn.BatchNorm2d(b),
                nn.ReLU(True),
                nn.Conv2d(b, b, 3, padding=1),
                nn.BatchNorm2d(b),
                nn.ReLU(True),
            )

        widths = [width * 2**level for level in range(5)]
        self.down = nn.ModuleList(block(a, b) for a, b in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * a, a, 2, 2) for a in reversed(widths[:-1]))
        self.join = nn.ModuleList(block(2 * a, a) for a in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, reversed(kept[:-1]), strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x)


add("U-Net 512", 4, "fp16", model=Unet, batch=pixels(512, 2), loss=F.cross_entropy)
add("U-Net 512", 4, "fp16", model=Unet, batch=pixels(512, 2), loss=F.cross_entropy, channels_last=True)
add("U-Net 512", 2, None, model=Unet, batch=pixels(512, 2), loss=F.cross_entropy)


class Recurrent(nn.Module):
    """Two layers over embedded words, and a product for each word."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.words = nn.Embedding(20_000, 512)
        self.layers = getattr(nn, kind)(512, 1024, 2, batch_first=True, dropout=0.2)
        self.head = nn.Linear(1024, 20_000)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layers(self.words(ids))[0])


def next_words(n: int) -> Any:
    ids = torch.randint(20_000, (n, 129))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def by_word(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


add("LSTM 1024", 32, None, model=partial(Recurrent, "LSTM"), batch=next_words, loss=by_word)
add("LSTM 1024", 32, "fp16", model=partial(Recurrent, "LSTM"), batch=next_words, loss=by_word)
add("GRU 1024", 32, None, model=partial(Recurrent, "GRU"), batch=next_words, loss=by_word)


class Pairs(nn.Module):
    """Two encoders whose outputs are compared each with each."""

    def __init__(self) -> None:
        super().__init__()
        self.eyes = timm.create_model("resnet26", num_classes=512)
        self.words = nn.Sequential(
            nn.Embedding(30_000, 512),
            nn.TransformerEncoder(nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True), 6),
        )

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        seen, read = F.normalize(self.eyes(image), dim=1), F.normalize(self.words(ids).mean(1), dim=1)
        scores = 20 * seen.float() @ read.float().t()
        target = torch.arange(len(image), device=image.device)
        return F.cross_entropy(scores, target) + F.cross_entropy(scores.t(), target)


add(
    "pairs contrastive",
    128,
    "bf16",
    model=Pairs,
    batch=lambda n: {"image": torch.randn(n, 3, 128, 128), "ids": torch.randint(30_000, (n, 64))},
)
add(
    "pairs contrastive",
    64,
    None,
    model=Pairs,
    batch=lambda n: {"image": torch.randn(n, 3, 128, 128), "ids": torch.randint(30_000, (n, 64))},
)
add(
    "wav2vec2 ctc",
    4,
    "fp16",
    model=lambda: hf.Wav2Vec2ForCTC(hf.Wav2Vec2Config(num_hidden_layers=6, mask_time_prob=0.0, layerdrop=0.0)),
    batch=lambda n: {"input_values": torch.randn(n, 80_000), "labels": torch.randint(1, 31, (n, 40))},
)
add(
    "whisper tiny",
    4,
    "fp16",
    model=lambda: hf.WhisperForConditionalGeneration(hf.WhisperConfig(use_cache=False)),
    batch=lambda n: {"input_features": torch.randn(n, 80, 3000), "labels": torch.randint(1, 5000, (n, 64))},
)
add(
    "segformer b1",
    8,
    "bf16",
    model=lambda: hf.SegformerForSemanticSegmentation(
        hf.SegformerConfig(
            hidden_sizes=[64, 128, 320, 512], depths=[2, 2, 2, 2], decoder_hidden_size=256, num_labels=20
        )
    ),
    batch=lambda n: {"pixel_values": torch.randn(n, 3, 384, 384), "labels": torch.randint(20, (n, 384, 384))},
)


def levered(name: str, text: str) -> None:
    """A job of the list again, with levers."""
    make, samples = JOBS[name]
    JOBS[f"{name} with {text}"] = lambda: replace(make(), levers=parse_levers(text)), samples


for _name, _text in (
    ("landmarks hrnet_w32 768 fp16 x4", "half_upsample"),
    ("landmarks hrnet_w32 768 fp16 x4", "recompute=block"),
    ("landmarks hrnet_w32 768 fp16 x4", "recompute=selective"),
    ("landmarks hrnet_w32 768 fp16 x4", "channels_last,ema_on_host"),
    ("gpt2 1024 sdpa bf16 x4", "optimizer_in_backward"),
    ("gpt2 1024 sdpa bf16 x4", "chunked_loss"),
    ("gpt2 1024 sdpa bf16 x4", "offload_activations"),
    ("bert base 512 sdpa fp16 x16", "gradient_checkpointing"),
    ("timm resnet50 224 fp16 x32", "recompute=module"),
    ("timm vit_base_patch16_224 224 bf16 x32", "recompute=block,fused_optimizer"),
):
    levered(_name, _text)
