"""A short report at an OOM, written while what held the memory is still there: call it inside the `except`.

On a card the allocator's blocks are known, and which of them are parameters, gradients and optimizer states; elsewhere
there is the message alone. With a history that someone records, the report tells lines and steps, too. What is on the
card is not verified on a GPU.
"""

import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vramfit.files import write_atomically
from vramfit.postmortem.explain import NOTED, Postmortem, explain_containers, heading
from vramfit.postmortem.oom_message import OomMessage
from vramfit.units import format_size

REPORT, SNAPSHOT = "out_of_memory.txt", "out_of_memory.pickle"
# Of the card: more than this is held by others, or lies free in pieces, and is told first.
_LARGE_SHARE = 0.08


@dataclass(frozen=True)
class OomReport:
    """Why memory ran out, in a sentence and in lines; `file` is where they were written, None where nowhere."""

    sentence: str
    lines: tuple[str, ...]
    file: Path | None = None


def report_out_of_memory(
    error: BaseException,
    *,
    model: Any = None,
    optimizers: Iterable[Any] = (),
    average: Any = None,
    folder: str | Path | None = None,
) -> OomReport | None:
    """Explain an OOM and, where a folder is given, write it there, with a snapshot for `vramfit explain`.

    Args:
        error: what was caught; the tensors of the step that failed must be alive yet.
        model: the network, whose parameters and gradients are then told by name.
        optimizers: those whose states are told.
        average: the averaged copy of the network, if there is one.
        folder: where `out_of_memory.txt` goes, and on a card `out_of_memory.pickle`.

    Returns:
        None where the error tells nothing: one without figures, and no card.

    Raises:
        CannotWrite: the folder cannot be written.

    """
    message = OomMessage.of(str(error))
    snapshot = _snapshot_of_card(message, dict(_owners(model, optimizers, average)))
    if snapshot is not None:
        found = explain_containers(snapshot)
        sentence, lines = found[0].sentence, tuple(_lines(found))
    else:
        said = message_sentence(message)
        if said is None:
            return None
        sentence, lines = said, ()
    if folder is None:
        return OomReport(sentence, lines)
    path = Path(folder) / REPORT
    write_atomically(path, "\n".join((sentence, *lines, "", str(error).strip(), "")))
    if snapshot is not None:
        write_atomically(path.with_name(SNAPSHOT), pickle.dumps(snapshot))
    return OomReport(sentence, lines, path)


def message_sentence(message: OomMessage) -> str | None:
    """The likeliest cause as far as a message alone tells it; None where it has no figures."""
    request, total = message.request_bytes, message.total_bytes
    if request is None or message.allocated_bytes is None:
        return None
    asked = f"{format_size(request)} that were asked for"
    if total and message.others_bytes is not None and message.others_bytes >= _LARGE_SHARE * total:
        return (
            f"Other processes hold about {format_size(message.others_bytes)} of the card's {format_size(total)}, "
            f"beside the {format_size(message.allocated_bytes)} in use here; end them, or plan with what they leave."
        )
    held_free = message.held_free_bytes or 0
    if held_free >= max(request, _LARGE_SHARE * (message.allocated_bytes + held_free)):
        return (
            f"Fragmentation: {format_size(held_free)} are reserved and lie free, in pieces too small for the {asked}; "
            "try PYTORCH_ALLOC_CONF=expandable_segments:True."
        )
    of = f" of the card's {format_size(total)}" if total else ""
    return (
        f"Tensors of this process hold {format_size(message.allocated_bytes)}{of}, and the {asked} did not fit beside "
        "them; a smaller batch needs less."
    )


def _snapshot_of_card(message: OomMessage, owners: Mapping[int, tuple[str, str]]) -> dict[str, Any] | None:
    import torch

    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    snapshot: dict[str, Any] = torch.cuda.memory._snapshot()
    free, total = torch.cuda.mem_get_info()
    snapshot[NOTED] = {
        "total_bytes": total,
        "others_bytes": message.others_bytes,
        "request_bytes": message.request_bytes,
        "device_free_bytes": message.free_bytes if message.free_bytes is not None else free,
        "owners": [[address, kind, name] for address, (kind, name) in owners.items()],
    }
    return snapshot


def _owners(model: Any, optimizers: Iterable[Any], average: Any) -> Iterator[tuple[int, tuple[str, str]]]:
    """By address of its memory, what each tensor is for, and whose it is."""
    for kind, network in (("parameters", model), ("copy of the network", average)):
        if network is None:
            continue
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            yield tensor.untyped_storage().data_ptr(), (kind, name.rpartition(".")[0])
            if getattr(tensor, "grad", None) is not None:
                yield tensor.grad.untyped_storage().data_ptr(), ("gradients", name.rpartition(".")[0])
    for optimizer in optimizers:
        for state in optimizer.state.values():
            for value in state.values() if isinstance(state, Mapping) else ():
                if hasattr(value, "untyped_storage"):
                    yield value.untyped_storage().data_ptr(), ("optimizer state", type(optimizer).__name__)


def _lines(found: Iterable[Postmortem]) -> Iterator[str]:
    for one in found:
        yield heading(one)
        yield from (f"  {format_size(part.size_bytes):>9}  {part.kind}" for part in one.kinds)
        yield from (f"  {format_size(part.size_bytes):>9}  allocator: {part.name}" for part in one.allocator)
        yield from (finding.sentence for finding in one.findings[1:])
        if one.lever_sentence:
            yield one.lever_sentence
    yield f"More: vramfit explain {SNAPSHOT} --html why.html"
