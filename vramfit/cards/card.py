"""What is known of one GPU model."""

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from vramfit.records import Record

# Arithmetic in bf16 and TF32 came with Ampere, tensor cores for fp16 with Volta.
BF16_CAPABILITY = (8, 0)
_TENSOR_CORES_CAPABILITY = (7, 0)
# CUDA programming guide, "Technical Specifications per Compute Capability"; 2048 where not listed here.
_THREADS_OF_AN_SM = {
    (7, 5): 1024,
    (8, 6): 1536,
    (8, 7): 1536,
    (8, 9): 1536,
    (11, 0): 1536,
    (12, 0): 1536,
    (12, 1): 1536,
}

CardKind = Literal["desktop", "laptop", "workstation", "server", "integrated", "MIG"]


class Card(Record):
    """A GPU model. Rates are peaks: FLOP/s dense, fp16 on tensor cores with float32 accumulation.

    `memory_bytes` is what CUDA sees on Linux, `shown_bytes` what NVML and nvidia-smi call the total, `sold_gib` what
    the box says; `source` says where the figures are from. `kind` is `integrated` where CPU and GPU share one memory
    (Jetson, DGX Spark), and `MIG` for an instance of a partitioned card.
    """

    name: str
    architecture: str
    compute_capability: tuple[int, int]
    kind: CardKind
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

    @property
    def shares_host_memory(self) -> bool:
        """Whether the system and its programs live in the same memory."""
        return self.kind == "integrated"

    def with_memory(self, gib: int) -> "Card":
        """The card with other memory chips, as modded ones have; the driver keeps the same share of it."""
        share = gib / self.sold_gib
        return self.model_copy(
            update={
                "name": f"{self.name} with {gib}GB",
                "sold_gib": gib,
                "memory_bytes": round(self.memory_bytes * share),
                "shown_bytes": round(self.shown_bytes * share),
                "source": f"{self.source}; its {gib} GB as given, not looked up",
            }
        )
