"""The driver's answers are scripted: a stand-in for pynvml that can refuse any single question."""

from types import SimpleNamespace

import pynvml  # noqa: TID251  # its answers are scripted here
import pytest
import torch

from vramfit.errors import NoUsableGpu
from vramfit.measure import device as module
from vramfit.measure.cuda_build import install_command
from vramfit.measure.device import CudaDevice, local_device
from vramfit.units import GIB, MIB

REFUSED = pynvml.NVMLError_NotSupported


class Driver:
    """NVML with two cards, or one that is partitioned."""

    def __init__(self, *, names=("RTX 3070 Ti", "RTX 3070 Ti"), mig=False, refuse=()):
        self.names, self.mig, self.refuse = names, mig, refuse
        self.uuids = [f"GPU-{place}0000000-aaaa" for place in range(len(names))]

    def __call__(self, question):
        def answer(*arguments):
            if question in self.refuse or not hasattr(self, question):
                raise REFUSED()
            return getattr(self, question)(*arguments)

        return answer

    def nvmlInit(self): ...
    def nvmlDeviceGetCount(self):
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid.startswith("MIG-"):
            return uuid
        if uuid not in self.uuids:
            raise pynvml.NVMLError_NotFound()
        return self.uuids.index(uuid)

    def nvmlDeviceGetUUID(self, handle):
        return self.uuids[handle]

    def nvmlDeviceGetName(self, handle):
        return "MIG 1g.10gb" if isinstance(handle, str) else self.names[handle]

    def nvmlSystemGetDriverVersion(self):
        return b"580.95"

    def nvmlDeviceGetMemoryInfo(self, handle, version=None):
        if version is not None and "v2" in self.refuse:
            raise REFUSED()
        total = 10 * GIB if isinstance(handle, str) else (8 + handle) * GIB
        if version is None:
            return SimpleNamespace(total=total, free=total - GIB - 200 * MIB, used=GIB + 200 * MIB)
        return SimpleNamespace(total=total, reserved=200 * MIB, free=total - GIB - 200 * MIB, used=GIB)

    def nvmlDeviceGetCudaComputeCapability(self, handle):
        return (8, 6)

    def nvmlSystemGetCudaDriverVersion(self):
        return 12080

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [SimpleNamespace(pid=7, usedGpuMemory=None)]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle):
        return [SimpleNamespace(pid=7, usedGpuMemory=GIB), SimpleNamespace(pid=8, usedGpuMemory=None)]

    def nvmlSystemGetProcessName(self, pid):
        return {7: "game.exe"}[pid] if pid == 7 else self._refuse()

    def _refuse(self):
        raise REFUSED()

    def nvmlDeviceGetMigMode(self, handle):
        return (int(self.mig), int(self.mig))

    def nvmlDeviceGetMaxMigDeviceCount(self, handle):
        return 2

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle, number):
        if number == 0:
            raise pynvml.NVMLError_NotFound()
        return f"MIG-instance-{number}"


@pytest.fixture
def driver(monkeypatch):
    """Put a scripted driver under the module, and let torch see its cards."""

    def put(made):
        for name in dir(pynvml):
            if name.startswith("nvml") and callable(getattr(pynvml, name)) and name != "nvmlMemory_v2":
                monkeypatch.setattr(pynvml, name, made(name))
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(made.names))
        return made

    return put


def test_a_card_through_nvml(driver):
    driver(Driver())
    card = local_device(0, {})
    assert card.name == "RTX 3070 Ti"
    assert card.driver_version == "580.95"
    assert card.driver_model is None
    reading = card.read()
    assert reading.total_bytes == 8 * GIB
    assert reading.driver_bytes == 200 * MIB
    assert reading.used_bytes == GIB
    assert [(one.pid, one.name, one.used_bytes) for one in reading.processes] == [
        (7, "game.exe", GIB),
        (8, None, None),
    ]


def test_several_cards_and_visible_devices(driver):
    made = driver(Driver())
    assert local_device(1, {}).total_bytes == 9 * GIB
    assert local_device(0, {"CUDA_VISIBLE_DEVICES": "1"}).total_bytes == 9 * GIB
    assert local_device(0, {"CUDA_VISIBLE_DEVICES": made.uuids[1]}).total_bytes == 9 * GIB
    assert local_device(0, {"CUDA_VISIBLE_DEVICES": "GPU-1"}).total_bytes == 9 * GIB


def test_a_uuid_that_no_card_has(driver):
    driver(Driver())
    with pytest.raises(NoUsableGpu, match="GPU-f"):
        local_device(0, {"CUDA_VISIBLE_DEVICES": "GPU-f"})


