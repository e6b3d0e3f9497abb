"""What an operation made in a trace."""

from vramfit.prediction.trace_records import Trace


def made(trace: Trace, op: str) -> list[int]:
    """Bytes of the storages that an operation made, in their order."""
    return [storage.size_bytes for storage in trace.storages if storage.op == op]
