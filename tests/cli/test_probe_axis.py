"""`vramfit probe --axis`: lengths in a table and a file, the longest samples at a batch, and refusals."""

import json
import sys

import pytest

from vramfit.plan.length_plan import LengthPlan

JOB = """
import torch, vramfit

def rows(samples, tokens=8):
    return torch.zeros(samples, tokens, 64), torch.zeros(samples, tokens, 64)

def job():
    return vramfit.Job(
        model=lambda: torch.nn.Linear(64, 64),
        batch=rows,
        loss=torch.nn.functional.mse_loss,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        amp=None,
    )
"""


@pytest.fixture
def of_job(vramfit, tmp_path, monkeypatch):
    """A probe of a small job of one's own along tokens."""
    (tmp_path / "axis_job.py").write_text(JOB, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "axis_job", raising=False)
    monkeypatch.chdir(tmp_path)
    return lambda *words: vramfit("probe", "--model", "axis_job.py:job", "--gpu", "rtx3060", "--vram", "600MB", *words)


def test_a_table_by_length_and_its_plan_in_a_file(of_job, tmp_path):
    (tmp_path / "lengths.txt").write_text("100\n" * 3 + "900\n", encoding="utf-8")
    done = of_job("--axis", "tokens", "--lengths", "lengths.txt", "--batch-size", "9", "--export", "plan.json")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    header = next(line for line in lines if line.startswith("tokens up to"))
    for column in ("samples", "batch", "tokens a batch", "device GiB", "headroom GiB", "step time", "tokens/s"):
        assert column in header
    assert [line.split()[:2] for line in lines if line.lstrip()[:3] in ("100", "900")] == [
        ["100", "75.0%"],
        ["900", "25.0%"],
    ]
    plan = LengthPlan.read(tmp_path / "plan.json")
    assert f"Token budget: {plan.token_budget} tokens a batch" in done.out
    assert (
        "Worst reachable batch: with a fixed batch size all samples of a batch may be of 900; 4 of them fit."
        in done.out
    )
    assert "Batch 9 runs out of memory" in done.out
    assert "Plan written to plan.json" in done.out
    assert plan.fixed_batch == 4


def test_one_json_document(of_job):
    done = of_job("--axis", "tokens", "--lengths", "4:64:30", "--buckets", "2", "--json")
    assert LengthPlan.model_validate_json(done.out).axis == "tokens"


def test_the_longest_samples_at_one_batch(of_job):
    done = of_job("--axis", "tokens", "--batch-size", "4", "--length-multiple", "64")
    chosen = next(line for line in done.out.splitlines() if line.lstrip().startswith(">"))
    longest = int(chosen.split()[1])
    assert longest % 64 == 0
    assert f"Longest: tokens {longest} at batch 4." in done.out
    document = json.loads(of_job("--axis", "tokens", "--batch-size", "4", "--length-multiple", "64", "--json").out)
    fitting = [one["length"] for one in document["trials"] if one["trial"]["verdict"] == "fits"]
    assert max(fitting) == [longest]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--axis", "width"), "'width' is no axis"),
        (("--axis", "tokens"), "--axis tokens needs --lengths FILE or 16:512, or the one --batch-size"),
        (("--axis", "points", "--batch-size", "2"), "batch of 'job' takes no 'points'"),
        (("--lengths", "4:9"), "name it with --axis tokens"),
        (("--axis", "tokens", "--batch-size", "2", "--buckets", "4"), "give --lengths, or leave it out"),
        (("--buckets", "4"), "give --lengths, or leave it out"),
        (("--length-multiple", "8"), "name it with --axis"),
        (("--axis", "tokens", "--lengths", "4:9", "--html", "page.html"), "without --html"),
        (("--axis", "tokens", "--lengths", "4:9", "--levers", "auto"), "name levers with --levers LIST"),
        (("--axis", "tokens", "--batch-size", "2", "--export", "plan.json"), "--export writes the plan"),
    ],
)
def test_what_makes_no_sense_with_an_axis_is_refused(of_job, words, said):
    done = of_job(*words)
    assert done.code == 2
    assert said in done.err


def test_a_model_of_the_hub_has_its_tokens(vramfit, tmp_path):
    pytest.importorskip("transformers")
    settings = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 48}
    size = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(settings | size | heads), encoding="utf-8")
    done = vramfit(
        *("probe", "--model", f"hf:{tmp_path}", "--gpu", "rtx3060", "--vram", "2GB"),
        *("--axis", "tokens", "--batch-size", "2"),
    )
    assert done.code == 0, done.err
    assert "Longest: tokens 48 at batch 2." in done.out
    assert "Samples of 56 are refused: LlamaConfig has positions for 48 tokens" in done.out
