"""Names of cards as people, drivers and lspci write them: each is right, or refused in one sentence."""

import pytest

from vramfit.cards import CARDS, card_notes, find_card
from vramfit.errors import UnknownCard
from vramfit.units import GIB

# name | GB it is sold with | compute capability
RIGHT = """
# spoken
A100 80G | 80 | 8.0
a100-80gb | 80 | 8.0
A100 40 GB | 40 | 8.0
a100 pcie 80gb | 80 | 8.0
A100-SXM4-40GB | 40 | 8.0
V100 32G | 32 | 7.0
v100-16gb | 16 | 7.0
V100S | 32 | 7.0
H100 | 80 | 9.0
h100 80g | 80 | 9.0
h100-sxm5-80gb | 80 | 9.0
H100 PCIe | 80 | 9.0
H100 NVL | 94 | 9.0
H200 | 141 | 9.0
h200 nvl | 141 | 9.0
GH200 | 96 | 9.0
B200 | 180 | 10.0
GB200 | 186 | 10.0
B300 | 288 | 10.3
P100 | 16 | 6.0
p100-16gb | 16 | 6.0
P40 | 24 | 6.1
P4 | 8 | 6.1
T4 | 16 | 7.5
l4 | 24 | 8.9
L40 | 48 | 8.9
L40S | 48 | 8.9
l40s 48gb | 48 | 8.9
L20 | 48 | 8.9
A10 | 24 | 8.6
A10G | 24 | 8.6
a10g 24g | 24 | 8.6
A16 | 16 | 8.6
A2 | 16 | 8.6
A30 | 24 | 8.0
A40 | 48 | 8.6
A800 80GB | 80 | 8.0
H800 | 80 | 9.0
H20 96GB | 96 | 9.0
M60 | 8 | 5.2
M40 24GB | 24 | 5.2
RTX 3060 8GB | 8 | 8.6
RTX3060-8GB | 8 | 8.6
rtx3060 | 12 | 8.6
rtx3060ti | 8 | 8.6
3060ti 8g | 8 | 8.6
RTX 3060 12 GB | 12 | 8.6
3090 | 24 | 8.6
RTX 3090 Ti | 24 | 8.6
rtx-3080-ti | 12 | 8.6
3080 12gb | 12 | 8.6
RTX 3080 10GB | 10 | 8.6
rtx 3050 | 8 | 8.6
RTX 3050 6GB | 6 | 8.6
rtx 2080ti | 11 | 7.5
RTX2080 SUPER | 8 | 7.5
rtx 2060 12gb | 12 | 7.5
RTX 2060 | 6 | 7.5
4090 | 24 | 8.9
rtx4090d | 24 | 8.9
RTX 4070 Ti SUPER | 16 | 8.9
rtx4070tisuper | 16 | 8.9
4070 ti | 12 | 8.9
4070super | 12 | 8.9
RTX 4060 Ti 16GB | 16 | 8.9
4060ti 16g | 16 | 8.9
RTX 4060 Ti 8 GB | 8 | 8.9
RTX 4080 Super | 16 | 8.9
RTX 5090 | 32 | 12.0
5090 d | 32 | 12.0
RTX 5080 | 16 | 12.0
rtx5070ti | 16 | 12.0
RTX 5060 Ti 16GB | 16 | 12.0
RTX 5060 | 8 | 12.0
RTX 5050 | 8 | 12.0
GTX 1080 Ti | 11 | 6.1
gtx1080 | 8 | 6.1
1070ti | 8 | 6.1
GTX 1060 3GB | 3 | 6.1
GTX 1060 6GB | 6 | 6.1
gtx 1060-6gb | 6 | 6.1
GTX 1050 Ti | 4 | 6.1
GTX 1650 | 4 | 7.5
GTX 1650 Super | 4 | 7.5
gtx1660super | 6 | 7.5
gtx 1660 ti | 6 | 7.5
GTX 980 Ti | 6 | 5.2
GTX 970 | 4 | 5.2
GTX 750 Ti | 2 | 5.0
GTX 1650 Max-Q | 4 | 7.5
RTX 2070 Max-Q | 8 | 7.5
RTX 2080 Super Max-Q | 8 | 7.5
rtx 3070 laptop | 8 | 8.6
rtx3080 laptop 16gb | 16 | 8.6
RTX 4090 mobile | 16 | 8.9
rtx4060laptop | 8 | 8.9
RTX 5090 Laptop | 24 | 12.0
3050 ti mobile | 4 | 8.6
P4000 | 8 | 6.1
Quadro P5000 | 16 | 6.1
P6000 | 24 | 6.1
p2000 | 5 | 6.1
T1000 8GB | 8 | 7.5
T1000 4GB | 4 | 7.5
T600 | 4 | 7.5
RTX 8000 | 48 | 7.5
Quadro RTX 6000 | 24 | 7.5
quadro rtx 5000 | 16 | 7.5
rtx 6000 ada | 48 | 8.9
RTX6000Ada | 48 | 8.9
RTX 6000 48GB | 48 | 8.9
RTX A6000 | 48 | 8.6
A6000 | 48 | 8.6
Quadro RTX A6000 | 48 | 8.6
a5000 | 24 | 8.6
A4000 | 16 | 8.6
A4500 | 20 | 8.6
RTX A2000 6GB | 6 | 8.6
RTX A2000 12GB | 12 | 8.6
A5500 | 24 | 8.6
RTX 4000 Ada | 20 | 8.9
RTX 4000 SFF Ada | 20 | 8.9
RTX 4500 Ada | 24 | 8.9
RTX 5000 Ada | 32 | 8.9
RTX PRO 6000 | 96 | 12.0
RTX PRO 6000 Blackwell | 96 | 12.0
rtx pro 4000 blackwell | 24 | 12.0
RTX PRO 5000 Blackwell | 48 | 12.0
TITAN V | 12 | 7.0
titan xp | 12 | 6.1
Titan RTX | 24 | 7.5
TITAN X Pascal | 12 | 6.1
GTX Titan X | 12 | 5.2
titan x (maxwell) | 12 | 5.2
Jetson AGX Orin 64GB | 64 | 8.7
AGX Orin 32GB | 32 | 8.7
Jetson Orin Nano 8GB | 8 | 8.7
Jetson AGX Thor | 128 | 11.0
DGX Spark | 128 | 12.1
MX450 | 2 | 7.5
# drivers, nvidia-smi and torch
NVIDIA GeForce RTX 3070 Ti | 8 | 8.6
GeForce RTX 3090 | 24 | 8.6
NVIDIA GeForce RTX 4090 D | 24 | 8.9
NVIDIA GeForce RTX 4060 Laptop GPU | 8 | 8.9
NVIDIA GeForce RTX 4070 Laptop GPU | 8 | 8.9
NVIDIA GeForce RTX 3080 Ti Laptop GPU | 16 | 8.6
NVIDIA GeForce RTX 3050 6GB Laptop GPU | 6 | 8.6
NVIDIA GeForce RTX 3050 Laptop GPU | 4 | 8.6
NVIDIA GeForce RTX 2080 with Max-Q Design | 8 | 7.5
NVIDIA GeForce GTX 1650 with Max-Q Design | 4 | 7.5
GeForce GTX 1060 with Max-Q Design | 6 | 6.1
NVIDIA GeForce GTX 1660 Ti with Max-Q Design | 6 | 7.5
NVIDIA GeForce GTX 1080 Ti | 11 | 6.1
GeForce GTX TITAN X | 12 | 5.2
NVIDIA TITAN X (Pascal) | 12 | 6.1
NVIDIA TITAN Xp | 12 | 6.1
NVIDIA TITAN RTX | 24 | 7.5
NVIDIA TITAN V | 12 | 7.0
Tesla T4 | 16 | 7.5
Tesla P4 | 8 | 6.1
Tesla P40 | 24 | 6.1
Tesla P100-PCIE-16GB | 16 | 6.0
Tesla P100-PCIE-12GB | 12 | 6.0
Tesla P100-SXM2-16GB | 16 | 6.0
Tesla V100-SXM2-16GB | 16 | 7.0
Tesla V100-SXM2-32GB | 32 | 7.0
Tesla V100-SXM3-32GB | 32 | 7.0
Tesla V100-PCIE-32GB | 32 | 7.0
Tesla V100-FHHL-16GB | 16 | 7.0
Tesla V100S-PCIE-32GB | 32 | 7.0
Tesla M60 | 8 | 5.2
NVIDIA A100-SXM4-40GB | 40 | 8.0
NVIDIA A100-SXM4-80GB | 80 | 8.0
NVIDIA A100-PCIE-40GB | 40 | 8.0
NVIDIA A100 80GB PCIe | 80 | 8.0
NVIDIA A100-SXM-64GB | 64 | 8.0
NVIDIA A800-SXM4-80GB | 80 | 8.0
NVIDIA A10 | 24 | 8.6
NVIDIA A10G | 24 | 8.6
NVIDIA A16 | 16 | 8.6
NVIDIA A30 | 24 | 8.0
NVIDIA A40 | 48 | 8.6
NVIDIA L4 | 24 | 8.9
NVIDIA L40S | 48 | 8.9
NVIDIA H100 80GB HBM3 | 80 | 9.0
NVIDIA H100 PCIe | 80 | 9.0
NVIDIA H100 NVL | 94 | 9.0
NVIDIA H200 | 141 | 9.0
NVIDIA H200 NVL | 141 | 9.0
NVIDIA GH200 480GB | 96 | 9.0
NVIDIA GH200 144G HBM3e | 144 | 9.0
NVIDIA B200 | 180 | 10.0
NVIDIA GB200 | 186 | 10.0
NVIDIA B300 SXM6 AC | 288 | 10.3
NVIDIA GB10 | 128 | 12.1
NVIDIA Thor | 128 | 11.0
NVIDIA RTX A6000 | 48 | 8.6
NVIDIA RTX A2000 12GB | 12 | 8.6
NVIDIA RTX A2000 8GB Laptop GPU | 8 | 8.6
NVIDIA RTX A5000 Laptop GPU | 16 | 8.6
NVIDIA RTX 6000 Ada Generation | 48 | 8.9
NVIDIA RTX 2000 Ada Generation | 16 | 8.9
NVIDIA RTX 2000 Ada Generation Laptop GPU | 8 | 8.9
NVIDIA RTX 4000 SFF Ada Generation | 20 | 8.9
NVIDIA RTX PRO 6000 Blackwell Workstation Edition | 96 | 12.0
NVIDIA RTX PRO 6000 Blackwell Server Edition | 96 | 12.0
NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition | 96 | 12.0
NVIDIA RTX PRO 5000 72GB Blackwell | 72 | 12.0
NVIDIA RTX PRO 4500 Blackwell | 32 | 12.0
NVIDIA GeForce RTX 5070 Ti Laptop GPU | 12 | 12.0
Quadro P4000 | 8 | 6.1
Quadro P1000 | 4 | 6.1
Quadro RTX 8000 | 48 | 7.5
Quadro RTX 5000 with Max-Q Design | 16 | 7.5
Quadro T2000 with Max-Q Design | 4 | 7.5
Quadro T1000 | 4 | 7.5
Quadro GV100 | 32 | 7.0
Quadro M4000 | 8 | 5.2
Quadro M4000M | 4 | 5.2
NVIDIA T1000 8GB | 8 | 7.5
NVIDIA T600 Laptop GPU | 4 | 7.5
NVIDIA T1200 Laptop GPU | 4 | 7.5
# lspci and pci.ids
GA104 [GeForce RTX 3070 Ti] | 8 | 8.6
NVIDIA Corporation TU104GL [Tesla T4] (rev a1) | 16 | 7.5
GP102 [GeForce GTX 1080 Ti] | 11 | 6.1
GA102GL [RTX A6000] | 48 | 8.6
AD104GL [L4] | 24 | 8.9
GM200 [GeForce GTX TITAN X] | 12 | 5.2
TU117M [GeForce GTX 1650 Mobile / Max-Q] | 4 | 7.5
GA107 [GeForce RTX 3050 4GB] | 4 | 8.6
GA100 [A100 PCIe 80GB] | 80 | 8.0
GA106 [GeForce RTX 3060 Lite Hash Rate] | 12 | 8.6
TU117BM [GeForce GTX 1650 Mobile Refresh] | 4 | 7.5
GV100GL [Tesla V100 DGXS 32GB] | 32 | 7.0
GM107 [GeForce GTX 745] | 4 | 5.0
GM107GL [Quadro K620] | 2 | 5.0
GP106 [GeForce GTX 1060 6GB Rev. 2] | 6 | 6.1
# instances
NVIDIA A100-SXM4-40GB MIG 1g.5gb | 5 | 8.0
NVIDIA A100-SXM4-80GB MIG 1g.10gb | 10 | 8.0
NVIDIA A100-SXM4-80GB MIG 3g.40gb | 40 | 8.0
NVIDIA A100 80GB PCIe MIG 7g.80gb | 80 | 8.0
A100 MIG 2g.10gb | 10 | 8.0
NVIDIA H100 80GB HBM3 MIG 1g.10gb | 10 | 9.0
NVIDIA H100 80GB HBM3 MIG 1g.10gb+me | 10 | 9.0
NVIDIA H100 NVL MIG 3g.47gb | 47 | 9.0
NVIDIA H200 MIG 1g.18gb | 18 | 9.0
NVIDIA A30 MIG 2g.12gb | 12 | 8.0
NVIDIA B200 MIG 1g.23gb | 23 | 10.0
NVIDIA RTX PRO 6000 Blackwell Server Edition MIG 1g.24gb | 24 | 12.0
# other memory than the card is sold with
RTX 2080 Ti with 22GB | 22 | 7.5
RTX 3080 with 20GB | 20 | 8.6
"""

