"""Which card CUDA's ordinal means, as `CUDA_VISIBLE_DEVICES` says: pure text, no driver asked."""

from collections.abc import Mapping

from vramfit.errors import NoUsableGpu

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"


def visible_entry(index: int, environment: Mapping[str, str]) -> str:
    """The entry behind one CUDA ordinal: a number, or a UUID or its beginning, `GPU-...` or `MIG-...`.

    CUDA reads the list up to the first entry that is not a device, and hides everything after it.

    Raises:
        NoUsableGpu: the list is empty, or has fewer devices than that.

    """
    text = environment.get(VISIBLE)
    if text is None:
        return str(index)
    entries = _valid(text)
    if index >= len(entries):
        shown = "no device" if not entries else f"{len(entries)} device" + ("s" if len(entries) > 1 else "")
        raise NoUsableGpu(f"{VISIBLE}={text} shows {shown}, so there is no device {index}; change or unset it.")
    return entries[index]


def is_ordered_by_bus(environment: Mapping[str, str]) -> bool:
    """Whether CUDA counts cards as NVML does; by default it puts the fastest first."""
    return environment.get(ORDER, "").strip().upper() == "PCI_BUS_ID"


def _valid(text: str) -> list[str]:
    entries: list[str] = []
    for entry in (part.strip() for part in text.split(",")):
        if not entry.isdigit() and not entry.startswith(("GPU-", "MIG-")):
            break
        entries.append(entry)
    return entries
