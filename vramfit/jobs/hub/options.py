"""What is asked of a Hugging Face model: length of sequences, LoRA, quantized weights. Loads nothing heavy."""

from dataclasses import dataclass
from typing import Literal

from vramfit.errors import UsageError

LoadIn = Literal["4bit", "8bit"]
_NAMES = {
    "r": "rank",
    "alpha": "alpha",
    "lora_alpha": "alpha",
    "dropout": "dropout",
    "lora_dropout": "dropout",
    "targets": "targets",
    "target_modules": "targets",
}


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters, by the names and with the defaults of peft's `LoraConfig`."""

    rank: int = 8
    """Rank of the two matrices that are learned for each weight (`r`)."""

    alpha: float = 8
    """Their product is scaled by alpha / rank (`lora_alpha`)."""

    dropout: float = 0.0
    """Dropout of what the adapters are given (`lora_dropout`)."""

    targets: tuple[str, ...] = ()
    """Layers that get adapters, or `all-linear` (`target_modules`); none for peft's choice for the model."""

    @classmethod
    def parse(cls, text: str) -> "Lora":
        """Adapters as a command line writes them: `r=16,alpha=32,dropout=0.05,targets=q_proj+v_proj`.

        >>> Lora.parse("r=16,targets=q_proj+v_proj")
        Lora(rank=16, alpha=8, dropout=0.0, targets=('q_proj', 'v_proj'))

        Raises:
            UsageError: no such setting, or a value that it cannot have.

        """
        found: dict[str, str] = {}
        for part in text.split(","):
            name, separator, value = part.strip().partition("=")
            if name not in _NAMES or not separator:
                raise UsageError(f"--lora '{text}' is not settings of LoRA; write r=16,alpha=32,targets=q_proj+v_proj.")
            found[_NAMES[name]] = value.strip()
        try:
            rank, alpha = int(found.get("rank", cls.rank)), float(found.get("alpha", cls.alpha))
            dropout = float(found.get("dropout", cls.dropout))
        except ValueError as error:
            raise UsageError(
                f"--lora '{text}': {error}; r is a whole number, alpha and dropout are numbers."
            ) from error
        if rank < 1 or alpha <= 0 or not 0 <= dropout < 1:
            raise UsageError(f"--lora '{text}': r and alpha are above 0, and dropout is from 0 to below 1.")
        targets = tuple(name for name in found.get("targets", "").split("+") if name)
        return cls(rank=rank, alpha=int(alpha) if alpha.is_integer() else alpha, dropout=dropout, targets=targets)


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """What a command line says of a Hugging Face model beside its name.

    Raises:
        UsageError: quantized weights without adapters, which cannot be trained.

    """

    seq_len: int | None = None
    """Tokens in each sample; None for the model's own, at most 1024."""

    lora: Lora | None = None
    """Adapters to be trained in place of the weights."""

    load_in: LoadIn | None = None
    """Weights quantized by bitsandbytes as they are loaded."""

    def __post_init__(self) -> None:
        if self.load_in is not None and self.lora is None:
            raise UsageError(
                f"Weights in {self.load_in} cannot be trained themselves; give --lora r=16 with --load-in."
            )

    @classmethod
    def parse(cls, *, seq_len: int | None, lora: str | None, load_in: LoadIn | None) -> "HubOptions":
        """The options as a command line has them.

        Raises:
            UsageError: as `Lora.parse`, or quantized weights without adapters.

        """
        return cls(seq_len=seq_len, lora=None if lora is None else Lora.parse(lora), load_in=load_in)

    def name(self) -> str:
        """What is added to a model's name in tables."""
        parts = [f"LoRA r={self.lora.rank}"] if self.lora else []
        return ", ".join([*parts, self.load_in] if self.load_in else parts)
