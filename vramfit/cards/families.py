"""Chip generations and classes of cards: what one multiprocessor does in a clock, and the memory that drivers keep."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Cards of one chip generation and class: FLOP in a clock of one SM, and the memory that drivers keep.

    `kept_gib` and `kept_share`: GiB kept of every card, and the share kept of its sold size. `shown_share`: of its sold
    size, what NVML and nvidia-smi call its total: less where ECC takes a sixteenth, or where stacks have spare rows.
    """

    architecture: str
    compute_capability: tuple[int, int]
    fp16: int
    tf32: int
    fp32: int
    kept_gib: float
    kept_share: float
    source: str
    shown_share: float = 1.0


GM107 = Family("maxwell", (5, 0), 256, 256, 256, 0.05, 0.002, "NVIDIA Maxwell whitepaper")
MAXWELL = Family("maxwell", (5, 2), 256, 256, 256, 0.05, 0.002, "NVIDIA GTX 980 whitepaper")
MAXWELL_ECC = Family("maxwell", (5, 2), 256, 256, 256, 0.05, 0.0645, "NVIDIA data sheet; ECC on", 0.9375)
PASCAL = Family("pascal", (6, 1), 256, 256, 256, 0.06, 0.002, "NVIDIA GTX 1080 whitepaper and product page")
PASCAL_ECC = Family("pascal", (6, 1), 256, 256, 256, 0.06, 0.0645, "NVIDIA data sheet; ECC on", 0.9326)
GP100 = Family("pascal", (6, 0), 128, 128, 128, 0.0, 0.007, "NVIDIA Tesla P100 whitepaper")
VOLTA = Family("volta", (7, 0), 1024, 128, 128, 0.0, 0.014, "NVIDIA Tesla V100 whitepaper")
XAVIER = Family("volta", (7, 2), 1024, 128, 128, 0.3, 0.035, "NVIDIA Jetson data sheet")
TURING_GTX = Family("turing", (7, 5), 128, 128, 128, 0.17, 0.006, "NVIDIA product page; no tensor cores")
TURING = Family("turing", (7, 5), 512, 128, 128, 0.17, 0.006, "NVIDIA Turing whitepaper and product page")
TURING_PRO = Family("turing", (7, 5), 1024, 128, 128, 0.17, 0.006, "NVIDIA Turing whitepaper and data sheet")
TURING_ECC = Family("turing", (7, 5), 1024, 128, 128, 0.17, 0.068, "NVIDIA T4 data sheet; ECC on", 0.9375)
GA100 = Family("ampere", (8, 0), 2048, 1024, 128, 0.15, 0.008, "NVIDIA A100 whitepaper or data sheet")
AMPERE = Family("ampere", (8, 6), 512, 256, 256, 0.17, 0.006, "NVIDIA GA102 whitepaper and product page")
AMPERE_PRO = Family("ampere", (8, 6), 1024, 512, 256, 0.17, 0.006, "NVIDIA GA102 whitepaper and data sheet")
AMPERE_ECC = Family("ampere", (8, 6), 1024, 512, 256, 0.17, 0.068, "NVIDIA data sheet; ECC on", 0.9373)
AMPERE_HALF_ECC = Family("ampere", (8, 6), 512, 256, 256, 0.17, 0.068, "AWS and NVIDIA data sheets; ECC on", 0.9373)
ORIN = Family("ampere", (8, 7), 2048, 1024, 256, 0.3, 0.035, "NVIDIA Jetson AGX Orin technical brief")
ADA = Family("ada", (8, 9), 512, 256, 256, 0.2, 0.0065, "NVIDIA Ada whitepaper and product page")
ADA_PRO = Family("ada", (8, 9), 1024, 512, 256, 0.2, 0.0065, "NVIDIA Ada professional whitepaper and data sheet")
ADA_ECC = Family("ada", (8, 9), 1024, 512, 256, 0.2, 0.069, "NVIDIA data sheet; ECC on", 0.9373)
ADA_HALF_ECC = Family("ada", (8, 9), 512, 256, 256, 0.2, 0.069, "NVIDIA data sheet; ECC on", 0.9373)
HOPPER = Family("hopper", (9, 0), 4096, 2048, 256, 0.1, 0.009, "NVIDIA H100 whitepaper or data sheet", 0.9957)
# Its arithmetic is held to 148 TFLOP/s in fp16 for export.
H20 = Family("hopper", (9, 0), 960, 480, 256, 0.1, 0.009, "vendors' data sheets of the H20", 0.9957)
GB100 = Family("blackwell", (10, 0), 8192, 4096, 256, 1.0, 0.005, "NVIDIA HGX B200 data sheet", 0.9948)
GB110 = Family("blackwell", (10, 3), 8192, 4096, 256, 1.0, 0.005, "NVIDIA HGX B300 data sheet", 0.9326)
BLACKWELL = Family("blackwell", (12, 0), 512, 256, 256, 0.44, 0.0065, "NVIDIA RTX Blackwell whitepaper", 0.9951)
BLACKWELL_PRO = Family(
    "blackwell", (12, 0), 1024, 512, 256, 0.44, 0.0065, "NVIDIA RTX PRO Blackwell whitepaper", 0.9951
)
GB20B = Family("blackwell", (12, 1), 1024, 512, 256, 0.3, 0.045, "NVIDIA DGX Spark data sheet")
THOR = Family("blackwell", (11, 0), 8192, 4096, 256, 0.3, 0.035, "NVIDIA Jetson Thor data sheet")

FAMILIES: dict[str, Family] = {name: value for name, value in list(globals().items()) if isinstance(value, Family)}
