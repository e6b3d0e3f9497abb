"""Images, videos, volumes and diffusion: torchvision, timm, MONAI and diffusers."""

import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models import detection, optical_flow, segmentation, video

from .styles import case, images, job, own, sgd, tokens

BARE = {"weights": None, "weights_backbone": None}


def found(n, masks=False, points=False, size=96):
    """Images of several sizes in a list, and a dict for each."""
    pictures, targets = [], []
    for number in range(n):
        boxes = torch.rand(1 + number % 3, 4) * size / 2
        boxes[:, 2:] += boxes[:, :2] + 8
        height = size + 16 * (number % 2)
        target = {"boxes": boxes, "labels": torch.randint(1, 5, (len(boxes),))}
        if masks:
            target["masks"] = torch.randint(2, (len(boxes), height, size + 8), dtype=torch.uint8)
        if points:
            target["labels"] = torch.ones(len(boxes), dtype=torch.long)
            target["keypoints"] = torch.cat(
                [boxes[:, None, :2] + torch.rand(len(boxes), 5, 2) * 8, torch.ones(len(boxes), 5, 1)], 2
            )
        pictures.append(torch.rand(3, height, size + 8))
        targets.append(target)
    return pictures, targets


SIZED = {"min_size": 96, "max_size": 128}


@case(2)
def fcos_list():
    return own(lambda: detection.fcos_resnet50_fpn(**BARE, num_classes=5, **SIZED), found, sgd)


@case(2)
def faster_rcnn_v2_list():
    return own(lambda: detection.fasterrcnn_resnet50_fpn_v2(**BARE, num_classes=5, **SIZED), found, sgd)


@case(2)
def keypoint_rcnn_list():
    return own(
        lambda: detection.keypointrcnn_resnet50_fpn(**BARE, num_classes=2, num_keypoints=5, **SIZED),
        lambda n: found(n, points=True),
        sgd,
    )


@case(2)
def retinanet_v2_list():
    return own(lambda: detection.retinanet_resnet50_fpn_v2(**BARE, num_classes=5, **SIZED), found, sgd)


@case(2)
def ssd300_list():
    return own(lambda: detection.ssd300_vgg16(**BARE, num_classes=5), found, sgd)


def mapped(classes=5, size=64):
    return lambda n: (torch.randn(n, 3, size, size), torch.randint(classes, (n, size, size)))


def out_of_dict(outputs, targets):
    return F.cross_entropy(outputs["out"], targets, ignore_index=255)


@case(2)
def fcn_resnet50():
    return job(lambda: segmentation.fcn_resnet50(**BARE, num_classes=5), mapped(), out_of_dict, sgd)


@case(2)
def lraspp():
    return job(lambda: segmentation.lraspp_mobilenet_v3_large(**BARE, num_classes=5), mapped(), out_of_dict)


@case(1)
def raft_flow():
    class Flow(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = optical_flow.raft_small(weights=None)

        def forward(self, before, after, flow):
            steps = self.network(before, after, num_flow_updates=3)
            return sum(0.8 ** (2 - number) * (step - flow).abs().mean() for number, step in enumerate(steps))

    return own(
        Flow,
        lambda n: {
            "before": torch.rand(n, 3, 128, 128),
            "after": torch.rand(n, 3, 128, 128),
            "flow": torch.randn(n, 2, 128, 128),
        },
    )


def clips(n):
    return torch.randn(n, 3, 8, 64, 64), torch.randint(10, (n,))


@case(1)
def video_r3d():
    return job(lambda: video.r3d_18(num_classes=10), clips)


@case(1)
def video_mixed_convolutions():
    return job(lambda: video.mc3_18(num_classes=10), clips)


@case(2)
def googlenet_auxiliary():
    def loss(outputs, targets):
        return sum(F.cross_entropy(part, targets) for part in outputs)

    return job(lambda: torchvision.models.googlenet(num_classes=10, init_weights=False), images(96), loss)


@case(2)
def maxvit_tiny():
    return job(lambda: torchvision.models.MaxVit((64, 64), 16, 4, [16, 32], [1, 1], 8, 0.1, num_classes=10), images(64))


def timm_job(name, size=64, **options):
    return job(lambda: timm.create_model(name, num_classes=10, **options), images(size))


@case(2)
def timm_swin_v2():
    return timm_job("swinv2_cr_tiny_224", img_size=64)


@case(2)
def timm_deit_distilled():
    def loss(outputs, targets):
        parts = outputs if isinstance(outputs, tuple) else (outputs,)
        return sum(F.cross_entropy(part, targets) for part in parts)

    def model():
        network = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=10, img_size=64)
        network.set_distilled_training(True)
        return network

    return job(model, images(64), loss)


@case(2)
def timm_xcit():
    return timm_job("xcit_nano_12_p16_224", drop_path_rate=0.1)


@case(2)
def timm_mobilevit():
    return timm_job("mobilevit_xxs")


@case(2)
def timm_efficientformer():
    return timm_job("efficientformerv2_s0", size=224)


