import pytest

from vramfit.cards import CARDS, find_card
from vramfit.errors import UnknownCard
from vramfit.units import GIB


def test_the_table_has_the_cards_people_train_on():
    assert len(CARDS) >= 60
    assert len({card.name for card in CARDS}) == len(CARDS)
    assert {card.architecture for card in CARDS} == {
        "maxwell",
        "pascal",
        "volta",
        "turing",
        "ampere",
        "ada",
        "hopper",
        "blackwell",
    }


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_card_is_found_by_its_own_name_and_is_plausible(card):
    assert find_card(card.name) is card
    assert find_card(f"NVIDIA GeForce {card.name}".upper()) is card
    assert find_card(card.name.replace(" ", "").lower() if "GB" not in card.name else card.name) is card
    assert 0.88 * card.sold_gib * GIB < card.memory_bytes < card.sold_gib * GIB
    assert card.fp16_flops >= card.tf32_flops >= card.fp32_flops > 5e11
    assert 2e10 < card.bandwidth_bytes_per_s < 1e13
    assert card.source


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rtx3070ti", "RTX 3070 Ti"),
        ("RTX 3070 Ti", "RTX 3070 Ti"),
        ("3070 ti 8GB", "RTX 3070 Ti"),
        ("NVIDIA GeForce RTX 3070 Ti Laptop GPU", "RTX 3070 Ti Laptop"),
        ("rtx3070timobile", "RTX 3070 Ti Laptop"),
        ("NVIDIA GeForce RTX 2080 with Max-Q Design", "RTX 2080 Laptop"),
        ("rtx_4070_ti_super", "RTX 4070 Ti Super"),
        ("4070tisuper", "RTX 4070 Ti Super"),
        ("a100 40gb", "A100 SXM 40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("Tesla V100-SXM2-32GB", "V100 SXM2 32GB"),
        ("Tesla P100-PCIE-16GB", "P100 PCIe 16GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM 80GB"),
        ("NVIDIA H100 PCIe", "H100 PCIe 80GB"),
        ("NVIDIA H200", "H200 SXM 141GB"),
        ("Tesla T4", "T4"),
        ("Quadro RTX 6000", "Quadro RTX 6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("rtxa6000", "RTX A6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000 Blackwell"),
        ("RTX 3080 12GB", "RTX 3080 12GB"),
        ("rtx 3080", "RTX 3080"),
        ("RTX 4060 Ti 16 GiB", "RTX 4060 Ti 16GB"),
        ("titan rtx", "TITAN RTX"),
        ("TITAN X (Pascal)", "TITAN X (Pascal)"),
    ],
)
def test_names_match_loosely(text, name):
    assert find_card(text).name == name


@pytest.mark.parametrize("text", ["rtx3070tl", "RTX 3090 12GB", "", "banana"])
def test_an_unknown_card_lists_the_nearest(text):
    with pytest.raises(UnknownCard, match=r"the nearest are .+, .+"):
        find_card(text)


def test_the_nearest_are_near():
    with pytest.raises(UnknownCard, match="RTX 3070 Ti"):
        find_card("rtx3070tl")


@pytest.mark.parametrize(
    ("name", "tflops", "gb_per_s"),
    [  # dense fp16 with float32 accumulation and bandwidth, as NVIDIA's whitepapers and data sheets print them
        ("RTX 3090", 71, 936),
        ("RTX 3080", 59.5, 760),
        ("RTX 4090", 165.2, 1008),
        ("RTX 2080 Ti", 53.8, 616),
        ("RTX 5090", 209.5, 1792),
        ("RTX A6000", 154.8, 768),
        ("A100 SXM 40GB", 312, 1555),
        ("A100 SXM 80GB", 312, 2039),
        ("H100 SXM 80GB", 989.4, 3352),
        ("H100 PCIe 80GB", 756, 2039),
        ("V100 SXM2 16GB", 125, 900),
        ("T4", 65, 320),
        ("A10", 125, 600),
        ("L4", 121, 300),
        ("L40", 181, 864),
        ("L20", 119.5, 864),
        ("H20 96GB", 148, 4000),
    ],
)
def test_computed_rates_agree_with_the_printed_ones(name, tflops, gb_per_s):
    card = find_card(name)
    assert card.fp16_flops / 1e12 == pytest.approx(tflops, rel=0.012)
    assert card.bandwidth_bytes_per_s / 1e9 == pytest.approx(gb_per_s, rel=0.005)


# float32 TFLOP/s of the public list huggingface.js keeps in packages/tasks/src/hardware.ts
HARDWARE_LIST = {
    "RTX 3060": 12.74,
    "RTX 3060 Ti": 16.2,
    "RTX 3070": 20.31,
    "RTX 3070 Ti": 21.75,
    "RTX 3080 12GB": 30.6,
    "RTX 3080 Ti": 34.1,
    "RTX 3090": 35.58,
    "RTX 3090 Ti": 40,
    "A10": 31.24,
    "A40": 37.42,
    "RTX 4070": 29.15,
    "RTX 4070 Super": 35.48,
    "RTX 4070 Ti": 40.09,
    "RTX 4070 Ti Super": 44.1,
    "RTX 4080": 48.7,
    "RTX 4080 Super": 52.2,
    "RTX 4090": 82.58,
    "L40": 90.52,
    "RTX 6000 Ada": 91.1,
}


@pytest.mark.parametrize("name", HARDWARE_LIST)
def test_multiprocessors_and_clocks_agree_with_a_public_list(name):
    assert find_card(name).fp32_flops / 1e12 == pytest.approx(HARDWARE_LIST[name], rel=0.005)
