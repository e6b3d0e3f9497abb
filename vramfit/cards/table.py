"""NVIDIA cards that people train on, and the figures a prediction needs.

The table holds what NVIDIA publishes for each card: multiprocessors (SMs), boost clock, memory bus and its data rate.
The rest is computed, each figure from one formula:

- bandwidth = bus width / 8 x data rate of a pin;
- arithmetic rate = SMs x boost clock x operations an SM does in a clock (`Family`, a multiply-add counts two). The
  rate of fp16 is that of dense matrices on tensor cores with float32 accumulation, which training uses: GeForce cards
  of Turing, Ampere, Ada and Blackwell do it at half the rate of fp16 accumulation, which their data sheets advertise;
  workstation and most data-center cards of the same chips at the full rate. Cards without tensor cores multiply fp16
  matrices at the float32 rate at best; cards older than Ampere have no TF32 and compute it as float32.
- memory = what a Linux driver lets CUDA use: the figure that PyTorch gives as "total capacity" where people have
  reported it, else the size it is sold with less what drivers keep on cards of that family (`_kept_gib`, fitted to
  the reported ones). It moves by up to 0.15 GiB between drivers; with ECC on GDDR6 a sixteenth is gone before that.

A laptop part's clock depends on the power its maker grants it; the table has the upper figure that NVIDIA states.
"""

from pydantic import PositiveFloat, PositiveInt

from vramfit.cards import families
from vramfit.cards.families import Family
from vramfit.records import Record
from vramfit.units import GIB

# Arithmetic in bf16 and TF32 came with Ampere, tensor cores for fp16 with Volta.
BF16_CAPABILITY = (8, 0)
_TENSOR_CORES_CAPABILITY = (7, 0)
# CUDA programming guide, "Technical Specifications per Compute Capability"; 2048 where not listed here.
_THREADS_OF_AN_SM = {(7, 5): 1024, (8, 6): 1536, (8, 9): 1536, (12, 0): 1536}


class Card(Record):
    """A GPU model. Rates are peaks: FLOP/s dense, fp16 on tensor cores with float32 accumulation.

    `memory_bytes` is what CUDA sees on Linux, `shown_bytes` what NVML and nvidia-smi call the total, `sold_gib` what
    the box says; `source` says where the figures are from.
    """

    name: str
    architecture: str
    compute_capability: tuple[int, int]
    laptop: bool
    sold_gib: PositiveInt
    memory_bytes: PositiveInt
    shown_bytes: PositiveInt
    bandwidth_bytes_per_s: PositiveFloat
    sms: PositiveInt
    fp16_flops: PositiveFloat
    tf32_flops: PositiveFloat
    fp32_flops: PositiveFloat
    source: str

    @property
    def driver_reserve_bytes(self) -> int:
        """What the driver keeps of the card: NVML counts it as used, and CUDA does not see it."""
        return self.shown_bytes - self.memory_bytes

    @property
    def resident_threads(self) -> int:
        """Threads that the card can hold at once."""
        return self.sms * _THREADS_OF_AN_SM.get(self.compute_capability, 2048)

    @property
    def has_bf16(self) -> bool:
        """Whether bf16 is computed as such; older cards compute it in float32."""
        return self.compute_capability >= BF16_CAPABILITY

    @property
    def has_tensor_cores(self) -> bool:
        """Whether fp16 matrices run on tensor cores: the GTX 16 series is of Turing and has none."""
        return self.compute_capability >= _TENSOR_CORES_CAPABILITY and self.fp16_flops > self.fp32_flops


