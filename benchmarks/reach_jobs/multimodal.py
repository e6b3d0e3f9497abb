"""Vision, speech, video, time series and mixtures of them from Hugging Face's transformers."""

import torch
import transformers as hf
from torch import nn

from .styles import case, own, tokens

EAGER = {"attn_implementation": "eager"}
VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}


def pictures(n, size=32):
    return {"pixel_values": torch.randn(n, 3, size, size)}


def labelled(n):
    return {**pictures(n), "labels": torch.randint(10, (n,))}


@case(2)
def vit():
    return own(
        lambda: hf.AutoModelForImageClassification.from_config(hf.ViTConfig(**VIT, num_labels=10), **EAGER), labelled
    )


@case(2)
def deit():
    return own(lambda: hf.DeiTForImageClassification(hf.DeiTConfig(**VIT, **EAGER, num_labels=10)), labelled)


@case(2)
def beit():
    return own(lambda: hf.BeitForImageClassification(hf.BeitConfig(**VIT, **EAGER, num_labels=10)), labelled)


@case(2)
def dinov2():
    return own(lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(**{**VIT, "num_labels": 10}, **EAGER)), labelled)


@case(2)
def masked_autoencoder():
    return own(
        lambda: hf.ViTMAEForPreTraining(
            hf.ViTMAEConfig(
                **VIT,
                **EAGER,
                decoder_hidden_size=32,
                decoder_num_hidden_layers=1,
                decoder_num_attention_heads=4,
                decoder_intermediate_size=64,
            )
        ),
        pictures,
    )


@case(2)
def swin_v2():
    return own(
        lambda: hf.Swinv2ForImageClassification(
            hf.Swinv2Config(
                image_size=64, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 4], window_size=4, num_labels=10
            )
        ),
        lambda n: {**pictures(n, 64), "labels": torch.randint(10, (n,))},
    )


@case(2)
def dpt_depth():
    return own(
        lambda: hf.DPTForSemanticSegmentation(
            hf.DPTConfig(
                **{**VIT, "num_hidden_layers": 4, "image_size": 64, "patch_size": 16},
                **EAGER,
                backbone_out_indices=[0, 1, 2, 3],
                neck_hidden_sizes=[16, 32, 32, 32],
                fusion_hidden_size=16,
                num_labels=5,
            )
        ),
        lambda n: {**pictures(n, 64), "labels": torch.randint(5, (n, 64, 64))},
    )


@case(2)
def mask2former():
    swin = hf.SwinConfig(
        image_size=64,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 4],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )

    def batch(n):
        return {
            **pictures(n, 64),
            "mask_labels": [torch.randint(2, (2 + i % 2, 64, 64)).float() for i in range(n)],
            "class_labels": [torch.randint(5, (2 + i % 2,)) for i in range(n)],
        }

    config = hf.Mask2FormerConfig(
        backbone_config=swin,
        hidden_dim=32,
        feature_size=32,
        mask_feature_size=32,
        encoder_feedforward_dim=64,
        dim_feedforward=64,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=4,
        num_queries=8,
        num_labels=5,
        train_num_points=64,
    )
    return own(lambda: hf.Mask2FormerForUniversalSegmentation(config), batch)


def boxed(size=64):
    return lambda n: {
        **pictures(n, size),
        "labels": [
            {"class_labels": torch.randint(5, (1 + i % 3,)), "boxes": torch.rand(1 + i % 3, 4) / 2 + 0.1}
            for i in range(n)
        ],
    }


@case(2)
def detr():
    config = hf.DetrConfig(
        backbone_config=hf.ResNetConfig(
            embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], out_features=["stage2"]
        ),
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_queries=10,
        num_labels=5,
        **EAGER,
    )
    return own(lambda: hf.DetrForObjectDetection(config), boxed())


@case(2)
def yolos():
    return own(
        lambda: hf.YolosForObjectDetection(
            hf.YolosConfig(**{**VIT, "image_size": [64, 64]}, **EAGER, num_detection_tokens=10, num_labels=5)
        ),
        boxed(),
    )


@case(2)
def videomae():
    return own(
        lambda: hf.VideoMAEForVideoClassification(
            hf.VideoMAEConfig(**VIT, **EAGER, num_frames=4, tubelet_size=2, num_labels=10)
        ),
        lambda n: {"pixel_values": torch.randn(n, 4, 3, 32, 32), "labels": torch.randint(10, (n,))},
    )


@case(2)
def timesformer():
    return own(
        lambda: hf.TimesformerForVideoClassification(hf.TimesformerConfig(**VIT, num_frames=4, num_labels=10)),
        lambda n: {"pixel_values": torch.randn(n, 4, 3, 32, 32), "labels": torch.randint(10, (n,))},
    )


@case(4)
def siglip():
    text = {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
    }

    class Contrastive(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=VIT, **EAGER))

        def forward(self, input_ids, pixel_values):
            return self.network(input_ids=input_ids, pixel_values=pixel_values, return_loss=True)

    return own(Contrastive, lambda n: {"input_ids": tokens(n, 16), **pictures(n)})