@case(2)
def timm_coatnet():
    return timm_job("coatnet_nano_rw_224", size=224)


@case(2)
def timm_eva_mixup():
    from timm.data import Mixup
    from timm.loss import SoftTargetCrossEntropy

    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=10)

    def prepare(inputs, targets, training):
        return mixup(inputs, targets) if training else (inputs, F.one_hot(targets, 10).float())

    return job(
        lambda: timm.create_model("eva02_tiny_patch14_224", num_classes=10, img_size=56),
        images(56),
        SoftTargetCrossEntropy(),
        prepare=prepare,
    )


@case(2)
def timm_features_pyramid():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = timm.create_model("resnet18", features_only=True)
            self.sides = nn.ModuleList(nn.LazyConv2d(32, 1) for _ in range(5))
            self.head = nn.Conv2d(32, 5, 3, padding=1)

        def forward(self, pictures):
            found = [side(one) for side, one in zip(self.sides, self.body(pictures))]
            top = found.pop()
            while found:
                side = found.pop()
                top = side + F.interpolate(top, size=side.shape[-2:], mode="nearest")
            return F.interpolate(self.head(top), size=pictures.shape[-2:], mode="bilinear")

    return job(Pyramid, mapped())


# ---- MONAI


def volume(size=32, classes=2):
    return lambda n: (torch.randn(n, 1, size, size, size), torch.randint(classes, (n, 1, size, size, size)))


def dice():
    from monai.losses import DiceCELoss

    return DiceCELoss(to_onehot_y=True, softmax=True)


@case(1)
def monai_unetr():
    from monai.networks.nets import UNETR

    return job(
        lambda: UNETR(1, 2, (32, 32, 32), feature_size=4, hidden_size=32, mlp_dim=64, num_heads=4), volume(), dice()
    )


@case(1)
def monai_segresnet_focal():
    from monai.losses import DiceFocalLoss
    from monai.networks.nets import SegResNet

    return job(
        lambda: SegResNet(init_filters=8, out_channels=2), volume(), DiceFocalLoss(to_onehot_y=True, softmax=True)
    )


@case(1)
def monai_vnet_tversky():
    from monai.losses import TverskyLoss
    from monai.networks.nets import VNet

    return job(lambda: VNet(out_channels=2), volume(), TverskyLoss(to_onehot_y=True, softmax=True))


@case(1)
def monai_dynunet_supervised():
    from monai.networks.nets import DynUNet

    judge = dice()

    def loss(outputs, targets):
        if outputs.dim() == 5:
            return judge(outputs, targets)
        return sum(judge(part, targets) / 2**number for number, part in enumerate(outputs.unbind(1)))

    return job(
        lambda: DynUNet(
            3,
            1,
            2,
            [3, 3, 3, 3],
            [1, 2, 2, 2],
            [2, 2, 2],
            filters=[8, 16, 16, 16],
            deep_supervision=True,
            deep_supr_num=2,
        ),
        volume(),
        loss,
    )


@case(1)
def monai_attention_unet():
    from monai.networks.nets import AttentionUnet

    return job(lambda: AttentionUnet(3, 1, 2, (8, 16, 32), (2, 2)), volume(), dice())


@case(1)
def monai_unet_plus_plus():
    from monai.losses import GeneralizedDiceLoss
    from monai.networks.nets import BasicUNetPlusPlus

    judge = GeneralizedDiceLoss(to_onehot_y=True, softmax=True)
    return job(
        lambda: BasicUNetPlusPlus(3, 1, 2, features=(8, 8, 16, 16, 32, 8)),
        volume(),
        lambda outputs, targets: judge(outputs[0], targets),
    )


@case(1)
def monai_densenet3d():
    from monai.networks.nets import DenseNet121

    return job(lambda: DenseNet121(3, 1, 2), lambda n: (torch.randn(n, 1, 64, 64, 64), torch.randint(2, (n,))))


@case(1)
def monai_swin_hausdorff():
    from monai.losses import DiceLoss, SSIMLoss
    from monai.networks.nets import AutoEncoder

    similar, overlap = SSIMLoss(2), DiceLoss(sigmoid=True)
    return job(
        lambda: AutoEncoder(2, 1, 1, (8, 16), (2, 2)),
        lambda n: (torch.rand(n, 1, 64, 64),) * 2,
        lambda o, t: similar(o, t) + overlap(o, t),
    )


# ---- diffusers


class Denoising(nn.Module):
    """Noise is drawn, added by a scheduler and predicted."""

    def __init__(self, network, velocity=False, **conditions):
        super().__init__()
        from diffusers import DDPMScheduler

        self.network, self.conditions, self.velocity = network, conditions, velocity
        self.scheduler = DDPMScheduler(
            num_train_timesteps=1000, prediction_type="v_prediction" if velocity else "epsilon"
        )

    def forward(self, images, **given):
        noise = torch.randn_like(images)
        steps = torch.randint(0, 1000, (images.shape[0],), device=images.device).long()
        noisy = self.scheduler.add_noise(images, noise, steps)
        target = self.scheduler.get_velocity(images, noise, steps) if self.velocity else noise
        found = self.network(noisy, steps, **given).sample
        return F.mse_loss(found, target)


