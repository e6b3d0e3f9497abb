"""Names of cards as people, drivers, lspci and schedulers write them, taken apart into words that can be compared."""

import re
from dataclasses import dataclass

# Words that may stand without a space beside them, longest first where one begins another.
_GLUED = (
    r"titan|superchip|super|laptop|mobile|notebook|maxq|quadro|geforce|nvidia|tesla|grid|rtx|gtx|jetson|agx|orin|xavier"
    r"|nano|thor|spark|dgxs?|ada(?!p)|blackwell|hopper|ampere|turing|volta|pascal|maxwell|lovelace|sxm\d?|pcie|fhhl|nvl"
    r"|sff|generation|workstation|edition|server|desktop|graphics|corporation|passive|active|embedded|design"
    r"|hbm\d?e?|gddr\d?x?|ceo|pro(?!c)|(?<![a-z])ti(?=super|laptop|mobile|notebook|maxq|\b|\d)|d(?=v2\b)|v2\b"
)
# Words that tell no two cards apart.
_NOISE = re.compile(
    "nvidia|geforce|tesla|grid|jetson|gpu|graphics|card|generation|gen|with|design|workstation|server|edition|desktop"
    r"|corporation|passive|active|superchip|lovelace|ac|lhr|lite|hash|rate|refresh|oem|gddr\d?x?|hbm\d?e?"
)
_SAME = {"mobile": "laptop", "notebook": "laptop", "maxq": "laptop"}
_ARCHITECTURES = {"maxwell", "pascal", "volta", "turing", "ampere", "ada", "hopper", "blackwell"}
# Words of a brand or a board: a name with another one, or without, is still understood where it means one card.
_SOFT = {"quadro", "rtx", "gtx", "sxm", "pcie", "fhhl", "dgxs"}
_MEMORY = re.compile(r"(?<![a-z\d.])(\d{1,3}) ?g(?:i?b|o)?(?![a-z\d])")
# `lspci` and pci.ids: GA104 [GeForce RTX 3070 Ti] (rev a1).
_IN_BRACKETS = re.compile(r"\b(?:G[A-Z]|TU|AD)\d{2,3}\w*\s*\[(.+?)(?: Rev\. ?\w+)?\]")


@dataclass(frozen=True)
class Words:
    """A card's name: what says which chip it is, its architecture, its brand and board, and its memory in GB.

    `essential` is sorted: order tells no two cards apart, but `M4000` and `M4000M` differ by how often a letter comes.
    """

    essential: tuple[str, ...]
    architecture: frozenset[str]
    soft: frozenset[str]
    memory_gib: int | None

    @property
    def telling(self) -> frozenset[str]:
        """Words beside the essential that part cards of one number: Quadro RTX 6000 and RTX 6000 Ada."""
        return self.architecture | (self.soft & {"quadro"})

    @property
    def without_laptop(self) -> tuple[str, ...]:
        """The essential words of a name that may leave out that it is a laptop's."""
        return tuple(word for word in self.essential if word != "laptop")


def read_words(text: str) -> Words:
    """A name in words; empty words for a text without any."""
    bracketed = _IN_BRACKETS.search(text)
    plain = (bracketed[1] if bracketed else text).lower()
    plain = re.sub(r"[^a-z0-9.]+", " ", plain).replace("max q", "maxq")
    parted = re.sub(r"sxm\d", "sxm", re.sub(_GLUED, lambda found: f" {found[0]} ", plain))
    memory = _MEMORY.search(parted)
    found = re.findall(r"hbm\d?e?|gddr\d?x?|[a-z]+|\d+", _MEMORY.sub(" ", parted))
    words = frozenset(_SAME.get(word, word) for word in found if not _NOISE.fullmatch(word))
    letters = [word for word in found if len(word) == 1]
    return Words(
        essential=tuple(sorted([*(word for word in words - _ARCHITECTURES - _SOFT if len(word) > 1), *letters])),
        architecture=words & _ARCHITECTURES,
        soft=words & _SOFT,
        memory_gib=int(memory[1]) if memory else None,
    )
