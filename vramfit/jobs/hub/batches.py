"""Made-up batches for Hugging Face models, by what their heads learn from.

n samples, L tokens, C channels, H W pixels. Ids are of no meaning. The last token of each sample is padding, as where a
collate function pads to a multiple of eight: attention then runs with a mask, as it does on padded batches.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vramfit.errors import UsageError
from vramfit.jobs.batch import IGNORED

_LONGEST = 1024
_IMAGE = 224
Make = Callable[[int], dict[str, Tensor]]


def batch_maker(architecture: str, config: Any, *, seq_len: int | None, image_size: tuple[int, int] | None) -> Make:
    """What makes n samples for a model; it pickles.

    Raises:
        UsageError: a head whose batches are not known here, or a length that the model does not have.

    """
    for head, make in _TEXT_HEADS.items():
        if architecture.endswith(head) and _reads_text_alone(config):
            if image_size is not None:
                raise UsageError(f"--image-size says nothing to {architecture}, which reads text; use --seq-len.")
            text = config.get_text_config()
            return partial(make, text.vocab_size, sequence_length(text, seq_len), int(config.num_labels))
    for head, make in _IMAGE_HEADS.items():
        if architecture.endswith(head):
            if seq_len is not None:
                raise UsageError(f"--seq-len says nothing to {architecture}, which sees images; use --image-size.")
            size = image_size or image_size_of(config)
            return partial(make, int(getattr(config, "num_channels", 3)), size, int(config.num_labels))
    known = ", ".join([*_TEXT_HEADS, *_IMAGE_HEADS])
    raise UsageError(
        f"No batch is known for {architecture} (known are ...{known}, of text or images alone); write a function that "
        "returns its Job, and name it with --model file.py:function."
    )


def sequence_length(config: Any, asked: int | None) -> int:
    """Tokens in each sample: as asked, or the model's own, at most 1024, which is TRL's length.

    Raises:
        UsageError: more than the model has positions for.

    """
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if asked is not None and limit is not None and asked > limit:
        raise UsageError(f"{type(config).__name__} has positions for {limit} tokens; give --seq-len {limit} or less.")
    if asked is not None:
        return asked
    # Some models, such as RoBERTa, have two positions more than they can use.
    return _LONGEST if limit is None or limit >= _LONGEST else int(2 ** (limit.bit_length() - 1))


def image_size_of(config: Any) -> tuple[int, int]:
    """Height and width that a model of images was made for; 224 x 224 where it does not say."""
    size = getattr(config, "image_size", None) or _IMAGE
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return int(height), int(width)


def _reads_text_alone(config: Any) -> bool:
    return not any(hasattr(config, f"{kind}_config") for kind in ("vision", "audio"))


def _text(words: int, length: int, samples: int) -> dict[str, Tensor]:
    ids = (torch.arange(samples * length).view(samples, length) * 7 + 5) % words
    mask = torch.ones_like(ids)
    mask[:, -1] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _of_tokens(words: int, length: int, _labels: int, samples: int) -> dict[str, Tensor]:
    text = _text(words, length, samples)
    return {**text, "labels": text["input_ids"].masked_fill(text["attention_mask"] == 0, IGNORED)}


def _of_texts(words: int, length: int, labels: int, samples: int) -> dict[str, Tensor]:
    return {**_text(words, length, samples), "labels": torch.arange(samples) % labels}


def _of_token_classes(words: int, length: int, labels: int, samples: int) -> dict[str, Tensor]:
    text = _text(words, length, samples)
    classes = (text["input_ids"] % labels).masked_fill(text["attention_mask"] == 0, IGNORED)
    return {**text, "labels": classes}


def _of_spans(words: int, length: int, _labels: int, samples: int) -> dict[str, Tensor]:
    start = torch.arange(samples) % max(1, length - 2)
    return {**_text(words, length, samples), "start_positions": start, "end_positions": start + 1}


def _of_images(channels: int, size: tuple[int, int], labels: int, samples: int) -> dict[str, Tensor]:
    return {"pixel_values": torch.zeros(samples, channels, *size), "labels": torch.arange(samples) % labels}


def _of_maps(channels: int, size: tuple[int, int], labels: int, samples: int) -> dict[str, Tensor]:
    classes = (torch.arange(samples * size[0] * size[1]) % labels).view(samples, *size)
    return {"pixel_values": torch.zeros(samples, channels, *size), "labels": classes}


_TEXT_HEADS: dict[str, Callable[..., dict[str, Tensor]]] = {
    "ForCausalLM": _of_tokens,
    "LMHeadModel": _of_tokens,
    "ForMaskedLM": _of_tokens,
    "ForConditionalGeneration": _of_tokens,
    "ForSequenceClassification": _of_texts,
    "ForTokenClassification": _of_token_classes,
    "ForQuestionAnswering": _of_spans,
}
_IMAGE_HEADS: dict[str, Callable[..., dict[str, Tensor]]] = {
    "ForImageClassification": _of_images,
    "ForSemanticSegmentation": _of_maps,
}