UNET = {"sample_size": 16, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8}


def latent(n, channels=4):
    return torch.randn(n, channels, 16, 16)


def conditional():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        **UNET,
        in_channels=4,
        out_channels=4,
        cross_attention_dim=32,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


@case(2)
def diffusion_unet_text():
    return own(
        lambda: Denoising(conditional()),
        lambda n: {"images": latent(n), "encoder_hidden_states": torch.randn(n, 12, 32)},
    )


@case(2)
def diffusion_lora_checkpointed():
    def model():
        from peft import LoraConfig

        unet = conditional().requires_grad_(False)
        unet.add_adapter(LoraConfig(r=4, target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
        unet.enable_gradient_checkpointing()
        return Denoising(unet, velocity=True)

    return own(model, lambda n: {"images": latent(n), "encoder_hidden_states": torch.randn(n, 12, 32)})


@case(2)
def diffusion_transformer():
    def model():
        from diffusers import DiTTransformer2DModel

        return Denoising(
            DiTTransformer2DModel(
                num_attention_heads=2,
                attention_head_dim=16,
                in_channels=4,
                num_layers=2,
                sample_size=16,
                patch_size=4,
                num_embeds_ada_norm=1000,
                norm_num_groups=8,
            )
        )

    return own(model, lambda n: {"images": latent(n), "class_labels": torch.randint(10, (n,))})


@case(2)
def rectified_flow_sd3():
    class Flow(nn.Module):
        def __init__(self):
            super().__init__()
            from diffusers import SD3Transformer2DModel

            self.network = SD3Transformer2DModel(
                sample_size=16,
                patch_size=2,
                in_channels=4,
                out_channels=4,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=4,
                joint_attention_dim=32,
                caption_projection_dim=32,
                pooled_projection_dim=16,
                pos_embed_max_size=16,
            )

        def forward(self, images, encoder_hidden_states, pooled_projections):
            noise, at = torch.randn_like(images), torch.sigmoid(torch.randn(images.shape[0], device=images.device))
            mixed = torch.lerp(images, noise, at[:, None, None, None])
            found = self.network(
                hidden_states=mixed,
                timestep=at * 1000,
                encoder_hidden_states=encoder_hidden_states,
                pooled_projections=pooled_projections,
            ).sample
            return F.mse_loss(found, noise - images)

    return own(
        Flow,
        lambda n: {
            "images": latent(n),
            "encoder_hidden_states": torch.randn(n, 12, 32),
            "pooled_projections": torch.randn(n, 16),
        },
    )


@case(2)
def autoencoder_kl():
    class Autoencoder(nn.Module):
        def __init__(self):
            super().__init__()
            from diffusers import AutoencoderKL

            self.network = AutoencoderKL(
                block_out_channels=(16, 32),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                norm_num_groups=8,
                latent_channels=4,
            )

        def forward(self, pictures):
            chances = self.network.encode(pictures).latent_dist
            decoded = self.network.decode(chances.sample()).sample
            return F.l1_loss(decoded, pictures) + 1e-6 * chances.kl().mean()

    return own(Autoencoder, lambda n: {"pictures": torch.rand(n, 3, 64, 64)})


@case(1)
def video_diffusion():
    def model():
        from diffusers import UNet3DConditionModel

        return Denoising(
            UNet3DConditionModel(
                sample_size=16,
                block_out_channels=(16, 32),
                layers_per_block=1,
                norm_num_groups=8,
                cross_attention_dim=32,
                attention_head_dim=8,
                down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
                up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            )
        )

    return own(
        model, lambda n: {"images": torch.randn(n, 4, 4, 16, 16), "encoder_hidden_states": torch.randn(n, 12, 32)}
    )


@case(2)
def dreambooth_text_encoder():
    """U-Net and text encoder learn, the autoencoder does not."""

    class Dreambooth(nn.Module):
        def __init__(self):
            super().__init__()
            from diffusers import AutoencoderKL
            from transformers import CLIPTextConfig, CLIPTextModel

            self.encoder = CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=512,
                    hidden_size=32,
                    intermediate_size=64,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    max_position_embeddings=16,
                )
            )
            self.pictures = AutoencoderKL(
                block_out_channels=(16, 32),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                norm_num_groups=8,
            ).requires_grad_(False)
            self.denoising = Denoising(conditional())

        def forward(self, pixel_values, input_ids):
            with torch.no_grad():
                latents = self.pictures.encode(pixel_values).latent_dist.sample() * 0.18215
            return self.denoising(latents, encoder_hidden_states=self.encoder(input_ids)[0])

    return own(Dreambooth, lambda n: {"pixel_values": torch.rand(n, 3, 32, 32), "input_ids": tokens(n, 16)})
