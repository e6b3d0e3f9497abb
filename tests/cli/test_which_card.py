"""`vramfit probe --gpu all`, a selection or a list: which card."""

import json

import pytest

JOB = """
from functools import partial
import torch
from torch import nn, optim
import vramfit

def job():
    return vramfit.Job(
        model=lambda: nn.Sequential(nn.Linear(512, 8192), nn.ReLU(), nn.Linear(8192, 10)),
        batch=lambda n: (torch.randn(n, 512), torch.randn(n, 10)),
        loss=nn.functional.mse_loss,
        optimizer=partial(optim.AdamW, lr=1e-3),
        amp=None,
    )
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = tmp_path_factory.mktemp("job") / "which_card_job.py"
    file.write_text(JOB)
    return f"{file}:job"


def test_a_list_of_cards_is_compared(vramfit, model, tmp_path):
    page = tmp_path / "cards.html"
    answer = vramfit("probe", "--model", model, "--gpu", "rtx3060,rtx4090", "--html", str(page))
    assert answer.code == 0
    assert "The fastest that holds it: RTX 4090" in answer.out
    assert "The smallest that holds it: RTX 3060" in answer.out
    assert "<svg" in page.read_text(encoding="utf-8")


def test_a_selection_and_a_price_are_one_document(vramfit, model):
    words = ("--gpu", ">=16GB <=24GB ampere desktop", "--price-per-hour", "0.3", "--json")
    document = json.loads(vramfit("probe", "--model", model, *words).out)
    names = {card["card"] for card in document["cards"]}
    assert names == {"RTX 3090", "RTX 3090 Ti", "RTX 3080 Ti 20GB"}
    assert document["picks"]["smallest"] == "RTX 3080 Ti 20GB"
    for card in document["cards"]:
        assert card["cost"] == pytest.approx(0.3 * card["run_time_s"] / 3600)
        assert card["verdict"] == "fits"


def test_prices_alone_name_the_cards(vramfit, model, tmp_path):
    prices = tmp_path / "prices.csv"
    prices.write_text("card,price_per_hour\nT4,0.2\nL4,0.5\n")
    document = json.loads(vramfit("probe", "--model", model, "--price", str(prices), "--json").out)
    assert {card["card"] for card in document["cards"]} == {"T4", "L4"}
    assert "cheapest" in document["picks"]


def test_prices_without_a_card_and_cards_without_a_price_are_told(vramfit, model, tmp_path):
    prices = tmp_path / "prices.csv"
    prices.write_text("card,price_per_hour\nT4,0.2\nA100 80G,1.5\n")
    words = ("probe", "--model", model, "--price", str(prices), "--gpu", "T4,L4")
    said = vramfit(*words).out
    assert "No price is given for L4, so the cheapest is of the others." in said
    assert "Prices of cards that were not asked about: A100 SXM 80GB; name them with --gpu." in said
    assert "200 epochs (assumed: --images and --epochs say how long yours is)" in said
    assert json.loads(vramfit(*words, "--json").out)["unused_prices"] == ["A100 SXM 80GB"]


def test_a_job_of_one_s_own_has_no_times_of_epochs_unless_it_is_said_how_long_it_is(vramfit, model):
    words = ("probe", "--model", model, "--gpu", "T4", "--batch-size", "8")
    said = vramfit(*words).out
    assert "total" not in said
    assert "epoch" not in said.replace("--epochs say how long an epoch and", "")
    assert "--images and --epochs say how long" in said
    said = vramfit(*words, "--images", "64", "--epochs", "3").out
    assert "64 images an epoch, 3 epochs" in said
    assert "total" in said


def test_a_table_that_ends_at_the_data_set_says_so(vramfit, model):
    said = vramfit("probe", "--model", model, "--gpu", "T4", "--images", "2000").out
    assert "Plan: batch 2000: it is the whole data set, an epoch has 2000 images." in said
    said = vramfit("probe", "--model", model, "--gpu", "T4", "--objective", "largest").out
    assert "batch 4096: larger ones were not tried; --images says how many samples an epoch has." in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu", "all", "--image-sizes", "256,512"], "leave out --image-sizes"),
        (["--gpu", "all", "--export", "x.json"], "--export"),
        (["--gpu", "all", "--levers", "auto"], "--levers auto"),
        (["--gpu", "all", "--levers", "optimizer_in_backward", "--effective-batch", "64"], "cannot add up gradients"),
        (["--gpu", "all", "--buckets", "4"], "give --lengths"),
        (["--price-per-hour", "1"], "give --gpu too"),
        (["--gpu", "rtx3060,radeon"], "of AMD"),
        (["--gpu", ">900GB"], "no card is '>900GB'"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(vramfit, model, words, said):
    answer = vramfit("probe", "--model", model, *words)
    assert answer.code == 2
    assert said in answer.err


def test_a_line_for_slurm_stands_below(vramfit, model):
    out = vramfit("probe", "--model", model, "--gpu", "T4,L4", "--slurm").out
    assert "#SBATCH --gres=gpu:l4:1 --mem=" in out
    assert "sinfo" in out
    alone = vramfit("probe", "--model", model, "--gpu", "A100 80G", "--mig", "1g.10gb", "--batch-size", "8", "--slurm")
    assert "#SBATCH --gres=gpu:1g.10gb:1 --mem=" in alone.out
    refused = vramfit("probe", "--model", model, "--gpu", "T4", "--axis", "tokens", "--slurm")
    assert refused.code == 2
