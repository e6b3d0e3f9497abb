"""A small memory snapshot written by hand, with the figures that follow from PyTorch's rules.

Run this file to write it anew to tests/golden/snapshot.pickle.
"""

import pickle
from pathlib import Path

MIB = 1 << 20
LARGE, SMALL, LATER = 0x7F00_0000_0000, 0x7F10_0000_0000, 0x7F20_0000_0000
PATH = Path(__file__).parent / "golden" / "snapshot.pickle"

# 5 MiB and 512 B are older than the trace. 4 MiB then take the 5 MiB block whole, as less than 1 MiB would be left
# over; 13 MiB need a segment of 14 and take all of it. At that moment 5 + 3 + 14 MiB + 512 B are allocated.
PEAK_ALLOCATED = 22 * MIB + 512
PEAK_RESERVED = (20 + 2 + 14) * MIB
END_SEGMENTS = (2 * MIB, 20 * MIB)


def entry(action, address, size):
    return {"action": action, "addr": address, "size": size, "stream": 0, "time_us": 0}


def freed(address, size):
    return [entry("free_requested", address, size), entry("free_completed", address, size)]


def block(address, size, requested=0):
    state = "active_allocated" if requested else "inactive"
    return {"address": address, "size": size, "requested_size": requested, "state": state}


def segment(address, size, kind, blocks):
    return {
        "device": 0,
        "address": address,
        "total_size": size,
        "stream": 0,
        "segment_type": kind,
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "blocks": blocks,
    }


def snapshot():
    events = [
        entry("snapshot", 0, 0),
        entry("alloc", LARGE + 5 * MIB, 3 * MIB),
        *freed(LARGE, 5 * MIB),
        entry("alloc", LARGE, 4 * MIB),
        entry("segment_alloc", LATER, 14 * MIB),
        entry("alloc", LATER, 13 * MIB),
        *freed(LARGE + 5 * MIB, 3 * MIB),
        entry("alloc", SMALL + 512, 1000),
        *freed(LATER, 13 * MIB),
        entry("segment_free", LATER, 14 * MIB),
    ]
    large = [block(LARGE, 5 * MIB, 4 * MIB), block(LARGE + 5 * MIB, 15 * MIB)]
    small = [block(SMALL, 512, 512), block(SMALL + 512, 1024, 1000), block(SMALL + 1536, 2 * MIB - 1536)]
    return {
        "segments": [segment(LARGE, 20 * MIB, "large", large), segment(SMALL, 2 * MIB, "small", small)],
        "device_traces": [events],
        "allocator_settings": {"PYTORCH_CUDA_ALLOC_CONF": ""},
    }


if __name__ == "__main__":
    PATH.write_bytes(pickle.dumps(snapshot(), protocol=4))