# name: what the sentence must say
REFUSED = {
    "NVIDIA RTX A2000": "RTX A2000 12GB or RTX A2000 6GB",
    "A2000": "RTX A2000 12GB or RTX A2000 6GB",
    "A100": "A100 SXM 40GB, A100 SXM 80GB",
    "v100": "V100 SXM2 16GB, V100 SXM2 32GB",
    "T1000": "T1000 4GB, T1000 8GB or Quadro T1000",
    "RTX 4060 Ti": "RTX 4060 Ti 8GB or RTX 4060 Ti 16GB",
    "5060ti": "RTX 5060 Ti 16GB or RTX 5060 Ti 8GB",
    "GTX 1060": "GTX 1060 6GB, GTX 1060 3GB",
    "RTX 3080 Laptop": "RTX 3080 Laptop 16GB or RTX 3080 Laptop 8GB",
    "RTX 6000": "Quadro RTX 6000 or RTX 6000 Ada",
    "RTX 4000": "Quadro RTX 4000 or RTX 4000 Ada",
    "RTX 5000": "Quadro RTX 5000 or RTX 5000 Ada",
    "TITAN X": r"GTX TITAN X \(Maxwell\) or TITAN X \(Pascal\)",
    "M40": "M40 12GB or M40 24GB",
    "Orin": "Jetson AGX Orin 32GB, .*Jetson Orin NX 16GB",
    "Jetson AGX Orin": "Jetson AGX Orin 32GB or Jetson AGX Orin 64GB",
    "RTX 2080 Ti 22GB": "sold with 11 GB; .* with 22GB",
    "RTX 3090 12GB": "sold with 24 GB",
    "rtx3070tl": "RTX 3070 Ti",
    "A100 80G MIG 1g.5gb": "it has 1g.10gb",
    "RTX 4090 MIG 1g.10gb": "cannot be partitioned",
    "A100 MIG 1g.10gb": "A100 SXM 40GB, A100 SXM 80GB",
    "RX 7900 XTX": "of AMD",
    "AMD Radeon RX 6800": "of AMD",
    "AMD Instinct MI300X": "of AMD",
    "MI250X": "of AMD",
    "Intel Arc A770": "of Intel",
    "Arc B580": "of Intel",
    "Intel(R) Data Center GPU Max 1550": "of Intel",
    "Gaudi 3": "of Intel",
    "Apple M2 Max": "of Apple",
    "M3 Ultra": "of Apple",
    "TPU v5e": "of Google",
    "Ascend 910B": "of Huawei",
    "Tesla K80": "older than the GPUs",
    "Tesla K20Xm": "older than the GPUs",
    "NVS 810": "no card is called",
    "GRID M3-3020": "no card is called",
    "K40m": "older than the GPUs",
    "GTX 780 Ti": "older than the GPUs",
    "GTX 680": "older than the GPUs",
    "GT 710": "older than the GPUs",
    "GeForce GTX TITAN Black": "older than the GPUs",
    "GRID T4-16Q": "vGPU with 16 GB",
    "NVIDIA A40-8Q": "vGPU with 8 GB",
    "NVIDIA A100-40C": "vGPU with 40 GB",
    "": "the nearest are",
    "banana": "the nearest are",
}


