"""`vramfit doctor`, with and without a card."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from vramfit.cli import doctor as verb
from vramfit.errors import NoUsableGpu
from vramfit.measure import device as devices
from vramfit.measure.device import Device, DeviceProcess, Reading
from vramfit.units import GIB


class Laptop(Device):
    index = 0
    driver_version = "560.10"
    driver_model = "WDDM"
    notes = ("NVML refuses a figure.",)

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self) -> Reading:
        users = (DeviceProcess(7, "game.exe", None), DeviceProcess(8, None, GIB))
        return Reading(8 * GIB, 5 * GIB, GIB // 4, users)


@pytest.fixture
def no_card(monkeypatch):
    def refuse(index=0):
        raise NoUsableGpu("No usable NVIDIA GPU is here.")

    monkeypatch.setattr(devices, "local_device", refuse)


@pytest.fixture
def one_card(monkeypatch):
    monkeypatch.setattr(verb, "_devices", lambda: ([Laptop("NVIDIA GeForce RTX 3070 Ti")], None))


def test_without_a_card_it_says_why_and_what_still_works(vramfit, no_card):
    outcome = vramfit("doctor")
    assert outcome.code == 0
    assert "card        none" in outcome.out
    assert "advice      No usable NVIDIA GPU is here." in outcome.out


def test_json_is_one_document(vramfit, no_card):
    report = json.loads(vramfit("doctor", "--json").out)
    assert report["cards"] == []
    assert report["machine"]["torch"]
    assert report["packages"]["timm"]


def test_every_dependency_is_listed_and_no_extra(vramfit, no_card):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split("[<>=]", line)[0] for line in project["dependencies"]}
    listed = set(json.loads(vramfit("doctor", "--json").out)["packages"])
    assert listed == names - {"opencv-python"} | {"opencv"}


def test_uninstalled_it_lists_what_it_can(monkeypatch):
    monkeypatch.setattr(verb, "_DISTRIBUTION", "no-such-distribution")
    assert verb._dependencies() == []


def test_a_card_is_told_with_its_users_and_its_driver_model(vramfit, one_card):
    out = vramfit("doctor").out
    for words in (
        "NVIDIA GeForce RTX 3070 Ti, driver model WDDM",
        "8.00 GiB in all, 256 MiB kept by the driver, 5.00 GiB free",
        "in use by game.exe (pid 7): the driver does not say",
        "in use by a program (pid 8): 1.00 GiB",
        "NVML refuses a figure.",
        "Prefer No Sysmem Fallback",
        "driver      560.10",
    ):
        assert words in out
    assert json.loads(vramfit("doctor", "--json").out)["cards"][0]["free_bytes"] == 5 * GIB


def test_a_card_that_no_table_has_is_said(vramfit, monkeypatch):
    monkeypatch.setattr(verb, "_devices", lambda: ([Laptop("NVIDIA Unheard Of 1")], None))
    assert "not in the table of cards" in vramfit("doctor").out


def test_allocator_settings_are_shown(vramfit, no_card, monkeypatch):
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:128")
    assert "allocator   max_split_size_mb:128" in vramfit("doctor").out
