"""The card that is here, as its driver shows it: the only module that talks to NVML.

Reading through NVML makes no CUDA context, so a parent process can watch a card without holding memory on it.
Any single figure may be refused (MIG, WDDM, containers, integrated GPUs): it is then None, or taken from CUDA.
"""

import os
import platform
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pynvml

from vramfit.errors import NoUsableGpu
from vramfit.measure.cuda_build import install_command
from vramfit.measure.visible import is_ordered_by_bus, visible_entry

_DRIVER_MODELS = {0: "WDDM", 1: "TCC", 2: "MCDM"}


@dataclass(frozen=True)
class DeviceProcess:
    """Another program on the card; what the driver does not tell is None."""

    pid: int
    name: str | None
    used_bytes: int | None


@dataclass(frozen=True)
class Reading:
    """The card's memory at one moment, in bytes: total = driver + processes + free."""

    total_bytes: int
    free_bytes: int
    driver_bytes: int = 0
    processes: tuple[DeviceProcess, ...] = ()

    @property
    def used_bytes(self) -> int:
        """What processes hold, contexts and desktop included, without what the driver keeps for itself."""
        return max(0, self.total_bytes - self.driver_bytes - self.free_bytes)


class Device(ABC):
    """One card. `index` is CUDA's ordinal; `notes` say which figures could not be had.

    `compute_capability` is None where the driver does not tell it.
    """

    index: int
    name: str
    compute_capability: tuple[int, int] | None = None
    driver_version: str | None = None
    driver_model: str | None = None
    notes: tuple[str, ...] = ()

    @abstractmethod
    def read(self) -> Reading:
        """The memory now."""

    @property
    def total_bytes(self) -> int:
        """The card's whole memory."""
        return self.read().total_bytes

    @property
    def free_bytes(self) -> int:
        """What is free now."""
        return self.read().free_bytes

    @property
    def driver_bytes(self) -> int:
        """What the driver keeps for itself; 0 where it does not say."""
        return self.read().driver_bytes

    @property
    def processes(self) -> tuple[DeviceProcess, ...]:
        """Who uses the card, this process included."""
        return self.read().processes

    @property
    def can_spill(self) -> bool:
        """Whether the driver may move memory to the system's RAM instead of refusing it (Windows, WDDM).

        Where the driver does not say how it works, Windows, and Linux inside it, are believed to.
        """
        return self.driver_model == "WDDM" or (self.driver_model is None and _is_windows())


def local_device(index: int = 0, environment: Mapping[str, str] | None = None) -> Device:
    """The card behind a CUDA ordinal, read through NVML, or through CUDA where NVML is missing or refuses.

    Raises:
        NoUsableGpu: torch is built without CUDA, or there is no driver, or no such card is visible.

    """
    environment = os.environ if environment is None else environment
    entry = visible_entry(index, environment)
    _require_cuda(index)
    try:
        device = NvmlDevice(index, _handle(index, entry, environment))
        device.read()
    except (pynvml.NVMLError, OSError) as error:
        return CudaDevice(index, f"NVML gives no memory figures here ({error}); they come from CUDA.")
    return device


