"""What a command line says of a Hugging Face model, without the libraries that build it."""

import sys

import pytest

from vramfit.cli.models import named_job
from vramfit.errors import UsageError
from vramfit.jobs.hub.options import HubOptions, Lora


def test_adapters_are_written_as_peft_names_them():
    assert Lora.parse("r=16") == Lora(rank=16)
    assert Lora.parse("r=4, lora_alpha=32, lora_dropout=0.1") == Lora(rank=4, alpha=32, dropout=0.1)
    assert Lora.parse("alpha=8.5,target_modules=q_proj+v_proj").targets == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("16", "not settings of LoRA"),
        ("rank=16", "not settings of LoRA"),
        ("r=many", "whole number"),
        ("r=1.5", "whole number"),
        ("r=0", "above 0"),
        ("alpha=-1", "above 0"),
        ("r=4,dropout=1", "dropout"),
    ],
)
def test_adapters_that_make_no_sense_are_refused_in_a_sentence(text, says):
    with pytest.raises(UsageError, match=says):
        Lora.parse(text)


def test_quantized_weights_need_adapters():
    with pytest.raises(UsageError, match="cannot be trained themselves; give --lora"):
        HubOptions.parse(seq_len=None, lora=None, load_in="4bit")


def test_a_model_is_called_with_what_is_changed_of_it():
    assert HubOptions().name() == ""
    assert HubOptions(lora=Lora(rank=16), load_in="8bit").name() == "LoRA r=16, 8bit"


@pytest.mark.parametrize("model", ["hrnet", "timm:resnet18", "json:loads"])
def test_what_is_said_of_a_hugging_face_model_is_not_said_of_another(model):
    with pytest.raises(UsageError, match=f"'{model}' is none"):
        named_job(model, hub=HubOptions(seq_len=64))


def test_a_missing_library_is_named_with_its_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"needs transformers; install it: pip install 'vramfit-trainer\[hf\]'"):
        named_job("hf:gpt2")
