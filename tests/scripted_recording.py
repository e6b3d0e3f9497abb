"""Memory snapshots of training code that runs on a CPU, in the form that PyTorch gives those of a card.

Every tensor counts as on a card of the size that is asked for. Its allocator is the replay of PyTorch's; stacks are the
code's own, and what a backward pass allocates comes from a thread of C++ that shows no line of Python, as on a card.
"""

import sys
import weakref
from functools import partial

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vramfit.prediction.allocator.allocator import AllocatorOom, CachingAllocator, Settings
from vramfit.units import GIB, MIB

_OURS = (__file__, "_python_dispatch.py", "_ops.py", "_device.py", "eval_frame.py", "_compile.py")
_ENGINE = {"name": "torch::autograd::Engine::evaluate_function(GraphTask)", "filename": "engine.cpp", "line": 0}


class _Allocator(CachingAllocator):
    """Says which segments it takes and gives back."""

    def __init__(self, settings, limit_bytes, on_segment):
        super().__init__(settings, limit_bytes)
        self._on_segment = on_segment
        self.held = {}  # address of a segment -> size, pool and stream

    def _allocate(self, pool, size, segment):
        block = super()._allocate(pool, size, segment)
        if block is not None:
            self.held[block.address] = (block.size, pool)
            self._on_segment("segment_alloc", block.address, block.size)
        return block

    def _release_segment(self, block):
        super()._release_segment(block)
        del self.held[block.address]
        self._on_segment("segment_free", block.address, block.size)