class NvmlDevice(Device):
    """A card, or a MIG instance of one, behind its NVML handle."""

    def __init__(self, index: int, handle: Any) -> None:
        self.index = index
        self._handle = handle
        self.name = _text(_ask(pynvml.nvmlDeviceGetName, handle)) or "GPU of unknown name"
        capability = _ask(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
        self.compute_capability = None if capability is None else (int(capability[0]), int(capability[1]))
        self.driver_version = _text(_ask(pynvml.nvmlSystemGetDriverVersion))
        self.driver_model = _driver_model(handle)

    def read(self) -> Reading:
        """The memory now.

        Raises:
            pynvml.NVMLError: the driver refuses even the totals.

        """
        split = _ask(pynvml.nvmlDeviceGetMemoryInfo, self._handle, pynvml.nvmlMemory_v2)
        if split is not None:
            return Reading(int(split.total), int(split.free), int(split.reserved), self._list_processes())
        whole = pynvml.nvmlDeviceGetMemoryInfo(self._handle)
        return Reading(int(whole.total), int(whole.free), 0, self._list_processes())

    def _list_processes(self) -> tuple[DeviceProcess, ...]:
        found: dict[int, DeviceProcess] = {}
        for question in (pynvml.nvmlDeviceGetComputeRunningProcesses, pynvml.nvmlDeviceGetGraphicsRunningProcesses):
            for process in _ask(question, self._handle) or ():
                name = _text(_ask(pynvml.nvmlSystemGetProcessName, process.pid))
                known = found.get(process.pid)
                used = process.usedGpuMemory if known is None or known.used_bytes is None else known.used_bytes
                found[process.pid] = DeviceProcess(process.pid, name, used)
        return tuple(found.values())


class CudaDevice(Device):
    """A card that NVML cannot read: a short-lived child asks CUDA, so that this process holds no context.

    The child's own context counts as used, which leaves a budget a few hundred MiB too small, never too large.
    """

    def __init__(self, index: int, note: str) -> None:
        self.index = index
        self.notes = (note,)

    @cached_property
    def name(self) -> str:  # type: ignore[override]  # read when first wanted
        """The card's name."""
        return self._ask_cuda()[0]

    def read(self) -> Reading:
        """The memory now.

        Raises:
            NoUsableGpu: CUDA cannot read it either.

        """
        _, total_bytes, free_bytes = self._ask_cuda()
        return Reading(total_bytes, free_bytes)

    def _ask_cuda(self) -> tuple[str, int, int]:
        code = (
            f"import torch; free, total = torch.cuda.mem_get_info({self.index}); "
            f"print(torch.cuda.get_device_name({self.index}), total, free, sep='|')"
        )
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        parts = child.stdout.strip().rsplit("|", 2)
        if child.returncode or len(parts) != 3:
            reason = (child.stderr.strip().splitlines() or ["no answer"])[-1]
            raise NoUsableGpu(f"Device {self.index} can be read neither through NVML nor through CUDA ({reason}).")
        return parts[0], int(parts[1]), int(parts[2])


def _is_windows() -> bool:
    return sys.platform == "win32" or "microsoft" in platform.release().lower()


def _require_cuda(index: int) -> None:
    import torch

    if torch.version.cuda is None:
        raise NoUsableGpu(f"This torch is built without CUDA; {_how_to_get_cuda()}predict with --gpu NAME.")
    if not torch.cuda.is_available():
        raise NoUsableGpu("No usable NVIDIA GPU or driver is here; predict for a card with --gpu NAME.")
    if index >= torch.cuda.device_count():
        raise NoUsableGpu(f"There is no device {index}; CUDA shows {torch.cuda.device_count()}.")


def _how_to_get_cuda() -> str:
    """The first half of an advice: what gives the first card that the driver shows a torch with CUDA."""
    try:
        pynvml.nvmlInit()
        card = NvmlDevice(0, pynvml.nvmlDeviceGetHandleByIndex(0))
    except (pynvml.NVMLError, OSError):
        return "no NVIDIA driver shows a card, so "
    version = _ask(pynvml.nvmlSystemGetCudaDriverVersion)
    command = install_command(card.compute_capability, None if version is None else divmod(version // 10, 100))
    if command is None:
        return f"for the {card.name} here update its driver ({card.driver_version}), then install a CUDA build, or "
    return f"for the {card.name} here run `{command}`, or "


def _handle(index: int, entry: str, environment: Mapping[str, str]) -> Any:
    pynvml.nvmlInit()
    if entry.startswith("MIG-"):
        return _handle_of_uuid(entry)
    if not entry.isdigit():
        handle = _handle_of_uuid(entry)
    elif not is_ordered_by_bus(environment) and _cards_differ():
        handle = _handle_of_uuid(_uuid_in_cuda(index, environment))
    else:
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(entry))
    return _first_instance(handle) or handle


def _handle_of_uuid(uuid: str) -> Any:
    """The card of a UUID, of which CUDA accepts the beginning."""
    whole = _ask(pynvml.nvmlDeviceGetHandleByUUID, uuid)
    if whole is not None:
        return whole
    for handle in _all_handles():
        if (_text(_ask(pynvml.nvmlDeviceGetUUID, handle)) or "").startswith(uuid):
            return handle
    raise NoUsableGpu(f"No card here has the UUID {uuid} that CUDA_VISIBLE_DEVICES names; see `nvidia-smi -L`.")


def _all_handles() -> list[Any]:
    return [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]


def _cards_differ() -> bool:
    return len({_text(_ask(pynvml.nvmlDeviceGetName, handle)) for handle in _all_handles()}) > 1


def _uuid_in_cuda(index: int, environment: Mapping[str, str]) -> str:
    """The UUID of the card that CUDA counts so, with its prefix."""
    code = f"import torch; print(torch.cuda.get_device_properties({index}).uuid)"
    uuid = _answer_of_child(code, environment)
    if uuid is None:
        raise NoUsableGpu(f"CUDA does not tell which card device {index} is; set CUDA_DEVICE_ORDER=PCI_BUS_ID.")
    return f"GPU-{uuid}"


def _answer_of_child(code: str, environment: Mapping[str, str]) -> str | None:
    """What a short-lived Python prints, so that this process starts no CUDA; None, if it fails."""
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=dict(environment)
    )
    return child.stdout.strip() or None if child.returncode == 0 else None


def _first_instance(handle: Any) -> Any | None:
    """The MIG instance that CUDA takes on a partitioned card, None where the card is whole."""
    mode = _ask(pynvml.nvmlDeviceGetMigMode, handle)
    if mode is None or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return None
    for number in range(_ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        instance = _ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
        if instance is not None:
            return instance
    raise NoUsableGpu("This card is in MIG mode without an instance; make one, or turn MIG off.")


def _driver_model(handle: Any) -> str | None:
    current = _ask(pynvml.nvmlDeviceGetCurrentDriverModel, handle)
    return None if current is None else _DRIVER_MODELS.get(int(current))


def _ask(question: Callable[..., Any], *arguments: Any) -> Any | None:
    """The driver's answer, None where it refuses or is too old to know the question."""
    try:
        return question(*arguments)
    except (pynvml.NVMLError, AttributeError, UnicodeDecodeError):
        return None


def _text(value: str | bytes | None) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
