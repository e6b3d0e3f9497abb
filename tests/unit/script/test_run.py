"""Unchanged scripts on a card that is not here; each runs in a process of its own."""

import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from torch import nn

from vramfit.cards import find_card
from vramfit.errors import NotTraceable, ScriptFailed, UsageError
from vramfit.jobs.job import Job
from vramfit.prediction.predict import card_budget
from vramfit.prediction.tracing.trace import trace_step
from vramfit.script.command import Command, parse_command
from vramfit.script.levers import choices_of
from vramfit.script.predicted_answer import ScriptPredictor
from vramfit.script.run import watch_script

pytestmark = pytest.mark.usefixtures("warm_module")
CARD = "RTX 3070 Ti"
NETWORK = """
from torch import nn
def network():
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )
"""
LOOP = """
import argparse, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from network import network
parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--accumulate", type=int, default=1)
args = parser.parse_args()
assert torch.cuda.is_available() and torch.cuda.device_count() == 1
assert torch.cuda.get_device_properties(0).total_memory > 7 * 2**30
device = torch.device("cuda")
data = TensorDataset(torch.randn(48, 3, 64, 64), torch.randint(0, 10, (48,)))
loader = DataLoader(data, batch_size=args.batch_size, shuffle=True, num_workers=3, pin_memory=True, drop_last=True)
model = network().to(device)
assert next(model.parameters()).is_cuda and next(model.parameters()).device == torch.device("cuda:0")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
scaler = torch.amp.GradScaler("cuda")
for epoch in range(100):
    model.train()
    for x, y in loader:
        x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
        with torch.autocast("cuda", dtype=torch.float16):
            loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
    model.eval()
    with torch.no_grad():
        for x, y in loader:
            correct = (model(x.to(device)).argmax(1) == y.to(device)).sum().item()
    torch.save(model.state_dict(), "best.pt")
    model.load_state_dict(torch.load("best.pt"))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    place = tmp_path / "project"
    place.mkdir()
    (place / "network.py").write_text(NETWORK)
    (place / "train.py").write_text(LOOP)
    monkeypatch.chdir(place)
    return place


def watch(*words, **options):
    return watch_script(parse_command(["python", *words]), CARD, quiet=True, **options)


def network():
    names = {}
    exec(NETWORK, names)
    return names["network"]()


def same_job():
    return Job(
        model=network,
        batch=lambda n: (torch.randn(n, 3, 64, 64), torch.randint(0, 10, (n,))),
        loss=nn.functional.cross_entropy,
        optimizer=partial(torch.optim.AdamW, lr=1e-3),
        amp="fp16",
        ema_decay=None,
    )


def test_the_script_takes_what_the_same_job_takes(here):
    outcome = watch("train.py", "--batch-size", "8")
    assert (outcome.ending, outcome.steps_made, outcome.validated, outcome.batch_size) == ("seen", 3, True, 8)
    traced = trace_step(same_job(), 8, capability=find_card(CARD).compute_capability)
    assert outcome.trace.peak_bytes == pytest.approx(traced.peak_bytes, rel=0.02)
    assert {storage.kind for storage in outcome.trace.storages} >= {"parameter", "gradient", "optimizer state", "input"}
    assert {storage.phase for storage in outcome.trace.storages} >= {"forward", "backward", "optimizer", "validation"}
    assert any("train.py" in said for said in outcome.trace.assumptions)
    assert outcome.written == (str(here / "best.pt"),)
    assert not (here / "best.pt").exists()


def test_the_largest_value_of_an_option(here):
    card = find_card(CARD)
    said = []
    predictor = ScriptPredictor(
        parse_command(["python", "train.py"]),
        card,
        card_budget(card).model_copy(update={"requested_bytes": 600 * 2**20}),
        lambda command: watch_script(command, CARD, quiet=True),
        option="batch-size",
        on_trial=said.append,
    )
    answer = predictor.largest(40)
    size = answer.profile.plan.micro_batch
    assert 2 < size < 40
    assert answer.command == ("python", "train.py", "--batch-size", str(size))
    assert answer.profile.trial(size).verdict == "fits"
    assert predictor.proven(size + 1).verdict != "fits"
    assert len(said) <= 8
    assert answer.profile.job.amp == "fp16"
    assert "forward" in answer.phases


def test_a_batch_beyond_the_data_is_not_an_answer(here):
    (here / "train.py").write_text(LOOP.replace(", drop_last=True", ""))
    card = find_card(CARD)
    watched = partial(watch_script, card=CARD, quiet=True)
    predictor = ScriptPredictor(
        parse_command(["python", "train.py"]), card, card_budget(card), watched, option="batch-size"
    )
    answer = predictor.largest(256, effective_batch=None)
    assert answer.profile.plan.micro_batch == 48


def test_an_option_that_the_script_ignores_is_no_answer(here):
    (here / "train.py").write_text(LOOP.replace("batch_size=args.batch_size", "batch_size=33"))
    card, command = find_card(CARD), parse_command(["python", "train.py"])
    outcome = watch("train.py")
    predictor = ScriptPredictor(command, card, card_budget(card), lambda _: deepcopy(outcome), option="batch-size")
    with pytest.raises(UsageError, match="--find batch-size changes nothing: every run had 33 samples"):
        predictor.largest()


def test_time_is_that_of_a_full_step(here):
    (here / "train.py").write_text(LOOP.replace(", drop_last=True", ""))
    card = find_card(CARD)

    def answer(batch):
        command = parse_command(["python", "train.py", "--batch-size", str(batch)])
        return ScriptPredictor(
            command, card, card_budget(card), lambda asked: watch_script(asked, CARD, quiet=True)
        ).answer()

    partial_second, whole = answer(32).profile, answer(24).profile  # 48 images: 32 and 16, or 24 and 24
    (trial,) = partial_second.trials
    assert trial.micro_batch == 32
    assert trial.step_time_s > whole.trials[0].step_time_s
    assert any("32 samples; others had as few as 16" in note for note in partial_second.notes)
    assert not any("as few as" in note for note in whole.notes)


def test_a_module_and_an_accumulated_step(here):
    (here / "package").mkdir()
    (here / "package" / "__init__.py").write_text("")
    changed = LOOP.replace("scaler.step", "for _ in range(0): pass\n        scaler.step")
    (here / "package" / "fit.py").write_text(changed)
    assert watch("-m", "package.fit", "--batch-size", "4", steps=2).steps_made == 2


AHEAD = """
batches, count = iter(loader), 0
batch = next(batches)
while batch is not None:
    following, count = next(batches, None), count + 1
    nn.functional.cross_entropy(model(batch[0].to(device)), batch[1].to(device)).backward()
    if count % 2 == 0 or following is None:  # as accelerate does
        optimizer.step()
        optimizer.zero_grad()
    batch = following
