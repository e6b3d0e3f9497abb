"""What a lock file keeps of a step, and what is said of one that takes more."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from vramfit import Job
from vramfit.errors import ProfileError, UsageError
from vramfit.lock.annotations import line_of, sarif, workflow_command
from vramfit.lock.ask import locked, trace_of_job
from vramfit.lock.growth import growths
from vramfit.lock.lock_file import LockedJob, LockFile, Question
from vramfit.prediction.trace_records import StorageRecord, Trace

GPU, BATCH = "rtx3060", 8


class Net(nn.Module):
    """Three blocks and a head; `extra` is put behind each block."""

    def __init__(self, extra: type[nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(inplace=True), extra()) for _ in range(3)
        )
        self.stem = nn.Conv2d(3, 16, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Graphless(Net):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        with torch.no_grad():
            return super().forward(x) + 0 * torch.cat([x] * 40).square().sum()


def step(**changes: object) -> Job:
    job = Job(
        model=Net,
        batch=lambda n: (torch.randn(n, 3, 32, 32), torch.zeros(n, dtype=torch.int64)),
        loss=nn.functional.cross_entropy,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        amp=None,
    )
    return replace(job, **changes)  # type: ignore[arg-type]


def taken(job: Job) -> LockedJob:
    return locked(Question(model="net:job", gpu=GPU, batch_size=BATCH), trace_of_job(job, GPU, BATCH))


@pytest.fixture(scope="module")
def before() -> LockedJob:
    return taken(step()).rolled_up()


def test_the_same_step_takes_the_same_to_the_byte(before):
    again = taken(step()).rolled_up()
    assert again == before
    assert not growths("net", before, again, 0.0)


def test_kinds_and_modules_sum_to_the_peak(before):
    for peak in (*before.phases.values(), *taken(step()).phases.values()):
        assert sum(peak.kinds.values()) == sum(peak.modules.values()) == peak.size_bytes
    assert list(before.phases) == ["setup", "input", "forward", "loss", "backward", "optimizer", "validation"]


def test_what_is_kept_in_each_block_is_said_of_the_blocks(before):
    grown = growths("net", before, taken(step(model=lambda: Net(nn.GELU))), 0.05)
    assert {one.phase for one in grown} >= {"forward", "backward"}
    assert grown[0].modules[0].name == "blocks"
    assert grown[0].kind.name == "activation"
    assert "net: the peak of" in str(grown[0])


def test_a_module_that_is_new_is_named(before):
    class Wider(Net):
        def __init__(self) -> None:
            super().__init__()
            self.extra = nn.Conv2d(16, 64, 3)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.extra(self.stem(x)).mean()

    grown = growths("net", before, taken(step(model=Wider)), 0.05)
    assert any(part.name == "extra" for part in grown[0].modules)


def test_validation_has_a_peak_of_its_own(before):
    grown = growths("net", before, taken(step(model=Graphless)), 0.05)
    assert [one.phase for one in grown] == ["validation"]


def test_optimizer_with_more_state_is_said_to_be_that(before):
    adam = step(optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.1, foreach=False))
    grown = {one.phase: one for one in growths("net", before, taken(adam), 0.05)}
    assert grown["optimizer"].kind.name == "optimizer state"


def test_growth_within_the_tolerance_passes(before):
    after = taken(step(model=lambda: Net(nn.GELU)))
    share = max(one.share for one in growths("net", before, after, 0.0))
    assert not growths("net", before, after, share)


def test_phase_that_is_new_is_held_to_the_peak_of_all(before):
    without = before.model_copy(
        update={"phases": {name: peak for name, peak in before.phases.items() if name != "validation"}}
    )
    assert not growths("net", without, before, 0.05)


def test_small_modules_are_counted_with_what_they_are_part_of():
    trace = Trace(1)
    sizes = {"a.big": 1000, "a.small": 3, "a.b.c": 2, "d": 1}
    trace.storages.extend(StorageRecord(size, "empty", name, "forward") for name, size in sizes.items())
    trace.events.extend(range(len(sizes)))
    found = locked(Question(model="m", gpu=GPU, batch_size=1), trace)
    assert found.phases["forward"].modules == sizes
    assert found.rolled_up().phases["forward"].modules == {"a.big": 1000, "a": 5, "d": 1}


def test_small_modules_that_did_not_grow_are_not_named():
    before = _forward({"net.a": 9, "net.b": 9, "net.big": 2000}).rolled_up()
    after = _forward({"net.a": 9, "net.b": 9, "net.big": 2000, "net.c": 19})
    assert growths("m", before, after, 0.0)[0].modules[0].name == "net"


def _forward(sizes: dict[str, int]) -> LockedJob:
    trace = Trace(1)
    trace.storages.extend(StorageRecord(size, "empty", name, "forward") for name, size in sizes.items())
    trace.events.extend(range(len(sizes)))
    return locked(Question(model="m", gpu=GPU, batch_size=1), trace)


def test_lock_file_comes_back_as_it_was_written(tmp_path, before):
    kept = LockFile(jobs={"net": before, "a": before})
    kept.write(tmp_path / "vramfit.lock")
    assert LockFile.read(tmp_path / "vramfit.lock") == kept
    assert list(json.loads((tmp_path / "vramfit.lock").read_text())["jobs"]) == ["a", "net"]


def test_lock_file_that_is_missing_or_damaged_is_told(tmp_path):
    with pytest.raises(UsageError, match="--update"):
        LockFile.read(tmp_path / "none.lock")
    (tmp_path / "bad.lock").write_text("{")
    with pytest.raises(ProfileError, match=r"bad\.lock"):
        LockFile.read(tmp_path / "bad.lock")


def test_annotations_point_at_the_line_of_the_job(tmp_path, before):
    lock = tmp_path / "vramfit.lock"
    LockFile(jobs={"a": before, "net": before}).write(lock)
    grown = growths("net", before, taken(step(model=lambda: Net(nn.GELU))), 0.05)
    line = lock.read_text().splitlines()[line_of("net", lock) - 1]
    assert line.strip() == '"net": {'
    result = json.loads(sarif(grown, lock))["runs"][0]["results"][0]
    assert result["locations"][0]["physicalLocation"]["region"]["startLine"] == line_of("net", lock)
    assert workflow_command(grown[0], lock).startswith(f"::error file={lock.as_posix()},line=")
    assert "%25" in workflow_command(grown[0], lock)
