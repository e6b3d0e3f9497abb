"""What a card does with a number format that it has no arithmetic for, in sentences and as a refusal.

bf16 needs compute capability 8.0. Older cards take bf16 tensors, but PyTorch computes them in float32
(pytorch/pytorch#148322), and `torch.cuda.is_bf16_supported()` answers True for them. FP8 is never assumed: no rate of
a card is of it.
"""

from vramfit.cards.card import BF16_CAPABILITY, Card
from vramfit.choices import Amp
from vramfit.errors import UsageError


def precision_note(card: Card, amp: Amp | None) -> str | None:
    """What a reader of a table must know of a job's precision on a card; None where the card has it in hardware."""
    if amp == "bf16" and not card.has_bf16:
        return f"{_emulated(card.name, card.compute_capability)} so these times are float32's at best; use --amp fp16."
    if amp == "fp16" and not card.has_tensor_cores:
        return f"The {card.name} has no tensor cores: fp16 saves memory there and hardly any time."
    return None


def require_bf16(name: str, capability: tuple[int, int], amp: Amp | None, *, insisted: bool) -> None:
    """Refuse to train in bf16 on a card that only emulates it.

    Raises:
        UsageError: the job is bf16, the card has none, and nobody insisted.

    """
    if amp == "bf16" and capability < BF16_CAPABILITY and not insisted:
        raise UsageError(
            f"{_emulated(name, capability)} no faster than float32; use --amp fp16, or insist with --emulated-bf16."
        )


def _emulated(name: str, capability: tuple[int, int]) -> str:
    has, needs = (".".join(map(str, version)) for version in (capability, BF16_CAPABILITY))
    return f"The {name} (compute capability {has}) has no bf16, which needs {needs}: it is computed in float32,"