"""


LAZY = """
class Averaged(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.module = torch.optim.swa_utils.AveragedModel(model).eval()

    def forward(self, x):
        return self.module(x)

model = nn.Sequential(nn.Flatten(), nn.LazyLinear(64), nn.ReLU(), nn.LazyLinear(10)).to(device)
assert model(torch.zeros(1, 3, 64, 64, device=device)).is_cuda and model[1].weight.is_cuda
averaged, optimizer = Averaged(model), torch.optim.AdamW(model.parameters())
for epoch in range(2):
    for x, y in loader:
        nn.functional.cross_entropy(model(x.to(device)), y.to(device)).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        for x, y in loader:
            averaged(x.to(device))
"""


def test_lazy_layers_and_averaged_weights_that_are_wrapped(here):
    (here / "train.py").write_text(LOOP.partition("model = network()")[0] + LAZY)
    seen = watch("train.py")
    weights = [one for one in seen.trace.storages if one.kind == "parameter"]
    # Those that learn, and those that are averaged.
    assert sum(one.size_bytes for one in weights) == 2 * 4 * (3 * 64 * 64 * 64 + 64 + 64 * 10 + 10)
    assert seen.validated


def test_a_step_that_the_end_of_its_loader_cuts_short_is_not_told_of(here):
    (here / "train.py").write_text(LOOP.partition("for epoch")[0] + AHEAD)
    seen = watch("train.py", "--batch-size", "4")
    assert set(seen.trace.samples.values()) == {8}


TOUCHING = """
import os, pathlib, shutil, sqlite3, subprocess, sys, urllib.request
import numpy, torch
home = pathlib.Path.home()
shutil.rmtree("data")
(home / ".config.ini").write_text("changed")
os.remove("notes.txt")
open("more.txt", "a").write("x")
os.makedirs(home / "runs" / "1")
numpy.save(home / "runs" / "1" / "a.npy", numpy.zeros(3))
torch.save({"x": torch.zeros(3)}, "x.pt")
for command in (["rm", "-rf", str(home)], ["sh", "-c", "echo y > started.txt"]):
    try:
        subprocess.run(command, check=False, stderr=subprocess.DEVNULL)
    except PermissionError as error:
        print(error)
os.system("touch touched.txt 2> /dev/null") if sys.platform == "linux" else None
try:
    sqlite3.connect("tracker.db").execute("create table t (x)")
except sqlite3.OperationalError as error:
    print(error)
try:
    urllib.request.urlopen("http://203.0.113.1/weights.pt", timeout=5)
except OSError as error:
    assert "no network" in str(error), error
else:
    raise AssertionError("the network was reached")
"""


def contents(folder):
    found = {}
    for path in sorted(folder.rglob("*")):
        found[str(path.relative_to(folder))] = (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="programs that a script starts are held back by Linux alone")
def test_nothing_of_the_users_is_touched(here, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (home / ".config.ini").write_text("as it was")
    (here / "data").mkdir()
    (here / "data" / "a.txt").write_text("a")
    (here / "notes.txt").write_text("n")
    (here / "train.py").write_text(TOUCHING + LOOP)
    before = contents(tmp_path)
    outcome = watch("train.py")
    assert outcome.steps_made == 3
    assert contents(tmp_path) == before
    assert str(home / ".config.ini") in outcome.written


RANKS = """
import os, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
dist.init_process_group("nccl")
rank = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(rank)
assert (dist.get_rank(), dist.get_world_size(), dist.get_backend()) == (0, 4, "nccl")
data = TensorDataset(torch.randn(64, 512))
loader = DataLoader(data, 4, sampler=DistributedSampler(data))
model = torch.nn.Sequential(torch.nn.Linear(512, 4096), torch.nn.BatchNorm1d(4096)).cuda(rank)
model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
model = DistributedDataParallel(model, device_ids=[rank])
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(9):
    model.train()
    for number, (x,) in enumerate(loader):
        loss = model(x.cuda(rank)).pow(2).mean()
        loss.backward()
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()
        dist.all_reduce(loss)
    model.eval()
    for (x,) in DataLoader(data, 4):  # asked for with gradients on, as some trainers do
        with torch.no_grad():
            model(x.cuda(rank))
    every = [torch.zeros_like(loss) for _ in range(4)]
    dist.all_gather(every, loss.detach())
    names = [None] * 4
    dist.all_gather_object(names, "mine")
    assert names == ["mine"] * 4 and len(loader) == 4
    dist.barrier()
"""


def test_a_rank_of_several_holds_weights_gradients_and_the_buckets_of_ddp(here):
    (here / "train.py").write_text(RANKS)
    outcome = watch_script(parse_command(["torchrun", "--nproc_per_node", "4", "train.py"]), CARD, quiet=True)
    weights = 4 * 515 * 4096
    assert (outcome.steps_made, outcome.validated) == (3, True)
    assert set(outcome.trace.samples.values()) == {8}
    alive = outcome.trace.allocated_bytes()
    set_up = alive[outcome.trace.marks["step 1"] - 1]
    assert set_up == pytest.approx(2 * weights, rel=0.01)  # the weights, and buckets for their gradients
    assert outcome.trace.peak_bytes >= 3 * weights


SHARDED = """
import os, torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
dist.init_process_group("nccl")
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
mesh = init_device_mesh("cuda", (dist.get_world_size(),))
model = torch.nn.Sequential(*(torch.nn.Linear(512, 512) for _ in range(6)))
for block in (*model, model):
    fully_shard(block, mesh=mesh)
place = next(model.parameters()).device
assert place.type == "cuda" and next(model.parameters()).is_cuda
optimizer = torch.optim.AdamW(model.parameters())
while True:
    model(torch.randn(4, 512).to(place)).pow(2).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
"""


def test_a_rank_of_a_script_that_shards_holds_its_part(here):
    """Of weights after the set-up, of moments and gradients too after an update; one layer or two whole in between."""
    (here / "train.py").write_text(SHARDED)
    outcome = watch_script(parse_command(["torchrun", "--nproc_per_node", "4", "train.py"]), CARD, quiet=True)
    layer = 4 * 513 * 512
    part, alive, marks = 6 * layer // 4, outcome.trace.allocated_bytes(), outcome.trace.marks
    assert alive[marks["step 1"] - 1] == pytest.approx(part, rel=0.01)
    assert alive[marks["step 2"] - 1] == pytest.approx(4 * part, rel=0.02)
    assert 4 * part < outcome.trace.peak_bytes < 5 * part + 4 * layer < 4 * 6 * layer


LEVERS = """
import torch
from torch import nn
model = nn.Sequential(
    *(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=1.5)) for _ in range(2))
).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
while True:
    with torch.autocast("cuda", dtype=torch.float16):
        loss = model(torch.randn(4, 8, 32, 32, device="cuda")).float().pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def test_levers_are_pulled_from_outside_and_told(here):
    (here / "train.py").write_text(LEVERS)
    command = replace(parse_command(["python", "train.py"]), levers=choices_of("auto")[2])
    outcome = watch_script(command, CARD, quiet=True)
    pulled = {"expandable_segments", "fused_optimizer", "half_upsample", "channels_last", "recompute=block"}
    assert set(outcome.levers) == pulled - ({"expandable_segments"} if sys.platform == "win32" else set())
    late = [one for one in outcome.trace.operations if one.position >= outcome.trace.marks["step 2"]]
    assert any("fused_adamw" in one.name for one in late)
    assert all(one.convolution.channels_last for one in late if one.convolution)
    assert {one.dtype for one in late if "upsample" in one.name} == {"float16"}
    with pytest.raises(UsageError, match="amp needs a change"):
        choices_of("amp=fp16")


