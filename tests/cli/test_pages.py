"""Every page that a verb writes, as a browser shows it: on a narrow screen and a wide one, light and dark."""

import contextlib
import io
import os
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from damaged_films import FAULTS, Damage
from made_checkpoint import make_checkpoint
from made_records import make_profile, make_trial
from made_reports import SYMBOLS, make_judged

from vramfit.cards import CARDS
from vramfit.cli.main import app
from vramfit.landmarks.report.evaluation_page import evaluation_page
from vramfit.landmarks.sample.make import make_sample
from vramfit.prediction.frontier import Frontier, FrontierRow
from vramfit.probe.which_card import CardChoice, WhichCard
from vramfit.records import Lever, Schedule, Verdict
from vramfit.report.probe_page import cases_page, probe_page
from vramfit.report.which_card import choices_page
from vramfit.units import GIB

BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SNAPSHOT = Path(__file__).resolve().parents[1] / "golden" / "snapshot.pickle"
SMALLEST_LETTER = 9  # pixels of a screen
PAPER = "rgb(255, 255, 255)"
PAPER_WIDE = 673  # A4 without the margins of `@page`
NARROW, WIDE = 390, 1280

# What a drawing's words must not do: leave it, be too small to read, or lie over others.
FAULTS_OF_WORDS = """smallest => [...document.querySelectorAll('svg')].flatMap(drawing => {
  const found = [], frame = drawing.getBoundingClientRect();
  const words = [...drawing.querySelectorAll('text')].filter(one => one.textContent);
  const boxes = words.map(one => one.getBoundingClientRect());
  words.forEach((one, place) => {
    const box = boxes[place], size = parseFloat(getComputedStyle(one).fontSize) * one.getScreenCTM().a;
    if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1
        || box.bottom > frame.bottom + 1) found.push('cut: ' + one.textContent);
    if (size < smallest) found.push(`${size.toFixed(1)} px: ${one.textContent}`);
    boxes.slice(0, place).forEach((other, before) => {
      const wide = Math.min(box.right, other.right) - Math.max(box.left, other.left);
      const high = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top);
      if (wide > 1 && high > 3) found.push(`over another: ${one.textContent}, ${words[before].textContent}`);
    });
  });
  return found;
})"""


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; CHROMIUM names another one."""
    playwright = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("no Chromium is here")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of every kind, by its name: of small jobs and films, and of what is awkward to draw."""
    folder = tmp_path_factory.mktemp("pages")
    films = make_sample(folder / "films", films=16, height=128)
    checkpoints = [str(make_checkpoint(films, folder / f"{seed}.pth", seed=seed)) for seed in (0, 1)]
    spoiled = Path(shutil.copytree(films, folder / "spoiled"))
    for kind in ("swapped_points", "point_outside", "raters_apart", "unreadable_film"):
        FAULTS[kind](Damage(spoiled))
    for name, words in commands(films, spoiled, checkpoints, folder / "cache").items():
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            app([*words, "--html", str(folder / f"{name}.html")], prog_name="vramfit", standalone_mode=False)
    for number in range(2):
        (folder / f"{number:03}.png").write_bytes(cv2.imencode(".png", np.full((240, 200), 99, np.uint8))[1])
    for name, text in made_by_hand(folder).items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {file.stem: file for file in folder.glob("*.html")}


def commands(films, spoiled, checkpoints, cache):
    """Words of the verbs that write pages."""
    small = ("--model", "timm:test_resnet", "--image-size", "32")
    judged = ("evaluate", checkpoints[0], "--dataset-path", str(films), "--device", "cpu", "--cache-dir", str(cache))
    return {
        "probe": ("probe", *small, "--gpu", "t4"),
        "explain": ("explain", *small, "--gpu", "t4", "--batch-size", "2"),
        "snapshot": ("explain", str(SNAPSHOT)),
        "evaluation": (*judged, "--compare", checkpoints[1]),
        "check": ("data", "check", str(spoiled)),
    }


