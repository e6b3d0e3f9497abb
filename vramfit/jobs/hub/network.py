"""Networks of Hugging Face configurations, with quantized weights and LoRA adapters as peft's recipes put them in.

Weights are drawn, never downloaded. Full training keeps them in float32, as mixed precision does; what LoRA freezes is
in the dtype of mixed precision, as `from_pretrained` loads it, and its adapters are float32. Quantized weights are NF4
with double quantization, or LLM.int8(), and `peft.prepare_model_for_kbit_training` puts the rest into float32; gradient
checkpointing is left to the levers.
"""

from typing import Any

import torch
from torch import Tensor, nn

from vramfit.choices import Amp
from vramfit.errors import UsageError
from vramfit.jobs.hub.options import HubOptions, LoadIn, Lora

_INSTALL = "pip install 'vramfit-trainer[hf]'"
_DTYPES: dict[Amp | None, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16, None: torch.float32}
# Of the classes that transformers has for a configuration, the first that learns by itself.
_HEADS = ("SEQ_TO_SEQ_CAUSAL_LM", "MASKED_LM", "CAUSAL_LM", "IMAGE_CLASSIFICATION", "SEMANTIC_SEGMENTATION")
_TASKS = {
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}


def architecture_of(config: Any) -> str:
    """The class that a configuration names, if it returns a loss, else one that transformers has for it with a head.

    Raises:
        UsageError: transformers has none.

    """
    import transformers
    from transformers.models.auto import modeling_auto

    named = (getattr(config, "architectures", None) or [""])[0]
    learns = not named.endswith(("Model", "PreTraining")) or named.endswith("LMHeadModel")
    if learns and hasattr(transformers, named):
        return str(named)
    for head in _HEADS:
        names = getattr(modeling_auto, f"MODEL_FOR_{head}_MAPPING_NAMES")
        if config.model_type in names:
            name = names[config.model_type]
            return str(name if isinstance(name, str) else name[0])
    raise UsageError(
        f"transformers has no class with a loss for a model of type '{config.model_type}'; write a function that "
        "returns its Job, and name it with --model file.py:function."
    )


def build_network(config: Any, architecture: str, options: HubOptions, amp: Amp | None) -> nn.Module:
    """The network with drawn weights, quantized and adapted as asked.

    Raises:
        UsageError: peft or bitsandbytes is not installed, or an adapter has nothing to go to.

    """
    import transformers

    dtype = torch.float32 if options.lora is None else _DTYPES[amp]
    # As `AutoModel.from_config` makes it, of the class that is named.
    network: nn.Module = getattr(transformers, architecture)._from_config(config, dtype=dtype)
    if options.load_in is not None:
        network = _quantized(network, options.load_in, dtype)
    return network if options.lora is None else _adapted(network, options.lora, architecture)


def _quantized(network: nn.Module, load_in: LoadIn, dtype: torch.dtype) -> nn.Module:
    try:
        import bitsandbytes  # noqa: F401  # only asked whether it is here
        from peft import prepare_model_for_kbit_training
    except ImportError as error:
        raise UsageError(f"--load-in {load_in} needs bitsandbytes and peft; install them: {_INSTALL}.") from error
    from transformers import BitsAndBytesConfig
    from transformers.quantizers import AutoHfQuantizer

    four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": dtype}
    asked: dict[str, Any] = {"load_in_4bit": True, **four} if load_in == "4bit" else {"load_in_8bit": True}
    quantizer = AutoHfQuantizer.from_config(BitsAndBytesConfig(**asked), pre_quantized=False)
    quantizer.preprocess_model(model=network, device_map=None)
    _draw_weights(network, dtype)
    quantizer.postprocess_model(network)
    prepared: nn.Module = prepare_model_for_kbit_training(network, use_gradient_checkpointing=False)
    return prepared


def _draw_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Draw what the quantizer left without memory; it is quantized as it is moved to the card."""
    for module in network.modules():
        for name, value in module._parameters.items():
            if value is not None and value.is_meta:
                drawn = Tensor._make_subclass(type(value), torch.randn(value.shape, dtype=dtype), False)
                drawn.__dict__.update(value.__dict__)
                module._parameters[name] = drawn


def _adapted(network: nn.Module, lora: Lora, architecture: str) -> nn.Module:
    try:
        import peft
    except ImportError as error:
        raise UsageError(f"--lora needs peft; install it: {_INSTALL}.") from error
    task = next((task for head, task in _TASKS.items() if architecture.endswith(head)), None)
    targets = {(): None, ("all-linear",): "all-linear"}.get(lora.targets, list(lora.targets))
    settings = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type=task
    )
    try:
        adapted: nn.Module = peft.get_peft_model(network, settings)
    except ValueError as error:
        names = sorted({name.rpartition(".")[2] for name, one in network.named_modules() if _is_linear(one)})
        raise UsageError(
            f"--lora finds nothing to adapt ({str(error).splitlines()[0]}); name layers with targets=, of which "
            f"{architecture} has {'+'.join(names)}."
        ) from error
    return adapted


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