def test_a_scripts_own_error_is_its_own(here):
    script = here / "train.py"
    script.write_text("import sys\nsys.exit(7)\n")
    with pytest.raises(ScriptFailed, match="exit code 7") as failed:
        watch("train.py")
    assert failed.value.exit_code == 7
    script.write_text("def inner():\n    return 1 / 0\ninner()\n")
    with pytest.raises(ScriptFailed, match="ZeroDivisionError"):
        watch("train.py")
    script.write_text("x = = 3\n")
    with pytest.raises(ScriptFailed, match="SyntaxError"):
        watch("train.py")


def test_its_traceback_shows_its_own_lines_alone(here, capfd):
    (here / "train.py").write_text("def inner():\n    return 1 / 0\ninner()\n")
    with pytest.raises(ScriptFailed):
        watch_script(Command("file", "train.py"), CARD)
    said = capfd.readouterr().err
    assert "in inner" in said
    assert "vramfit" not in said


def test_a_file_that_is_missing_is_the_scripts_own_error(here, capfd):
    (here / "train.py").write_text("def load():\n    return open('missing.csv')\nload()\n")
    with pytest.raises(ScriptFailed, match="exit code 1"):
        watch_script(Command("file", "train.py"), CARD)
    said = capfd.readouterr().err
    assert said.endswith("FileNotFoundError: [Errno 2] No such file or directory: 'missing.csv'\n")
    assert "in load" in said
    assert "vramfit" not in said


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Landlock is Linux's")
def test_a_write_that_the_system_refuses_is_explained(here):
    (here / "train.py").write_text(
        "import sqlite3\nsqlite3.connect('file:runs.db', uri=True).execute('create table a (b)')\n"
    )
    with pytest.raises(ScriptFailed, match="unable to open database file; in a run of a few steps"):
        watch("train.py")
    assert not (here / "runs.db").exists()


