"""Memory that no tensor of the step shows: the CUDA context and the workspaces of cuBLAS and cuDNN."""

from vramfit.cards import Card
from vramfit.units import MIB

# Measured on CUDA 11.7 and later, with lazily loaded kernels: 0.28 to 0.45 GB, 0.15 to 0.20 on a T4.
_CONTEXT_BYTES = 390 * MIB
_SMALL_CONTEXT_BYTES = 200 * MIB


def context_bytes(card: Card) -> int:
    """What the driver keeps for a process that uses CUDA on a card, outside the caching allocator."""
    return _SMALL_CONTEXT_BYTES if card.architecture.lower() == "turing" else _CONTEXT_BYTES


def cublas_workspace_bytes(card: Card) -> int:
    """cuBLAS' workspace, taken from the caching allocator at the first matrix product: 8.125 MiB, Hopper 32."""
    return 32 * MIB if card.compute_capability >= (9, 0) else 8 * MIB + MIB // 8
