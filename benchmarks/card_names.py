"""Does vramfit know what card a driver's name means? Every NVIDIA GPU of pci.ids since Maxwell.

pci.ids names a card's chip beside what it is sold as: `GA104 [GeForce RTX 3070 Ti]`. The chip decides the compute
capability, so each name that is resolved can be checked without the table of cards. A name is

- right: resolved to a card of the chip's compute capability;
- asked: the name of several cards, whose sentence lists them;
- refused: no card of the table, and said so;
- wrong: resolved to a card of another compute capability.

    python benchmarks/card_names.py [/usr/share/misc/pci.ids]

Limits: the list was at hand while the table was made, so this is a check and no held-out measurement; pci.ids does not
tell memory, which `tests/unit/test_card_names.py` holds for 270 names. Left out are audio
functions, bridges, engineering samples and boards without a name.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ending import keep

from vramfit.cards import find_card
from vramfit.errors import UnknownCard

_CAPABILITIES = {
    "GM10": (5, 0),
    "GM20": (5, 2),
    "GP100": (6, 0),
    "GP10": (6, 1),
    "GV100": (7, 0),
    "TU1": (7, 5),
    "GA100": (8, 0),
    "GA10": (8, 6),
    "AD10": (8, 9),
    "GH100": (9, 0),
    "GB20": (12, 0),
}
_ENTRY = re.compile(r"^\t[0-9a-f]{4}\s+((?:GM|GP|GV|TU|GA|AD|GH|GB)\d+\w*)\s*\[(.*)\]")
_NO_CARD = re.compile(r"Audio|NVSwitch|Engineering|FAKE|PG\d|SKU|PROD")
FILE = Path("/usr/share/misc/pci.ids")


def main() -> None:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    found: dict[str, list[str]] = {"right": [], "asked": [], "refused": [], "wrong": []}
    for chip, name in entries(file):
        found[judge(chip, name)].append(f"{chip} [{name}]")
    result = {
        "file": next((line[1:].strip() for line in lines(file) if "Version:" in line), str(file)),
        "names": sum(map(len, found.values())),
        **{verdict: len(names) for verdict, names in found.items()},
        "names_asked": found["asked"],
        "names_refused": found["refused"],
        "names_wrong": found["wrong"],
    }
    keep("card_names", result, packages=())
    sys.exit(bool(found["wrong"]))


def lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="replace").splitlines()


def entries(file: Path) -> Iterator[tuple[str, str]]:
    """Chip and name of each NVIDIA GPU of the file."""
    nvidia = False
    for line in lines(file):
        if re.match(r"[0-9a-f]{4} ", line):
            nvidia = line.startswith("10de")
        entry = _ENTRY.match(line) if nvidia else None
        if entry and not _NO_CARD.search(line):
            yield entry[1], entry[2].strip()


def judge(chip: str, name: str) -> str:
    capability = next((known for start, known in _CAPABILITIES.items() if chip.startswith(start)), None)
    try:
        card = find_card(f"{chip} [{name}]")
    except UnknownCard as error:
        return "asked" if "does not say which card" in str(error) else "refused"
    return "right" if card.compute_capability == capability else "wrong"


if __name__ == "__main__":
    main()