def _right() -> list[tuple[str, int, tuple[int, int]]]:
    rows = [line.split(" | ") for line in RIGHT.strip().splitlines() if not line.startswith("#")]
    return [(name, int(gib), (int(version.split(".")[0]), int(version.split(".")[1]))) for name, gib, version in rows]


def test_there_are_more_than_two_hundred_names():
    assert len({name for name, _, _ in _right()}) + len(REFUSED) > 290


@pytest.mark.parametrize(("name", "gib", "capability"), _right(), ids=str)
def test_memory_and_compute_capability_are_right(name, gib, capability):
    card = find_card(name)
    assert (card.sold_gib, card.compute_capability) == (gib, capability)
    assert 0.82 * gib * GIB < card.memory_bytes <= card.shown_bytes <= gib * GIB


@pytest.mark.parametrize(("name", "said"), REFUSED.items())
def test_what_is_not_sure_is_refused_in_one_sentence(name, said):
    with pytest.raises(UnknownCard, match=said) as raised:
        find_card(name)
    sentence = str(raised.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("name", "total_mib", "found"),
    [  # what nvidia-smi shows of cards that share a name
        ("NVIDIA RTX A2000", 6138, "RTX A2000 6GB"),
        ("NVIDIA RTX A2000", 12282, "RTX A2000 12GB"),
        ("NVIDIA GeForce RTX 3080", 10240, "RTX 3080"),
        ("NVIDIA GeForce RTX 3080", 12288, "RTX 3080 12GB"),
        ("NVIDIA GeForce RTX 3060", 8192, "RTX 3060 8GB"),
        ("NVIDIA GeForce RTX 4060 Ti", 16380, "RTX 4060 Ti 16GB"),
        ("NVIDIA GeForce RTX 4060 Ti", 8188, "RTX 4060 Ti 8GB"),
        ("NVIDIA GeForce RTX 3080 Laptop GPU", 8192, "RTX 3080 Laptop 8GB"),
        ("Tesla M40", 22945, "M40 24GB"),
        ("Quadro P2000", 5059, "Quadro P2000"),
        ("Quadro P2000", 4041, "Quadro P2000 Laptop"),
        ("Quadro RTX 6000", 24576, "Quadro RTX 6000"),
        ("Orin", 62841, "Jetson AGX Orin 64GB"),
        ("Orin", 7620, "Jetson Orin Nano 8GB"),
        ("NVIDIA GeForce RTX 2080 Ti", 22528, "RTX 2080 Ti"),  # modded: its budget is read from the card
    ],
)
def test_the_memory_of_a_card_that_is_here_decides(name, total_mib, found):
    card = find_card(name, total_bytes=total_mib * 2**20)
    assert card.name == found or (card.sold_gib, card.compute_capability) == (8, (8, 7))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_card_with_other_memory_and_its_instances_are_found_by_their_names(card):
    other = find_card(f"{card.name} with {card.sold_gib + 100}GB")
    assert find_card(other.name) == other
    assert other.memory_bytes > card.memory_bytes
    assert (other.sms, other.bandwidth_bytes_per_s) == (card.sms, card.bandwidth_bytes_per_s)


def test_an_instance_has_its_part_of_the_card():
    whole, part = find_card("A100 SXM 80GB"), find_card("A100 SXM 80GB MIG 3g.40gb")
    assert find_card(part.name) == part
    assert part.kind == "MIG"
    assert (part.sms, part.memory_bytes) == (42, 39.25 * GIB)
    assert part.bandwidth_bytes_per_s == whole.bandwidth_bytes_per_s / 2
    assert part.fp16_flops == pytest.approx(whole.fp16_flops * 42 / 108)


def test_a_card_that_shares_the_systems_memory_says_so():
    assert "shares its memory" in " ".join(card_notes(find_card("AGX Orin 64GB"), None))
    assert card_notes(find_card("rtx3090"), "fp16") == []
