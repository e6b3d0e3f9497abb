"""What NVML answers about a card that is not here, to scripts that print what they take through `pynvml`.

Names and sizes are those that the script hears from `torch.cuda`. Known limitations: what is not listed here is asked
of the driver, which may not be there, and so is what the program `nvidia-smi` prints.
"""

from types import SimpleNamespace
from typing import Any

_DRIVER = "580.00"
_HANDLES = ("nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetHandleByPciBusId")
_PROCESSES = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")


def answers_of(cuda: Any) -> dict[str, Any]:
    """Replacements for functions of `pynvml` by name; `cuda` is `torch.cuda`, or answers as it does."""

    def memory(_handle: Any, *_: Any, **__: Any) -> SimpleNamespace:
        free, total = cuda.mem_get_info()
        return SimpleNamespace(total=total, free=free, used=total - free, reserved=0)

    return {
        "nvmlInit": _nothing,
        "nvmlInitWithFlags": _nothing,
        "nvmlShutdown": _nothing,
        "nvmlSystemGetDriverVersion": lambda: _DRIVER,
        "nvmlSystemGetNVMLVersion": lambda: f"12.{_DRIVER}",
        "nvmlDeviceGetCount": cuda.device_count,
        **dict.fromkeys(_HANDLES, lambda which: which),
        **dict.fromkeys(_PROCESSES, lambda _handle: []),
        "nvmlDeviceGetIndex": lambda _handle: 0,
        "nvmlDeviceGetName": lambda _handle: cuda.get_device_name(),
        "nvmlDeviceGetUUID": lambda _handle: f"GPU-{cuda.get_device_properties().uuid}",
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetCudaComputeCapability": lambda _handle: cuda.get_device_capability(),
        "nvmlDeviceGetUtilizationRates": lambda _handle: SimpleNamespace(gpu=cuda.utilization(), memory=0),
        "nvmlDeviceGetTemperature": lambda _handle, _sensor: cuda.temperature(),
        "nvmlDeviceGetPowerUsage": lambda _handle: cuda.power_draw(),
    }


def _nothing(*_: Any) -> None:
    """Nothing that an answer depends on."""