# name, sold GiB, reported GiB (None where no report was found), bus bits, Gbit/s a pin, SMs, boost MHz
_Row = tuple[str, int, float | None, int, float, int, int]
# Where names differ by memory or board alone, the commonest stands first: it is what the short name means.
_TABLE: tuple[tuple[Family, tuple[_Row, ...]], ...] = (
    (
        families.PASCAL,
        (
            ("GTX 1050 Ti", 4, 3.94, 128, 7, 6, 1392),
            ("GTX 1060 6GB", 6, 5.93, 192, 8, 10, 1708),
            ("GTX 1070", 8, 7.92, 256, 8, 15, 1683),
            ("GTX 1070 Ti", 8, None, 256, 8, 19, 1683),
            ("GTX 1080", 8, 7.92, 256, 10, 20, 1733),
            ("GTX 1080 Ti", 11, 10.91, 352, 11, 28, 1582),
            ("TITAN X", 12, 11.91, 384, 10, 28, 1531),
            ("TITAN Xp", 12, 11.91, 384, 11.4, 30, 1582),
            ("P40", 24, 22.38, 384, 7.2, 30, 1531),
        ),
    ),
    (families.GP100, (("P100 PCIe 16GB", 16, 15.9, 4096, 1.43, 56, 1303),)),
    (
        families.VOLTA,
        (
            ("V100 SXM2 16GB", 16, 15.78, 4096, 1.758, 80, 1530),
            ("V100 SXM2 32GB", 32, 31.75, 4096, 1.758, 80, 1530),
            ("V100 PCIe 16GB", 16, 15.78, 4096, 1.758, 80, 1380),
            ("V100 PCIe 32GB", 32, 31.75, 4096, 1.758, 80, 1380),
            ("TITAN V", 12, 11.78, 3072, 1.7, 80, 1455),
        ),
    ),
    (
        families.TURING_GTX,
        (
            ("GTX 1650", 4, 3.82, 128, 8, 14, 1665),
            ("GTX 1650 Super", 4, 3.82, 128, 12, 20, 1725),
            ("GTX 1660", 6, 5.8, 192, 8, 22, 1785),
            ("GTX 1660 Super", 6, 5.8, 192, 14, 22, 1785),
            ("GTX 1660 Ti", 6, 5.81, 192, 12, 24, 1770),
            ("GTX 1660 Ti Laptop", 6, 5.8, 192, 12, 24, 1590),
        ),
    ),
    (
        families.TURING,
        (
            ("RTX 2060", 6, 5.79, 192, 14, 30, 1680),
            ("RTX 2060 12GB", 12, None, 192, 14, 34, 1650),
            ("RTX 2060 Super", 8, 7.79, 256, 14, 34, 1650),
            ("RTX 2070", 8, 7.79, 256, 14, 36, 1620),
            ("RTX 2070 Super", 8, 7.79, 256, 14, 40, 1770),
            ("RTX 2080", 8, 7.79, 256, 14, 46, 1710),
            ("RTX 2080 Super", 8, 7.79, 256, 15.5, 48, 1815),
            ("RTX 2080 Ti", 11, 10.76, 352, 14, 68, 1545),
            ("RTX 2060 Laptop", 6, None, 192, 14, 30, 1560),
            ("RTX 2070 Laptop", 8, None, 256, 14, 36, 1440),
            ("RTX 2080 Laptop", 8, None, 256, 14, 46, 1590),
        ),
    ),
    (
        families.TURING_PRO,
        (
            ("TITAN RTX", 24, 23.65, 384, 14, 72, 1770),
            ("Quadro RTX 4000", 8, 7.8, 256, 13, 36, 1545),
            ("Quadro RTX 5000", 16, 15.74, 256, 14, 48, 1815),
            ("Quadro RTX 6000", 24, 23.65, 384, 14, 72, 1770),
            ("Quadro RTX 8000", 48, 47.46, 384, 14, 72, 1770),
        ),
    ),
    (families.TURING_ECC, (("T4", 16, 14.75, 256, 10, 40, 1590),)),
    (
        families.GA100,
        (
            ("A100 SXM 40GB", 40, 39.59, 5120, 2.43, 108, 1410),
            ("A100 SXM 80GB", 80, 79.2, 5120, 3.186, 108, 1410),
            ("A100 PCIe 40GB", 40, 39.59, 5120, 2.43, 108, 1410),
            ("A100 PCIe 80GB", 80, 79.2, 5120, 3.024, 108, 1410),
            ("A30", 24, 23.5, 3072, 2.43, 56, 1440),
        ),
    ),
    (
        families.AMPERE,
        (
            ("RTX 3050", 8, None, 128, 14, 20, 1777),
            ("RTX 3060", 12, 11.76, 192, 15, 28, 1777),
            ("RTX 3060 Ti", 8, 7.79, 256, 14, 38, 1665),
            ("RTX 3070", 8, 7.78, 256, 14, 46, 1725),
            ("RTX 3070 Ti", 8, 7.78, 256, 19, 48, 1770),
            ("RTX 3080", 10, 9.78, 320, 19, 68, 1710),
            ("RTX 3080 12GB", 12, 11.76, 384, 19, 70, 1710),
            ("RTX 3080 Ti", 12, 11.76, 384, 19, 80, 1665),
            ("RTX 3090", 24, 23.69, 384, 19.5, 82, 1695),
            ("RTX 3090 Ti", 24, 23.68, 384, 21, 84, 1860),
            ("RTX 3050 Laptop", 4, 3.81, 128, 12, 16, 1740),
            ("RTX 3050 Ti Laptop", 4, 3.81, 128, 12, 20, 1695),
            ("RTX 3060 Laptop", 6, 5.8, 192, 14, 30, 1703),
            ("RTX 3070 Laptop", 8, 7.79, 256, 14, 40, 1620),
            ("RTX 3070 Ti Laptop", 8, 7.79, 256, 14, 46, 1485),
            ("RTX 3080 Laptop 16GB", 16, 15.74, 256, 14, 48, 1710),
            ("RTX 3080 Laptop 8GB", 8, 7.79, 256, 14, 48, 1710),
            ("RTX 3080 Ti Laptop", 16, None, 256, 16, 58, 1590),
        ),
    ),
    (
        families.AMPERE_PRO,
        (
            ("RTX A2000 12GB", 12, 11.76, 192, 12, 26, 1200),
            ("RTX A2000 6GB", 6, 5.8, 192, 12, 26, 1200),
            ("RTX A4000", 16, 15.73, 256, 14, 48, 1560),
            ("RTX A4500", 20, 19.7, 320, 16, 56, 1650),
            ("RTX A5000", 24, 23.68, 384, 16, 64, 1695),
            ("RTX A5500", 24, None, 384, 16, 80, 1665),
            ("RTX A6000", 48, 47.54, 384, 16, 84, 1800),
        ),
    ),
    (
        families.AMPERE_ECC,
        (
            ("A2", 16, 14.76, 128, 12.5, 10, 1770),
            ("A10", 24, 22.2, 384, 12.5, 72, 1695),
            ("A40", 48, 44.4, 384, 14.5, 84, 1740),
        ),
    ),
    (families.AMPERE_HALF_ECC, (("A10G", 24, 22.2, 384, 12.5, 80, 1710),)),
    (
        families.ADA,
        (
            ("RTX 4060", 8, 7.63, 128, 17, 24, 2460),
            ("RTX 4060 Ti 8GB", 8, None, 128, 18, 34, 2535),
            ("RTX 4060 Ti 16GB", 16, 15.7, 128, 18, 34, 2535),
            ("RTX 4070", 12, 11.72, 192, 21, 46, 2475),
            ("RTX 4070 Super", 12, None, 192, 21, 56, 2475),
            ("RTX 4070 Ti", 12, 11.7, 192, 21, 60, 2610),
            ("RTX 4070 Ti Super", 16, 15.7, 256, 21, 66, 2610),
            ("RTX 4080", 16, 15.7, 256, 22.4, 76, 2505),
            ("RTX 4080 Super", 16, 15.7, 256, 23, 80, 2550),
            ("RTX 4090", 24, 23.64, 384, 21, 128, 2520),
            ("RTX 4090 D", 24, 23.64, 384, 21, 114, 2520),
            ("RTX 4050 Laptop", 6, None, 96, 16, 20, 2370),
            ("RTX 4060 Laptop", 8, 7.75, 128, 16, 24, 2370),
            ("RTX 4070 Laptop", 8, 7.75, 128, 16, 36, 2175),
            ("RTX 4080 Laptop", 12, None, 192, 18, 58, 2280),
            ("RTX 4090 Laptop", 16, 15.7, 256, 18, 76, 2040),
        ),
    ),
    (
        families.ADA_PRO,
        (
            ("RTX 2000 Ada", 16, None, 128, 16, 22, 2130),
            ("RTX 4000 Ada", 20, None, 160, 18, 48, 2175),
            ("RTX 4500 Ada", 24, None, 192, 18, 60, 2580),
            ("RTX 5000 Ada", 32, None, 256, 18, 100, 2550),
            ("RTX 6000 Ada", 48, 47.5, 384, 20, 142, 2505),
        ),
    ),
    (families.ADA_ECC, (("L4", 24, 22.03, 192, 12.5, 58, 2040), ("L40S", 48, 44.53, 384, 18, 142, 2520))),
    (families.ADA_HALF_ECC, (("L40", 48, 44.4, 384, 18, 142, 2490),)),
    (
        families.HOPPER,
        (
            ("H100 SXM 80GB", 80, 79.11, 5120, 5.24, 132, 1830),
            ("H100 PCIe 80GB", 80, 79.11, 5120, 3.186, 114, 1620),
            ("H100 NVL 94GB", 94, 93.1, 6144, 5.13, 132, 1545),
            ("H200 SXM 141GB", 141, 139.8, 6144, 6.25, 132, 1830),
            ("GH200 96GB", 96, None, 6144, 5.2, 132, 1830),
        ),
    ),
    (families.GB100, (("B200 SXM 180GB", 180, 178.35, 7680, 7.992, 148, 1850),)),
    (
        families.BLACKWELL,
        (
            ("RTX 5050", 8, None, 128, 20, 20, 2572),
            ("RTX 5060", 8, None, 128, 28, 30, 2497),
            ("RTX 5060 Ti 16GB", 16, 15.445, 128, 28, 36, 2572),
            ("RTX 5060 Ti 8GB", 8, None, 128, 28, 36, 2572),
            ("RTX 5070", 12, None, 192, 28, 48, 2512),
            ("RTX 5070 Ti", 16, 15.47, 256, 28, 70, 2452),
            ("RTX 5080", 16, 15.47, 256, 30, 84, 2617),
            ("RTX 5090", 32, 31.36, 512, 28, 170, 2407),
            ("RTX 5060 Laptop", 8, None, 128, 24, 26, 2497),
            ("RTX 5070 Laptop", 8, None, 128, 24, 36, 2347),
            ("RTX 5070 Ti Laptop", 12, None, 192, 28, 46, 2220),
            ("RTX 5080 Laptop", 16, None, 256, 28, 60, 2287),
            ("RTX 5090 Laptop", 24, None, 256, 28, 82, 2160),
        ),
    ),
    (families.BLACKWELL_PRO, (("RTX PRO 6000 Blackwell", 96, 94.97, 512, 28, 188, 2617),)),
)

