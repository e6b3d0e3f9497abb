import pytest
import torch
from torch import nn, optim

from vramfit.jobs.job import Job
from vramfit.measure.host import run_host_bytes
from vramfit.report.slurm import slurm_line
from vramfit.units import GIB


@pytest.mark.parametrize(
    ("card", "kind"),
    [
        ("A100 SXM 80GB", "a100"),
        ("A100 PCIe 40GB", "a100"),
        ("V100 SXM2 32GB", "v100"),
        ("H100 NVL 94GB", "h100"),
        ("RTX 3090", "rtx3090"),
        ("RTX 2080 Ti with 22GB", "rtx2080ti"),
        ("RTX 6000 Ada", "rtx6000"),
        ("L40S", "l40s"),
        ("A100 SXM 80GB MIG 3g.40gb", "3g.40gb"),
    ],
)
def test_a_card_is_asked_for_by_its_usual_type(card, kind):
    assert slurm_line(card, 5 * GIB) == f"#SBATCH --gres=gpu:{kind}:1 --mem=5G"


def test_memory_and_time_are_rounded_up():
    assert slurm_line("T4", 5 * GIB + 1, 3601).endswith("--mem=6G --time=2:00:00")


def test_host_memory_grows_with_the_batch_and_the_workers():
    job = Job(
        model=lambda: nn.Linear(2**20, 1),
        batch=lambda n: (torch.zeros(n, 2**20), torch.zeros(n, 1)),
        loss=nn.functional.mse_loss,
        optimizer=lambda parameters: optim.SGD(parameters, lr=0.1),
        amp=None,
    )
    small, large = run_host_bytes(job, 8), run_host_bytes(job, 16)
    assert large - small == pytest.approx(8 * 12 * 4 * 2**20, rel=0.01)
    assert run_host_bytes(job, 8, workers=8) > small > 4 * GIB
