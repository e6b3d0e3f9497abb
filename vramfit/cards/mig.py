"""MIG instances: what part of its memory and multiprocessors a partitioned card gives to one.

`mig.csv` holds the profiles: `parent`, the card's chip and the GB it is sold with; `gib` as nvidia-smi shows it, empty
where no listing was found; `sms`; `eighths` of the card's memory, whose channels make the same part of its bandwidth.
"""

import csv
from dataclasses import dataclass
from importlib.resources import files

from vramfit.cards.card import Card
from vramfit.errors import UnknownCard
from vramfit.units import GIB

# What is left of so many eighths of the memory, where nobody published the figure: as on H100 NVL and GB200, at worst.
_LEFT = {1: 0.86, 2: 0.91, 4: 0.98, 8: 0.985}


@dataclass(frozen=True)
class MigProfile:
    """One way to partition a card."""

    parent: str
    name: str
    gib: float | None
    sms: int
    eighths: int

    def is_of(self, card: Card) -> bool:
        """Whether a card can be partitioned so."""
        chip, _, sold = self.parent.rpartition(" ")
        return card.sold_gib == int(sold) and card.kind != "MIG" and f"{card.name} ".startswith(f"{chip} ")


def _read() -> tuple[MigProfile, ...]:
    rows = csv.DictReader(files("vramfit.cards").joinpath("mig.csv").read_text("utf-8").splitlines())
    return tuple(
        MigProfile(
            row["parent"],
            row["profile"],
            float(row["gib"]) if row["gib"] else None,
            int(row["sms"]),
            int(row["eighths"]),
        )
        for row in rows
    )


PROFILES = _read()


def profiles_of(card: Card) -> dict[str, MigProfile]:
    """The profiles of a card by name; none where it cannot be partitioned."""
    return {profile.name: profile for profile in PROFILES if profile.is_of(card)}


def mig_instance(card: Card, profile: str) -> Card:
    """One instance of a card, as `1g.10gb`: its memory, its multiprocessors, its part of the bandwidth.

    Raises:
        UnknownCard: the card has no such profile; lists those that it has.

    """
    profiles = profiles_of(card)
    if not profiles:
        raise UnknownCard(
            f"the {card.name} cannot be partitioned by MIG, or its profiles are not known; leave out --mig."
        )
    if profile not in profiles:
        raise UnknownCard(f"the {card.name} has no MIG profile {profile}; it has {', '.join(profiles)}.")
    return _instance(card, profiles[profile])


def _instance(card: Card, profile: MigProfile) -> Card:
    gib = profile.gib or card.shown_bytes / GIB * profile.eighths / 8 * _LEFT[profile.eighths]
    sms = min(profile.sms, card.sms)
    memory_bytes = min(round(gib * GIB), card.memory_bytes)
    part = sms / card.sms
    how = "as nvidia-smi shows it" if profile.gib else "by its share, not looked up"
    return card.model_copy(
        update={
            "name": f"{card.name} MIG {profile.name}",
            "kind": "MIG",
            "sold_gib": int(profile.name.partition(".")[2].removesuffix("gb")),
            "memory_bytes": memory_bytes,
            "shown_bytes": memory_bytes,
            "bandwidth_bytes_per_s": card.bandwidth_bytes_per_s * profile.eighths / 8,
            "sms": sms,
            "fp16_flops": card.fp16_flops * part,
            "tf32_flops": card.tf32_flops * part,
            "fp32_flops": card.fp32_flops * part,
            "source": f"{card.source}; MIG memory {how}",
        }
    )