def made_by_hand(folder):
    """Pages that would take long to come about: levers to choose from, no memory left, many cards, few landmarks."""
    trials = [make_trial(number, verdict=Verdict.FITS if number < 9 else Verdict.OOM) for number in range(1, 10)]
    trials[-1] = trials[-1].model_copy(update={"device_used_bytes": None, "step_time_s": None})
    sizes = [round((7 + 0.25 * number) * GIB) for number in range(8)]
    rows = [
        FrontierRow(
            label=f"choice {number}",
            levers=(Lever(name="half_upsample"),) * number,
            trial=make_trial(
                6,
                device_used_bytes=size,
                device_used_band_bytes=(size - GIB, size + GIB),
                step_time_s=0.3 + number / 100,
            ),
            reason="exceeds the budget by some GiB, and is slower per image by a good deal",
            chosen=number == 0,
        )
        for number, size in enumerate(sizes)
    ]
    profile = make_profile(8, trials=tuple(trials))
    errors = np.random.default_rng(0).gamma(3, 0.5, size=(2, 4))
    return {
        "levers": probe_page(profile, Frontier(rows=tuple(rows))),
        "oom": probe_page(profile),
        "sizes": cases_page("image", [("768x768", profile), ("1024x1024", None)]),
        "cards": choices_page(many_cards(), "Every card"),
        "films": evaluation_page(
            make_judged(errors, folder, landmarks=dict.fromkeys(SYMBOLS, "A landmark of a long name"))
        ),
    }


def many_cards():
    """Every card, as quick as it has memory; three of them picked."""
    choices = [
        CardChoice(
            card=card,
            trial=make_trial(6, budget_gib=card.sold_gib),
            accumulation_steps=1,
            run_time_s=36_000 / card.sold_gib + place,
            run_time_band_s=(30_000 / card.sold_gib, 40_000 / card.sold_gib + place),
            price_per_hour=0.1 * card.sold_gib,
        )
        for place, card in enumerate(CARDS)
    ]
    holds = tuple(sorted(choices, key=lambda choice: choice.run_time_s))
    picks = {"fastest": holds[0], "cheapest": holds[len(holds) // 2], "smallest": holds[-1]}
    return WhichCard(holds, (), picks, Schedule(images=700, epochs=200))


def test_every_verb_that_writes_a_page_is_here():
    writing = {
        path for path, command in verbs(typer.main.get_command(app)) if any(p.name == "html" for p in command.params)
    }
    assert {
        words[:2] if words[0] == "data" else words[:1] for words in commands("", "", ("", ""), "").values()
    } == writing


def verbs(group, path=()):
    for name, command in group.commands.items():
        yield from verbs(command, (*path, name)) if hasattr(command, "commands") else [((*path, name), command)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_a_page_is_silent_and_whole_and_prints_on_white(browser, pages, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, told = context.new_page(), []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: told.extend([] if request.url.startswith(("file:", "data:")) else [request.url]))
    for name, file in pages.items():
        page.goto(file.as_uri())
        assert told == [], name
        wide, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= room == width, name
        assert page.evaluate(FAULTS_OF_WORDS, SMALLEST_LETTER) == [], (name, width)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == (PAPER if scheme == "light" else "rgb(21, 21, 21)"), name
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == PAPER, name
        assert page.locator(".save:visible").count() == 0, name
        page.set_viewport_size({"width": PAPER_WIDE, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == PAPER_WIDE, name
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(media="screen")
    context.close()


def test_a_drawing_is_kept_in_the_colours_of_paper_and_a_table_as_csv(browser, pages, tmp_path):
    context = browser.new_context(color_scheme="dark", accept_downloads=True)
    page = context.new_page()
    page.goto(pages["oom"].as_uri())
    for words in ("SVG", "CSV"):
        with page.expect_download() as download:
            page.get_by_role("button", name=words).first.click()
        download.value.save_as(tmp_path / words)
    drawing = ET.parse(tmp_path / "SVG").getroot()
    assert (drawing.get("width"), drawing.get("height")) == ("400", "280")
    first = drawing.find(".//{*}polyline[@class='line first']").get("style")
    assert "stroke:rgb(31, 95, 153)" in first.replace(": ", ":")
    lines = (tmp_path / "CSV").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith('"batch","allocated GiB"')
    assert len(lines) == 10
    assert page.evaluate("document.documentElement.className") == ""
    context.close()


def test_what_is_wider_than_the_screen_can_be_scrolled(browser, pages):
    context = browser.new_context(viewport={"width": NARROW, "height": 900})
    page = context.new_page()
    page.goto(pages["cards"].as_uri())
    hidden = page.evaluate(
        "[...document.querySelectorAll('.wide,.scrolls')].map(one => [one.scrollWidth > one.clientWidth,"
        " getComputedStyle(one).overflowX, getComputedStyle(one).backgroundImage.includes('gradient')])"
    )
    assert hidden
    assert all(one == [True, "auto", True] for one in hidden)
    context.close()