def test_a_script_that_never_steps_is_said_not_to(here):
    (here / "train.py").write_text("print('nothing')\n")
    with pytest.raises(NotTraceable, match="without an optimizer step"):
        watch("train.py")


def test_a_script_that_trains_on_the_host_is_said_to(here):
    loop = "for _ in range(3): network(torch.ones(2, 9)).sum().backward(), optimizer.step()\n"
    made = "network = torch.nn.Linear(9, 9)\noptimizer = torch.optim.SGD(network.parameters(), 1)\n"
    (here / "train.py").write_text(f"import torch\n{made}{loop}")
    with pytest.raises(NotTraceable, match="without a tensor on the card"):
        watch("train.py")


def test_a_script_that_takes_too_long_is_ended(here):
    (here / "train.py").write_text("import subprocess, sys, time\nopen('pid', 'w')\ntime.sleep(100)\n")
    with pytest.raises(NotTraceable, match="within 1 s"):
        watch("train.py", timeout_s=1)


READING = """
import io, torch
x = torch.arange(6, device="cuda").view(2, 3)
assert x.cpu().tolist() == [[0, 1, 2], [3, 4, 5]] and x.sum().item() == 15
assert torch.zeros(3, device="cpu").numpy().sum() == 0 and not torch.zeros(3).is_cuda
assert torch.nn.functional.one_hot(torch.tensor([1, 0]), 3).tolist() == [[0, 1, 0], [1, 0, 0]]
assert torch.nn.functional.one_hot(torch.tensor([1, 0], device="cuda"), 3).is_cuda
assert torch.ones(2, 2).cuda().cpu().device.type == "cpu" and x.to("cpu").to(x.device).is_cuda
assert torch.zeros_like(x, device="cpu").is_cpu and torch.zeros(2).to(x).device == x.device
assert torch.tensor([1.0], device=0).is_cuda and torch.as_tensor([1], device=x.device).is_cuda
g = torch.Generator("cuda").manual_seed(1)
assert torch.randn(4, generator=g, device="cuda").is_cuda and g.device.type == "cuda"
with torch.cuda.stream(torch.cuda.Stream()), torch.cuda.device(0):
    event = torch.cuda.Event(enable_timing=True)
    event.record(); event.synchronize()
assert torch.cuda.memory_allocated() > 0
assert torch.cuda.mem_get_info()[1] == torch.cuda.get_device_properties(0).total_memory
assert torch.get_autocast_dtype("cuda") == torch.float16
with torch.autocast("cuda", dtype=torch.bfloat16):
    assert torch.is_autocast_enabled("cuda")
    assert torch.nn.Linear(2, 2, device="cuda")(torch.ones(1, 2, device="cuda")).dtype == torch.bfloat16
big = torch.nn.Linear(50_000, 50_000)  # 10 GB, were it real
tied = torch.nn.Linear(64, 64).weight
assert big.weight.data_ptr() != tied.data_ptr() and tied.data_ptr() == tied.detach().data_ptr()
card, here = torch.device("cuda"), io.BytesIO()
for given in ({"device": card}, {"device": "cuda"}, {"device": 0}, {"device": card, "dtype": torch.float16}):
    assert torch.nn.Linear(99, 99).to(**given).weight.is_cuda and torch.ones(2).to(**given).is_cuda
assert torch.nn.Linear(99, 99).to(x.float()).weight.is_cuda
assert not torch.nn.Linear(9, 9).to(device="cpu").weight.is_cuda
assert torch.nn.Linear(99, 99, device=card).weight.is_cuda and torch.nn.Linear(99, 99).cuda(device=card).weight.is_cuda
assert torch.nn.Linear(99, 99, device="meta").to_empty(device=card).weight.is_cuda
torch.save(torch.nn.Linear(99, 99).cuda().state_dict(), here)
for where, on_card in ((None, True), ("cuda", True), (card, True), ("cpu", False)):
    here.seek(0)
    assert torch.load(here, map_location=where)["weight"].is_cuda == on_card
assert torch.cuda.random.get_rng_state() is not None and torch.cuda.memory.memory_allocated() > 0
with torch.profiler.profile() as profiler:
    profiler.step()
assert "CPU" not in str(profiler.key_averages().table())
kind, rows = torch.cuda.FloatTensor, torch.rand(4, 3)
assert isinstance(rows.cuda(), kind) and not isinstance(rows, kind) and not isinstance(rows.cuda().long(), kind)
assert isinstance(rows.type(kind), kind) and rows.type("torch.cuda.HalfTensor").dtype == torch.float16
assert (rows.type(), rows.cuda().double().type()) == ("torch.FloatTensor", "torch.cuda.DoubleTensor")
assert not rows.cuda().type(torch.FloatTensor).is_cuda and rows.cuda().type(torch.float16).is_cuda
assert kind(2, 3).shape == (2, 3) and kind(rows.numpy()).is_cuda and kind(rows.cuda()).is_cuda and kind().numel() == 0
assert torch.cuda.LongTensor([1, 2]).tolist() == [1, 2] and rows.type_as(kind(3, 1).fill_(1.0)).is_cuda
torch.set_default_tensor_type(kind)
assert torch.ones(2).is_cuda
torch.set_default_tensor_type(torch.FloatTensor)
graph = torch.sparse_coo_tensor([[0, 1], [1, 2]], [1.0, 2.0], (3, 3)).coalesce()
assert not graph.is_cuda and graph.cuda().is_cuda and graph.cuda().coalesce().values().tolist() == [1.0, 2.0]
assert torch.spmm(graph.cuda(), torch.ones(3, 2, device="cuda")).is_cuda
torch.set_default_device("cuda")
assert torch.ones(2).is_cuda and torch.nn.Linear(99, 99).weight.is_cuda and torch.get_default_device() == card
for make in (torch.tensor, torch.as_tensor, torch.asarray):
    assert make([1, 2]).is_cuda and make(rows.numpy()).is_cuda and not make([1, 2], device="cpu").is_cuda
    assert make([3, 4]).tolist() == [3, 4] and make([1], device="meta").is_meta
by_default = torch.nn.Linear(99, 99)
by_default(torch.ones(2, 99)).mean().backward()
torch.optim.Adam(by_default.parameters()).step()  # its count of steps is on the host
torch.set_default_device("cpu")
assert not torch.ones(2).is_cuda and not torch.tensor([1]).is_cuda
stats, properties = torch.cuda.memory_stats(), torch.cuda.get_device_properties(0)
assert stats["active_bytes.all.peak"] >= stats["active_bytes.all.current"] == torch.cuda.memory_allocated() > 0
assert torch.cuda.memory_stats_as_nested_dict()["reserved_bytes"]["all"]["peak"] == torch.cuda.max_memory_reserved()
assert properties.max_threads_per_block == 1024 and torch.cuda.default_generators[0].initial_seed() is not None
assert not torch.empty(3, 4, pin_memory=True).is_cuda and torch.zeros(2, device="cuda", pin_memory=False).is_cuda
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    torch.ones(3, device="cuda")
graph.replay()
import pynvml
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
told = pynvml.nvmlDeviceGetMemoryInfo(handle)
assert (told.free, told.total) == torch.cuda.mem_get_info() and told.used == told.total - told.free > 0
assert pynvml.nvmlDeviceGetCount() == 1 and pynvml.nvmlDeviceGetName(handle) == torch.cuda.get_device_name(0)
assert len({torch.rand(1).item() for _ in range(9)}) == 9  # of the script's own data
compiled = torch.compile(torch.nn.Linear(4, 4).cuda())
assert compiled._orig_mod.weight is compiled.weight and list(compiled.state_dict()) == ["weight", "bias"]
optimizer = torch.optim.SGD(compiled.parameters(), lr=1, momentum=0.9)
for _ in range(3):
    loss = compiled(torch.ones(2, 4, device="cuda")).pow(2).mean()
    assert not torch.isnan(loss) and torch.isfinite(loss)
    loss.backward()
    optimizer.step()
"""