def test_cuda_counts_the_fastest_first_where_cards_differ(driver, monkeypatch):
    made = driver(Driver(names=("GT 1030", "RTX 3070 Ti")))
    answers = [made.uuids[1].removeprefix("GPU-"), None]
    # A child is asked: this process is to start no CUDA.
    monkeypatch.setattr(module, "_answer_of_child", lambda code, environment: answers.pop(0))
    assert local_device(0, {}).name == "RTX 3070 Ti"
    assert local_device(0, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}).name == "GT 1030"
    with pytest.raises(NoUsableGpu, match="set CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        local_device(0, {})


def test_a_partitioned_card_is_its_first_instance(driver):
    driver(Driver(mig=True))
    assert local_device(0, {}).total_bytes == 10 * GIB
    assert local_device(0, {"CUDA_VISIBLE_DEVICES": "GPU-1"}).total_bytes == 10 * GIB
    assert local_device(0, {"CUDA_VISIBLE_DEVICES": "MIG-abc"}).name == "MIG 1g.10gb"


def test_a_partitioned_card_without_an_instance(driver):
    driver(Driver(mig=True, refuse=("nvmlDeviceGetMigDeviceHandleByIndex",)))
    with pytest.raises(NoUsableGpu, match="MIG"):
        local_device(0, {})


@pytest.mark.parametrize(
    "refused",
    [
        "nvmlDeviceGetName",
        "nvmlSystemGetDriverVersion",
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetGraphicsRunningProcesses",
        "nvmlSystemGetProcessName",
        "nvmlDeviceGetMigMode",
    ],
)
def test_any_single_figure_may_be_refused(driver, refused):
    driver(Driver(refuse=(refused,)))
    card = local_device(0, {})
    assert card.total_bytes == 8 * GIB
    assert card.free_bytes == 8 * GIB - GIB - 200 * MIB


def test_an_old_driver_does_not_tell_its_own_share(driver):
    driver(Driver(refuse=("v2",)))
    reading = local_device(0, {}).read()
    assert reading.driver_bytes == 0
    assert reading.used_bytes == GIB + 200 * MIB


@pytest.mark.parametrize("code", ["nvmlInit", "nvmlDeviceGetMemoryInfo"])
def test_without_nvml_a_child_asks_cuda(driver, monkeypatch, code):
    driver(Driver(refuse=(code,)))
    monkeypatch.setattr(CudaDevice, "_ask_cuda", lambda self: ("Orin", 8 * GIB, 6 * GIB))
    card = local_device(0, {})
    assert (card.name, card.total_bytes, card.free_bytes) == ("Orin", 8 * GIB, 6 * GIB)
    assert "NVML gives no memory figures" in card.notes[0]


def test_cuda_refuses_too(monkeypatch):
    done = SimpleNamespace(returncode=1, stdout="", stderr="Traceback\nRuntimeError: no driver\n")
    monkeypatch.setattr(module.subprocess, "run", lambda *a, **k: done)
    with pytest.raises(NoUsableGpu, match="RuntimeError: no driver"):
        CudaDevice(0, "note").read()


@pytest.mark.parametrize(("number", "name"), [(0, "WDDM"), (1, "TCC"), (2, "MCDM"), (9, None)])
def test_windows_driver_models(driver, number, name):
    made = Driver()
    made.nvmlDeviceGetCurrentDriverModel = lambda handle: number
    driver(made)
    assert local_device(0, {}).driver_model == name
    assert local_device(0, {}).can_spill == (name == "WDDM")


@pytest.mark.parametrize(
    ("system", "release", "spills"),
    [("win32", "11", True), ("linux", "6.6.87.2-microsoft-standard-WSL2", True), ("linux", "6.8.0-generic", False)],
)
def test_a_driver_that_does_not_say_may_spill_on_windows(driver, monkeypatch, system, release, spills):
    driver(Driver())
    monkeypatch.setattr(module.sys, "platform", system)
    monkeypatch.setattr(module.platform, "release", lambda: release)
    card = local_device(0, {})
    assert card.driver_model is None
    assert card.can_spill == spills


@pytest.mark.parametrize(
    ("refuse", "said"),
    [
        ((), r"for the RTX 3070 Ti here run `pip install .*/whl/cu128`, or predict with --gpu NAME\."),
        (("nvmlSystemGetCudaDriverVersion",), r"/whl/cu130`"),
        (("nvmlInit",), r"no NVIDIA driver shows a card, so predict with --gpu NAME\."),
    ],
)
def test_torch_without_cuda_beside_a_card_is_told_the_command(driver, monkeypatch, refuse, said):
    driver(Driver(refuse=refuse))
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(NoUsableGpu, match=said):
        local_device(0, {})


def test_driver_that_is_too_old_is_to_be_updated(driver, monkeypatch):
    made = driver(Driver())
    monkeypatch.setattr(made, "nvmlSystemGetCudaDriverVersion", lambda: 11080, raising=False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(NoUsableGpu, match=r"update its driver \(580\.95\)"):
        local_device(0, {})


@pytest.mark.parametrize(
    ("capability", "driver_cuda", "build"),
    [
        ((8, 6), (13, 0), "cu130"),
        ((12, 0), (12, 9), "cu128"),
        ((6, 1), (13, 0), "cu126"),
        ((7, 5), (12, 2), "cu126"),
        ((12, 0), (12, 6), None),
        ((8, 6), (11, 8), None),
    ],
)
def test_build_is_one_that_card_and_driver_both_run(capability, driver_cuda, build):
    command = install_command(capability, driver_cuda)
    assert command is None if build is None else command.endswith(build)


def test_no_gpu_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(NoUsableGpu, match="built without CUDA"):
        local_device(0, {})
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NoUsableGpu, match="No usable NVIDIA GPU"):
        local_device(0, {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(NoUsableGpu, match="no device 3; CUDA shows 1"):
        local_device(3, {})