class ScriptedRecording(TorchDispatchMode):
    """Records what runs within it; `snapshot()` afterwards.

    Args:
        card_bytes: the card's whole memory; None for a card that holds anything.
        others_bytes: what other processes hold of it.
        stacks: "all" or "python" as `_record_memory_history` has them, None without any.
        context_bytes: what CUDA takes for this process.
        alloc_conf: as in `PYTORCH_ALLOC_CONF`, without expandable segments.
        workspaces: bytes that a library takes for itself during each operation of a name, as cuDNN's convolutions do.

    """

    def __init__(
        self, card_bytes=None, others_bytes=0, *, stacks="all", context_bytes=16 * MIB, alloc_conf="", workspaces=None
    ):
        super().__init__()
        self.card_bytes = card_bytes or 1024 * GIB
        self.others_bytes, self.context_bytes = others_bytes, context_bytes
        self.limit_bytes = self.card_bytes - others_bytes - context_bytes
        self.stacks, self.alloc_conf = stacks, alloc_conf
        self.events = []
        self.failed = False
        self._workspaces = workspaces or {}
        self._frames = {}  # address of a live block -> its stack and requested size
        self._live = {}  # storage -> its size
        self._allocator = _Allocator(Settings.parse(alloc_conf), self.limit_bytes, self._note)

    def __enter__(self):
        self._outermost = sys._getframe(1)
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split("::")[-1].split(".")[0]
        taken = self._workspaces.get(name, 0)
        if taken:
            self._allocate(("workspace", len(self.events)), taken, name, workspace=True)
        out = func(*args, **(kwargs or {}))
        if taken:
            self._free(("workspace", self._workspace))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided:
                self._see(leaf, name)
        return out

    def _see(self, tensor, name):
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live or not storage.nbytes():
            return
        self._allocate(key, storage.nbytes(), name)
        self._live[key] = weakref.finalize(storage, partial(self._gone, key))
        self._live[key].atexit = False

    def _gone(self, key):
        if self._live.pop(key, None) is not None:
            self._free(key)

    def _allocate(self, key, size, name, *, workspace=False):
        if workspace:
            self._workspace = key[1]
        frames = self._stack(name, workspace=workspace)
        self._making = frames
        try:
            self._allocator.malloc(key, size)
        except AllocatorOom:
            self._oom(size, frames)
        address = self._allocator._live[key].address
        self._frames[address] = (frames, size)
        self._note("alloc", address, size, frames)

    def _free(self, key):
        block = self._allocator._live.get(key)
        if block is None or self.failed:
            return
        address = block.address  # a block that is freed joins its neighbours
        size = self._frames.pop(address)[1]
        self._note("free_requested", address, size, [])
        self._allocator.free(key)
        self._note("free_completed", address, size, [])

    def _oom(self, size, frames):
        free = self.limit_bytes - self._allocator.reserved_bytes
        self.events.append(
            {
                "action": "oom",
                "device_free": free,
                "size": size,
                "stream": 0,
                "time_us": len(self.events),
                "frames": frames,
            }
        )
        self._kept = self._state()
        self.failed = True
        held = self._allocator.allocated_bytes
        raise torch.OutOfMemoryError(
            f"CUDA out of memory. Tried to allocate {size / MIB:.2f} MiB. GPU 0 has a total capacity of "
            f"{self.card_bytes / GIB:.2f} GiB of which {free / MIB:.2f} MiB is free. Process 4242 has "
            f"{self.others_bytes / GIB:.2f} GiB memory in use. Including non-PyTorch memory, this process has "
            f"{(self._allocator.reserved_bytes + self.context_bytes) / GIB:.2f} GiB memory in use. Of the allocated "
            f"memory {held / GIB:.2f} GiB is allocated by PyTorch, and "
            f"{(self._allocator.reserved_bytes - held) / MIB:.2f} MiB is reserved by PyTorch but unallocated."
        )

    def _note(self, action, address, size, frames=None):
        frames = self._making if frames is None else frames
        self.events.append(
            {
                "action": action,
                "addr": address,
                "size": size,
                "stream": 0,
                "time_us": len(self.events),
                "frames": frames,
            }
        )

    def _stack(self, name, *, workspace):
        if self.stacks is None:
            return []
        frames = [{"name": f"at::_ops::{name}::call", "filename": "Operators.cpp", "line": 0}]
        if workspace:
            frames.insert(0, {"name": "at::native::Workspace::Workspace(unsigned long)", "filename": "", "line": 0})
        if self.stacks == "python":
            frames = []
        frame = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            if "_engine_run_backward" in code.co_name:
                return [*frames, _ENGINE] if self.stacks == "all" else frames
            if not code.co_filename.endswith(_OURS) and not code.co_filename.startswith("<"):
                frames.append({"name": code.co_name, "filename": code.co_filename, "line": frame.f_lineno})
            frame = frame.f_back if frame is not self._outermost else None
        return frames

    def _state(self):
        live = {block.address: block for block in self._allocator._live.values()}
        free = {block.address: block for block in self._allocator.blocks() if block.free}
        segments = []
        for address, (size, pool) in sorted(self._allocator.held.items()):
            blocks, at = [], address
            while at < address + size:
                block = live.get(at) or free[at]
                frames, requested = self._frames.get(at, ([], 0))
                state = "inactive" if block.free else "active_allocated"
                blocks.append(
                    {"address": at, "size": block.size, "requested_size": requested, "state": state, "frames": frames}
                )
                at += block.size
            kind = "small" if pool.small else "large"
            segments.append(
                {
                    "device": 0,
                    "address": address,
                    "total_size": size,
                    "stream": 0,
                    "segment_type": kind,
                    "segment_pool_id": (0, 0),
                    "is_expandable": False,
                    "frames": [],
                    "blocks": blocks,
                }
            )
        return segments

    def snapshot(self, *, last=None, history=True):
        """The snapshot as it was at the OOM, or as it is now; `last` keeps so many events, as a full buffer does."""
        self._making = []
        segments = self._kept if self.failed else self._state()
        events = self.events if history else []
        return {
            "segments": segments,
            "device_traces": [list(events if last is None else events[-last:])],
            "allocator_settings": {"PYTORCH_CUDA_ALLOC_CONF": self.alloc_conf},
            "external_annotations": [],
        }


def record_script(path, card_bytes=None, others_bytes=0, **settings):
    """Run a script file under a recording until it ends or runs out of memory."""
    recording = ScriptedRecording(card_bytes, others_bytes, **settings)
    recording._making = []
    code = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    space = {"__name__": "__main__", "__file__": str(path)}
    sys.path.insert(0, str(path.parent))
    try:
        with recording:
            exec(code, space)
    except torch.OutOfMemoryError as error:
        recording.message = str(error)
    finally:
        sys.path.remove(str(path.parent))
    return recording