def test_what_a_script_asks_of_its_card(here):
    (here / "train.py").write_text(dedent(READING))
    outcome = watch("train.py")
    assert outcome.steps_made == 3
    assert outcome.host_peak_bytes < 2 * 2**30
    assert any("torch.compile" in assumed for assumed in outcome.trace.assumptions)


AHEAD = """
import queue, threading, torch
from concurrent.futures import ThreadPoolExecutor
from torch.utils.data import DataLoader, TensorDataset
from network import network
with ThreadPoolExecutor(2) as pool:
    assert all(pool.map(lambda n: torch.ones(n, device="cuda").is_cuda, range(4)))
brought = queue.Queue(1)
def bring():
    mean = torch.tensor([0.5, 0.5, 0.5], device="cuda").view(1, 3, 1, 1)
    for x, y in DataLoader(TensorDataset(torch.rand(40, 3, 64, 64), torch.arange(40) % 10), batch_size=8):
        brought.put((x.to("cuda") - mean, y.cuda(), torch.ones(len(x), device="cuda")))
    brought.put(None)
threading.Thread(target=bring, daemon=True).start()
model = network().cuda()
optimizer = torch.optim.SGD(model.parameters(), 0.1)
while (batch := brought.get()) is not None:
    x, y, weight = batch
    (torch.nn.functional.cross_entropy(model(x), y, reduction="none") * weight).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def test_a_thread_that_brings_batches_ahead_works_on_the_card(here):
    (here / "train.py").write_text(AHEAD)
    outcome = watch("train.py", timeout_s=100)
    assert outcome.ending in ("seen", "ended")
    assert outcome.batch_size == 8
    assert outcome.steps_made in (3, 4, 5)  # some batches had been brought when the steps were made
    pictures = [one for one in outcome.trace.storages if one.size_bytes == 8 * 3 * 64 * 64 * 4]
    assert len(pictures) >= 2 * 3  # as they come and less their mean


BY_HAND = """
import os, torch
assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == "parts" and os.pathsep in os.environ["PYTHONPATH"]
from torch.nn import functional as F
table, hidden, out = (torch.randn(*size, device="cuda") for size in ((27, 64), (512, 256), (256, 27)))
parameters = [table, hidden, out]
for p in parameters:
    p.requires_grad = True
