"""Names that are no card of the table for a reason: another maker, a chip too old for PyTorch, a share of a card."""

import re

from vramfit.errors import UnknownCard

_MAKERS = {
    "AMD": r"\b(amd|radeon|instinct|firepro|vega|rx ?\d{3,4}|mi ?\d{2,3}[a-z]?|w[5-9]\d00|strix halo)\b|ryzen",
    "Intel": r"\b(intel|arc|iris|gaudi ?\d?|habana|xe|ponte vecchio|flex ?1[47]0|max 1[15]\d0|[ab][357][1-8]0m?)\b",
    "Apple": r"\b(apple|mps|macbook)\b|^m[1-9]( ?(pro|max|ultra))?$",
    "Google": r"\b(tpu|v[2-6][ep]|trillium|ironwood)\b",
    "Huawei": r"\b(ascend|910[a-d]?)\b",
    "AWS": r"\b(trainium|inferentia|trn[12]|inf[12])\b",
}
# Kepler, Fermi and older, and the Jetsons before Xavier: CUDA 12, the least that torch 2.11 is built with, left them.
_OLD = re.compile(
    r"\bk(?!2200m|620m)[1-8]\d?0?0?0?x?[cmt]?\b|\b[cms]20[567]0\b|\btitan (black|z)\b|\bgtx? ?titan$"
    r"|\bgtx? ?[3-7]\d{2}m?( ti)?\b|\bgts? ?\d{3}m?\b|\bnvs [1-5]\d\d|\bfx ?\d{4}"
    r"|\bjetson (nano|tk1|tx[12])|\btx[12]\b"
)
_VGPU = re.compile(r"^(?:nvidia |grid )*(.+?)-(\d+)(q|c|b|a)(?:-\w+)?$")


def refuse_other_makers(text: str) -> None:
    """Say what is known of a name that no card of the table has.

    Raises:
        UnknownCard: the name is of another maker's card, of one that PyTorch supports no more, or of a vGPU.

    """
    name = re.sub(r"[^a-z0-9-]+", " ", text.lower().replace("®", "")).strip()
    if vgpu := _VGPU.match(name):
        raise UnknownCard(
            f"'{text}' is a vGPU with {vgpu[2]} GB of a larger card: name that card, {vgpu[1].upper()}, and give "
            f"--vram {vgpu[2]}GB."
        )
    spaced = name.replace("-", " ")
    for maker, pattern in _MAKERS.items():
        if re.search(pattern, spaced):
            raise UnknownCard(
                f"'{text}' is a device of {maker}: vramfit predicts NVIDIA cards, whose allocator and kernels it "
                "replays, and knows no others; name an NVIDIA card."
            )
    if _OLD.search(spaced):
        raise UnknownCard(
            f"'{text}' is older than the GPUs that CUDA 12 and today's PyTorch run on, or a Jetson older than Xavier: "
            "there is nothing to predict; name a newer card."
        )
