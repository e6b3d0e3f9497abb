import ctypes
import sys

import pytest
import torch
from torch import nn

from vramfit.jobs.job import Job
from vramfit.measure import host
from vramfit.measure.host import available_host_bytes, largest_in_host_memory, sample_bytes, usable_cores
from vramfit.units import GIB


def job():
    return Job(
        model=lambda: nn.Linear(8, 1),
        batch=lambda n: ({"films": torch.zeros(n, 1, 10, 10, dtype=torch.uint8)}, torch.zeros(n, 3)),
        loss=nn.functional.mse_loss,
        optimizer=torch.optim.SGD,
    )


def test_a_sample_counts_inputs_and_targets():
    assert sample_bytes(job()) == 100 + 12


def test_the_host_holds_a_batch_several_times():
    assert largest_in_host_memory(job(), 112 * 40) == 10
    assert largest_in_host_memory(job(), 1) == 1
    assert largest_in_host_memory(job(), None) is None


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", None), ("50000 100000", 1), ("", None), (None, None)])
def test_a_container_may_have_less_than_a_core(tmp_path, quota, cores):
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert usable_cores(tmp_path) == (cores or usable_cores(tmp_path / "nowhere"))


@pytest.mark.skipif(sys.platform == "win32", reason="reads files of Linux")
@pytest.mark.parametrize(
    ("limit", "used", "left"), [(None, None, 8), ("max", 0, 8), (4 * GIB, 3 * GIB, 1), (GIB, 2 * GIB, 0)]
)
def test_a_container_may_have_less_than_the_machine(tmp_path, limit, used, left):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 99 kB\nMemAvailable:   {8 * GIB // 1024} kB\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
    assert available_host_bytes(meminfo, tmp_path) == left * GIB


@pytest.mark.skipif(sys.platform == "win32", reason="reads files of Linux")
def test_where_nothing_is_known_nothing_is_claimed(tmp_path):
    assert available_host_bytes(tmp_path / "no", tmp_path) is None


def test_windows_fields_have_the_documented_size():
    assert ctypes.sizeof(host._MemoryStatus) in (64, 72)  # 64 where a long has 32 bits, as on Windows
    assert host._MemoryStatus.available.offset > host._MemoryStatus.total.offset