# Public issues whose out-of-memory message shows the figure on Linux; what no issue is named for was not looked up.
_REPORTS = {
    "GTX 1660 Ti": "zhou13/lcnn#23",
    "RTX 2080 Ti": "JDAI-CV/image-captioning#11",
    "Quadro RTX 4000": "CompVis/stable-diffusion#485",
    "A30": "LHRLAB/ChatKBQA#2",
    "RTX 3070": "akshitac8/OW-DETR#46",
    "RTX 3080": "zai-org/CogVideo#34",
    "RTX 3060 Laptop": "JiehongLin/SAM-6D#13",
    "RTX 4060": "AIRI-Institute/HairFastGAN#8",
    "RTX 4070 Ti": "Kwai-Kolors/Kolors#11",
    "RTX 4090": "ali-vilab/VGen#104",
    "L40": "QwenLM/Qwen3-VL#2097",
    "L40S": "Wan-Video/Wan2.1#205",
    "B200 SXM 180GB": "pytorch/ao#4002",
    "RTX 5060 Ti 16GB": "Luce-Org/lucebox#407",
    "RTX 5090": "TrajectoryCrafter/TrajectoryCrafter#20",
}


def _card(family: Family, row: _Row) -> Card:
    name, sold_gib, reported_gib, bus_bits, gbit_per_s, sms, boost_mhz = row
    per_s = sms * boost_mhz * 1e6
    memory_bytes = round(GIB * (reported_gib or sold_gib - _kept_gib(family, sold_gib)))
    return Card(
        name=name,
        architecture=family.architecture,
        compute_capability=family.compute_capability,
        laptop="Laptop" in name,
        sold_gib=sold_gib,
        memory_bytes=memory_bytes,
        shown_bytes=max(memory_bytes, round(GIB * sold_gib * family.shown_share)),
        bandwidth_bytes_per_s=bus_bits / 8 * gbit_per_s * 1e9,
        sms=sms,
        fp16_flops=per_s * family.fp16,
        tf32_flops=per_s * family.tf32,
        fp32_flops=per_s * family.fp32,
        source=f"{family.source}; memory {_memory_source(name, reported_gib)}",
    )


def _memory_source(name: str, reported_gib: float | None) -> str:
    if name in _REPORTS:
        return f"as in GitHub issue {_REPORTS[name]}"
    return "as users report it, not looked up" if reported_gib else "by the rule of its family"


def _kept_gib(family: Family, sold_gib: int) -> float:
    return family.kept_gib + family.kept_share * sold_gib


CARDS: tuple[Card, ...] = tuple(_card(family, row) for family, rows in _TABLE for row in rows)
