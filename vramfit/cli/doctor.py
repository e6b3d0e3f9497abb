"""`vramfit doctor`: this machine as vramfit sees it, in a block fit for a bug report."""

from typing import TYPE_CHECKING, Any

import typer

from vramfit.cli.options import AsJson
from vramfit.cli.progress import working
from vramfit.cli.results import next_step
from vramfit.units import format_size

if TYPE_CHECKING:
    from vramfit.measure.device import Device

# The distribution that vramfit comes in, and one of its dependencies that has several names.
_DISTRIBUTION = "vramfit-trainer"
_OPENCV = "opencv-python"


def doctor(*, as_json: AsJson = False) -> None:
    """Say what this machine has: card, driver, free memory, who uses it, versions and settings.

    Changes nothing, and works without a GPU. Copy its output into a bug report.
    """
    import json

    with working("looking at this machine"):
        report = examine()
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    for line in _lines(report):
        typer.echo(line)
    todo = "vramfit probe measures what fits" if report["cards"] else "vramfit probe --gpu CARD predicts what would fit"
    next_step(todo, as_json=as_json)


def examine() -> dict[str, Any]:
    """The whole report as plain values: versions, settings, cards and advice."""
    from vramfit._version import __version__
    from vramfit.measure.machine import read_machine

    devices, why_none = _devices()
    machine = read_machine(devices[0] if devices else None)
    cards = [_card(device) for device in devices]
    advice = [sentence for device in devices for sentence in _advice(device)]
    return {
        "vramfit": __version__,
        "machine": machine.model_dump(mode="json"),
        "packages": {name: _version(name) for name in _dependencies()} | {"opencv": _opencv()},
        "cards": cards,
        "advice": [why_none] if why_none else advice,
    }


def _devices() -> tuple[list["Device"], str | None]:
    """Every card that CUDA shows; or none, and the sentence that says why."""
    import torch

    from vramfit.errors import NoUsableGpu
    from vramfit.measure.device import local_device

    try:
        first = local_device(0)
        return [first, *(local_device(index) for index in range(1, torch.cuda.device_count()))], None
    except NoUsableGpu as error:
        return [], str(error)


def _card(device: "Device") -> dict[str, Any]:
    reading = device.read()
    return {
        "index": device.index,
        "name": device.name,
        "known_as": _known_as(device),
        "total_bytes": reading.total_bytes,
        "driver_bytes": reading.driver_bytes,
        "free_bytes": reading.free_bytes,
        "driver_model": device.driver_model,
        "can_spill": device.can_spill,
        "processes": [
            {"pid": process.pid, "name": process.name, "used_bytes": process.used_bytes}
            for process in reading.processes
        ],
        "notes": list(device.notes),
    }


def _known_as(device: "Device") -> str | None:
    from vramfit.cards import find_card
    from vramfit.errors import UnknownCard

    try:
        return find_card(device.name, total_bytes=device.total_bytes).name
    except UnknownCard:
        return None


def _dependencies() -> list[str]:
    """What vramfit's metadata says that it needs, without its extras; nothing where it is not installed."""
    import re
    from importlib.metadata import PackageNotFoundError, requires

    try:
        needed = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:
        return []
    names = [re.split(r"[^\w.-]", line)[0] for line in needed if "extra ==" not in line]
    return [name for name in names if name != _OPENCV]


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _opencv() -> str | None:
    """OpenCV is sold under several names; the module knows its own version."""
    try:
        import cv2
    except ImportError:
        return None
    return str(cv2.__version__)


def _advice(device: "Device") -> list[str]:
    advice = []
    if device.can_spill:
        advice.append(
            f"{device.name}: this Windows driver may move memory to system RAM instead of failing, many times slower;"
            " in the NVIDIA control panel set 'CUDA - Sysmem Fallback Policy' to 'Prefer No Sysmem Fallback'."
        )
    if _known_as(device) is None:
        advice.append(f"{device.name}: not in the table of cards, so it can be measured but not predicted.")
    return advice


def _lines(report: dict[str, Any]) -> list[str]:
    machine = report["machine"]
    packages = [f"{name} {version or 'missing'}" for name, version in report["packages"].items()]
    lines = [
        f"vramfit     {report['vramfit']}",
        f"python      {machine['python']} on {machine['platform']}",
        f"torch       {machine['torch']}, CUDA {machine['cuda'] or 'none'}, cuDNN {machine['cudnn'] or 'none'}",
        f"packages    {', '.join(packages)}",
        f"allocator   {machine['allocator_settings'] or 'default settings'}",
        f"driver      {machine['driver'] or 'none'}",
    ]
    cards = [line for card in report["cards"] for line in _card_lines(card)] or ["card        none"]
    return [*lines, *cards, *(f"advice      {sentence}" for sentence in report["advice"])]


def _card_lines(card: dict[str, Any]) -> list[str]:
    model = f", driver model {card['driver_model']}" if card["driver_model"] else ""
    sizes = ", ".join(
        f"{format_size(card[key])} {word}"
        for key, word in (("total_bytes", "in all"), ("driver_bytes", "kept by the driver"), ("free_bytes", "free"))
    )
    users = [
        f"  in use by {process['name'] or 'a program'} (pid {process['pid']}): "
        + (format_size(process["used_bytes"]) if process["used_bytes"] is not None else "the driver does not say")
        for process in card["processes"]
    ]
    notes = [f"  {note}" for note in card["notes"]]
    return [f"card {card['index']}      {card['name']}{model}", f"  {sizes}", *users, *notes]
