"""Hugging Face models by their configuration, with LoRA and quantized weights. Skipped without transformers."""

import json
import pickle

import pytest
import torch

from vramfit.cli.models import named_job
from vramfit.errors import UsageError
from vramfit.jobs.batch import sample_batch, tree_bytes
from vramfit.jobs.hub.options import HubOptions, Lora
from vramfit.prediction.tracing.trace import trace_step

pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

WIDTH, INNER, WORDS, LAYERS = 64, 128, 512, 2
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": WORDS,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
SMALL = {"vocab_size": WORDS, "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 4}
MATRICES = LAYERS * (4 * WIDTH * WIDTH + 3 * WIDTH * INNER)  # elements of the layers' products


def written(folder, **settings) -> str:
    (folder / "config.json").write_text(json.dumps({**LLAMA, **settings}))
    return f"hf:{folder}"


def held(trace, kind):
    """Bytes of a kind that are alive when the first step begins."""
    alive = set()
    for event in trace.events[: trace.marks["step 1"]]:
        alive.add(event) if event >= 0 else alive.discard(~event)
    return sum(trace.storages[number].size_bytes for number in alive if trace.storages[number].kind == kind)


def test_full_training_keeps_float32_weights_and_two_moments_of_each(tmp_path):
    job = named_job(written(tmp_path))
    trace = trace_step(job, 2, validation=False)
    weights = MATRICES + 2 * WORDS * WIDTH + (2 * LAYERS + 1) * WIDTH
    assert held(trace, "parameter") == 4 * weights
    moments = sum(one.size_bytes for one in trace.storages if one.kind == "optimizer state" and one.size_bytes > 4)
    assert moments == 8 * weights
    assert (job.amp, job.model_name) == ("bf16", tmp_path.name)


def test_samples_have_the_model_s_length_or_the_one_asked(tmp_path):
    source = written(tmp_path)
    assert sample_batch(named_job(source), 3)["input_ids"].shape == (3, 128)
    assert sample_batch(named_job(source, hub=HubOptions(seq_len=32)), 3)["labels"].shape == (3, 32)
    with pytest.raises(UsageError, match="positions for 128 tokens; give --seq-len 128 or less"):
        named_job(source, hub=HubOptions(seq_len=256))


def test_adapters_learn_alone_in_float32_over_weights_in_half_precision(tmp_path):
    pytest.importorskip("peft")
    job = named_job(written(tmp_path), hub=HubOptions(lora=Lora(rank=4, targets=("q_proj", "v_proj"))))
    adapters = LAYERS * 2 * 2 * WIDTH * 4
    network = job.model()
    learning = [one for one in network.parameters() if one.requires_grad]
    assert sum(one.numel() for one in learning) == adapters
    assert {one.dtype for one in learning} == {torch.float32}
    trace = trace_step(job, 2, validation=False)
    frozen = MATRICES + 2 * WORDS * WIDTH + (2 * LAYERS + 1) * WIDTH
    assert held(trace, "parameter") == 2 * frozen + 4 * adapters
    assert job.model_name.endswith("(LoRA r=4)")


@pytest.mark.parametrize(("load_in", "bits"), [("4bit", 4), ("8bit", 8)])
def test_quantized_weights_take_their_bits_and_the_rest_is_float32(tmp_path, load_in, bits):
    pytest.importorskip("peft")
    pytest.importorskip("bitsandbytes")
    job = named_job(written(tmp_path), hub=HubOptions(lora=Lora(rank=4), load_in=load_in))
    trace = trace_step(job, 2, validation=False)
    rest = 4 * (2 * WORDS * WIDTH + (2 * LAYERS + 1) * WIDTH)
    adapters = 4 * LAYERS * 2 * 2 * WIDTH * 4
    assert held(trace, "parameter") == MATRICES * bits // 8 + rest + adapters


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, (2, 64)),
        ({"architectures": ["BertModel"], "model_type": "bert"}, (2, 64)),
        ({"architectures": ["BertForSequenceClassification"], "model_type": "bert"}, (2,)),
        ({"architectures": ["BertForTokenClassification"], "model_type": "bert"}, (2, 64)),
        (
            {"architectures": ["ViTForImageClassification"], "model_type": "vit", "image_size": 32, "patch_size": 8},
            (2,),
        ),
    ],
)
def test_a_head_learns_from_what_it_is_made_for(tmp_path, settings, shape):
    settings = {**SMALL, "intermediate_size": INNER, "max_position_embeddings": 66, **settings}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    job = named_job(f"hf:{tmp_path / 'config.json'}")
    assert sample_batch(job, 2)["labels"].shape == shape
    assert trace_step(job, 2, validation=False).peak_bytes > 0


def test_question_answering_learns_from_spans(tmp_path):
    job = named_job(written(tmp_path, architectures=["BertForQuestionAnswering"], model_type="bert"))
    assert set(sample_batch(job, 2)) == {"input_ids", "attention_mask", "start_positions", "end_positions"}


def test_the_job_travels_to_another_process(tmp_path):
    job = named_job(written(tmp_path), hub=HubOptions(seq_len=16))
    assert tree_bytes(sample_batch(pickle.loads(pickle.dumps(job)), 1)) == 3 * 16 * 8


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model_type": "no_such_model"}, "knows no model of type 'no_such_model'"),
        ({"model_type": "own", "auto_map": {"AutoModel": "own.Model"}}, "brings code of its own"),
        ({"architectures": ["Wav2Vec2ForCTC"], "model_type": "wav2vec2"}, "No batch is known for Wav2Vec2ForCTC"),
    ],
)
def test_a_configuration_that_cannot_be_trained_is_told_why(tmp_path, settings, says):
    with pytest.raises(UsageError, match=says):
        named_job(written(tmp_path, **settings))


def test_files_that_are_no_configuration_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"config\.json cannot be read"):
        named_job(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="is no JSON"):
        named_job(f"hf:{tmp_path}")
    with pytest.raises(UsageError, match="cannot be read"):
        named_job("hf:./no/such/folder")


def test_layers_that_are_not_there_are_told_with_those_that_are(tmp_path):
    pytest.importorskip("peft")
    job = named_job(written(tmp_path), hub=HubOptions(lora=Lora(targets=("c_attn",))))
    with pytest.raises(UsageError, match=r"nothing to adapt .*q_proj"):
        job.model()


def test_without_the_hub_a_name_is_one_sentence(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=r"hf:a-name/nobody-has is not in the cache, and HF_HUB_OFFLINE is set"):
        named_job("hf:a-name/nobody-has")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    template = "http://127.0.0.1:9/{repo_id}/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(UsageError, match="The hub cannot be reached for hf:a-name/nobody-has"):
        named_job("hf:a-name/nobody-has")
