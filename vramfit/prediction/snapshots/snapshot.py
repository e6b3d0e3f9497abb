"""Reads PyTorch memory snapshots (`torch.cuda.memory._dump_snapshot`) and rebuilds what is older than their trace.

A snapshot is a pickle; this reads plain containers alone and refuses anything else, so a hostile file cannot run code,
nor make the reader allocate more than a small multiple of the file's size.
It holds the segments at its end and the last events before. Undoing the events from the end gives the segments and
the live requests at the beginning. Sizes in bytes.
"""

import io
import pickle
import pickletools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from vramfit.errors import DataError
from vramfit.prediction.allocator.settings import Settings
from vramfit.prediction.snapshots.initial_state import SEGMENT_ACTIONS, Event, Segment, initial_state

KNOWN_ACTIONS = ("alloc", "free_requested", "free_completed", "oom", *SEGMENT_ACTIONS)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One device of a snapshot: the segments before its events, the events, the segments after them.

    `trace_length` counts every entry of the device's trace; markers among them are no `events`.
    """

    device: int
    settings: Settings
    before: tuple[Segment, ...]
    events: tuple[Event, ...]
    after: tuple[Segment, ...]
    trace_length: int


class _PlainUnpickler(pickle.Unpickler):
    """Admits dicts, lists, tuples, text and numbers, which need no class; every name it is asked for is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, _: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to objects outside the file")


def check_bounds(pickled: bytes) -> None:
    """Refuse a pickle whose memo indices or lengths are larger than it is; nothing is loaded.

    The unpickler allocates a table as long as the largest memo index, up to 2^32 entries for five bytes of a file. A
    pickle that numbers its values one by one has no index beyond its size in bytes.

    Raises:
        pickle.UnpicklingError: an index is larger.
        ValueError: a length is, or it is no pickle.

    """
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(pickled):
            raise pickle.UnpicklingError(f"it numbers a value {argument}, and has {len(pickled)} bytes")


def load_snapshot(path: str | Path) -> Snapshot:
    """The device with the most events of a snapshot file.

    Raises:
        DataError: no such file, not a pickle of plain containers, or not a snapshot with recorded events.

    """
    data = load_plain(path)
    with refusing_what_is_no_snapshot(path):
        return parse_snapshot(data)


def load_plain(path: str | Path) -> Any:
    """What a file of plain containers holds; nothing in it is run.

    Raises:
        DataError: no such file, or not a pickle of plain containers.

    """
    try:
        with Path(path).open("rb") as file:
            return _read_plain(file, path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name a file that torch dumped.") from error


@contextmanager
def refusing_what_is_no_snapshot(path: str | Path) -> Iterator[None]:
    """Within it, what Python says of wrong containers becomes a DataError that names the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(
            f"{path} is not a PyTorch memory snapshot ({type(error).__name__}: {error}); "
            "make one with torch.cuda.memory._record_memory_history() and _dump_snapshot()."
        ) from None


def parse_snapshot(data: Mapping[str, Any]) -> Snapshot:
    """The device with the most events of a snapshot's containers; errors of wrong containers are Python's own."""
    traces = data["device_traces"]
    snapshot = parse_device(data, max(range(len(traces)), key=lambda index: len(traces[index])))
    if not snapshot.events:
        raise ValueError("it holds no allocator events; record them before the step")
    return snapshot


def parse_device(data: Mapping[str, Any], device: int) -> Snapshot:
    """One device of a snapshot's containers, with recorded events or without; errors are Python's own."""
    trace = trace_of(data, device)
    events = tuple(_event(entry) for entry in trace if entry["action"] in KNOWN_ACTIONS)
    after = tuple(_segment(entry) for entry in data["segments"] if entry.get("device", 0) == device)
    settings = _settings(data.get("allocator_settings") or {}, after)
    before = initial_state(after, events, settings)
    return Snapshot(device, settings, before, events, after, len(trace))


def trace_of(data: Mapping[str, Any], device: int) -> Sequence[Mapping[str, Any]]:
    """The recorded entries of a device, none where nothing was recorded."""
    traces = data.get("device_traces") or []
    return traces[device] if device < len(traces) else []


def _read_plain(file: BinaryIO, path: str | Path) -> Any:
    try:
        pickled = file.read()
        check_bounds(pickled)
        return _PlainUnpickler(io.BytesIO(pickled)).load()
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(
            f"{path} is refused: a snapshot holds plain lists, dicts and numbers, and this file does not ({error}); "
            "use one that torch dumped."
        ) from None


def _event(entry: Mapping[str, Any]) -> Event:
    # A refused request has no address.
    return Event(str(entry["action"]), int(entry.get("addr", 0)), int(entry["size"]), int(entry["stream"]))


def _segment(entry: Mapping[str, Any]) -> Segment:
    live, offset = [], 0
    for block in entry["blocks"]:
        if block["state"] != "inactive":
            live.append((offset, _requested(block), int(block["size"])))
        offset += int(block["size"])
    return Segment(
        address=int(entry["address"]),
        size=int(entry["total_size"]),
        small=entry["segment_type"] == "small",
        stream=int(entry["stream"]),
        expandable=bool(entry.get("is_expandable", False)),
        live=tuple(live),
    )


def _requested(block: Mapping[str, Any]) -> int:
    """Bytes that were asked for; PyTorch 2.0 and older keep them in the block's history, if at all."""
    history = block.get("history") or [{}]
    return int(block.get("requested_size") or history[0].get("real_size") or block["size"])


def _settings(recorded: Mapping[str, Any], segments: Sequence[Segment]) -> Settings:
    """What the snapshot says of the allocator; older ones say nothing, and PyTorch's defaults are taken."""
    text = recorded.get("PYTORCH_CUDA_ALLOC_CONF") or recorded.get("PYTORCH_ALLOC_CONF") or ""
    settings, _ = Settings.parse_known(str(text))
    if any(segment.expandable for segment in segments):
        settings = replace(settings, expandable_segments=True)
    return settings