@case(2)
def captions():
    encoder, decoder = (
        hf.ViTConfig(**VIT, **EAGER),
        hf.GPT2Config(
            vocab_size=512, n_embd=32, n_layer=2, n_head=4, add_cross_attention=True, is_decoder=True, **EAGER
        ),
    )

    def model():
        config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
        config.decoder_start_token_id, config.pad_token_id = 1, 0
        return hf.VisionEncoderDecoderModel(config=config)

    return own(model, lambda n: {**pictures(n), "labels": tokens(n, 16)})


@case(2)
def llava():
    vision = hf.CLIPVisionConfig(**VIT)
    text = hf.LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )
    config = hf.LlavaConfig(vision_config=vision, text_config=text, image_token_id=511, vision_feature_layer=-1)

    def batch(n):
        ids = torch.cat([torch.full((n, 16), 511), tokens(n, 24)], 1)
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            **pictures(n),
            "labels": ids.masked_fill(ids == 511, -100),
        }

    return own(lambda: hf.LlavaForConditionalGeneration._from_config(config, **EAGER), batch)


@case(2)
def whisper():
    config = hf.WhisperConfig(
        vocab_size=512,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_mel_bins=16,
        max_source_positions=50,
        max_target_positions=32,
        pad_token_id=0,
        decoder_start_token_id=1,
        **EAGER,
    )
    return own(
        lambda: hf.WhisperForConditionalGeneration(config),
        lambda n: {"input_features": torch.randn(n, 16, 100), "labels": tokens(n, 16)},
    )


WAVE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [16, 16],
    "conv_stride": [5, 4],
    "conv_kernel": [10, 4],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 32,
}


def waves(n):
    return {"input_values": torch.randn(n, 4000), "labels": torch.randint(1, 30, (n, 8))}


@case(2)
def wav2vec2_ctc():
    return own(
        lambda: hf.Wav2Vec2ForCTC(
            hf.Wav2Vec2Config(
                **WAVE,
                **EAGER,
                pad_token_id=0,
                ctc_loss_reduction="mean",
                layerdrop=0.1,
                mask_time_prob=0.1,
                mask_time_length=4,
            )
        ),
        waves,
    )


@case(2)
def hubert_ctc():
    return own(
        lambda: hf.HubertForCTC(
            hf.HubertConfig(**WAVE, **EAGER, pad_token_id=0, mask_time_prob=0.1, mask_time_length=4)
        ),
        waves,
    )


@case(2)
def audio_spectrogram():
    return own(
        lambda: hf.ASTForAudioClassification(
            hf.ASTConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                max_length=64,
                num_mel_bins=16,
                num_labels=5,
                patch_size=8,
                frequency_stride=8,
                time_stride=8,
                **EAGER,
            )
        ),
        lambda n: {"input_values": torch.randn(n, 64, 16), "labels": torch.randint(5, (n,))},
    )


@case(4)
def patch_tst():
    return own(
        lambda: hf.PatchTSTForPrediction(
            hf.PatchTSTConfig(
                num_input_channels=3,
                context_length=64,
                prediction_length=16,
                patch_length=8,
                patch_stride=8,
                d_model=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                ffn_dim=64,
            )
        ),
        lambda n: {"past_values": torch.randn(n, 64, 3), "future_values": torch.randn(n, 16, 3)},
    )


def series(n, context=48, lags=7, future=12):
    past = context + lags
    return {
        "past_values": torch.rand(n, past) + 1,
        "past_time_features": torch.randn(n, past, 2),
        "past_observed_mask": torch.ones(n, past),
        "future_values": torch.rand(n, future) + 1,
        "future_time_features": torch.randn(n, future, 2),
    }


SERIES = {
    "prediction_length": 12,
    "context_length": 48,
    "lags_sequence": [1, 2, 7],
    "num_time_features": 2,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
}


@case(4)
def time_series_transformer():
    return own(lambda: hf.TimeSeriesTransformerForPrediction(hf.TimeSeriesTransformerConfig(**SERIES)), series)


@case(4)
def informer():
    return own(lambda: hf.InformerForPrediction(hf.InformerConfig(**SERIES)), series)


@case(4)
def autoformer():
    return own(lambda: hf.AutoformerForPrediction(hf.AutoformerConfig(**SERIES)), series)


@case(2)
def decision_transformer():
    def batch(n):
        return {
            "states": torch.randn(n, 10, 6),
            "actions": torch.randn(n, 10, 3),
            "rewards": torch.randn(n, 10, 1),
            "returns_to_go": torch.randn(n, 10, 1),
            "timesteps": torch.arange(10).expand(n, 10).contiguous(),
            "attention_mask": torch.ones(n, 10, dtype=torch.long),
        }

    class Acting(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = hf.DecisionTransformerModel(
                hf.DecisionTransformerConfig(state_dim=6, act_dim=3, hidden_size=32, n_layer=2, n_head=2, max_ep_len=32)
            )

        def forward(self, **batch):
            return (self.network(**batch).action_preds - batch["actions"]).square().mean()

    return own(Acting, batch)