for _ in range(1000):
    chosen = torch.randint(0, 27, (32, 8)).cuda()
    loss = F.cross_entropy(torch.tanh(table[chosen].view(-1, 512) @ hidden) @ out, chosen[:, 0])
    for p in parameters:
        p.grad = None
    loss.backward()
    for p in parameters:
        p.data += -0.1 * p.grad
"""


def test_without_an_optimizer_of_torch_a_backward_pass_is_a_step(here):
    (here / "train.py").write_text(BY_HAND)
    outcome = watch_script(parse_command(["PYTHONPATH=parts", "python", "train.py"]), CARD, quiet=True)
    assert (outcome.ending, outcome.batch_size) == ("seen", 32)
    assert outcome.steps_made in (3, 4, 5)
    assert any("no optimizer of torch" in note for note in outcome.notes)
    weights = (27 * 64 + 512 * 256 + 256 * 27) * 4
    change, ids, loss = 512 * 256 * 4, 32 * 8 * 8, 4  # of the largest weight, on its way
    assert outcome.trace.peak_bytes == 2 * weights + change + ids + loss


TRIED = """
import torch
from network import network
model = network().cuda()
for _ in range(6):  # how long a pass takes
    model(torch.rand(4, 3, 64, 64, device="cuda")).sum().backward()
optimizer = torch.optim.Adam(model.parameters())
for _ in range(100):
    model(torch.rand(8, 3, 64, 64, device="cuda")).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def test_a_network_that_is_first_tried_out_is_followed_to_its_optimizer(here):
    (here / "train.py").write_text(TRIED)
    outcome = watch("train.py")
    assert (outcome.batch_size, outcome.notes) == (8, ())
    assert outcome.trace.samples == {"step 1": 8, "step 2": 8, "step 3": 8}
    assert any(one.kind == "optimizer state" for one in outcome.trace.storages)


def test_a_process_of_its_own_leaves_this_one_alone(here):
    before = (torch.cuda.is_available, torch.Tensor.to, open, os.remove, subprocess.Popen)
    watch("train.py")
    assert (torch.cuda.is_available, torch.Tensor.to, open, os.remove, subprocess.Popen) == before
    assert Path("train.py").read_text() == LOOP
