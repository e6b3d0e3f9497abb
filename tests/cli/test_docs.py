"""Every verb is documented, the reference is fresh, and the command line is what it was yesterday."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from vramfit.cli.main import GROUPS, VERBS

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), REPOSITORY / "README.md"]
REFERENCE = REPOSITORY / "scripts" / "make_cli_reference.py"


@pytest.mark.parametrize("verb", [*VERBS, *GROUPS])
def test_every_verb_has_a_page(verb):
    page = DOCS / "cli" / f"{verb}.md"
    assert page.is_file(), f"write docs/cli/{verb}.md: what the verb is for, and commands that work"
    assert page.read_text(encoding="utf-8").startswith(f"# vramfit {verb}\n")


def test_no_page_is_left_of_a_verb_that_went():
    assert {page.stem for page in (DOCS / "cli").glob("*.md")} <= {*VERBS, *GROUPS}


def test_the_reference_is_fresh():
    command = [sys.executable, str(REFERENCE), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, "run: python scripts/make_cli_reference.py"


def test_tables_that_quote_the_shipped_profiles_say_what_these_say():
    script = runpy.run_path(str(REPOSITORY / "scripts" / "make_profiles.py"))
    guide = (DOCS / "guide.fa.md").read_text(encoding="utf-8")
    for name, batches in script["GUIDE_TABLES"].items():
        for row in script["guide_rows"](batches):
            assert row in guide, f"table {name} is stale: python scripts/make_profiles.py --tables"
    six = script["margin"](script["trial_of"](script["shipped"](768), 6))
    levers = (DOCS / "levers.md").read_text(encoding="utf-8")
    assert f"| {six} |" in levers, "the table of free levers is stale: python scripts/make_profiles.py"


def test_the_command_line_is_frozen():
    frozen = (REPOSITORY / "tests" / "golden" / "cli.txt").read_text(encoding="utf-8")
    command = [sys.executable, str(REFERENCE), "--list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=True)
    assert done.stdout == frozen, "an option appeared or vanished; if meant: scripts/make_cli_reference.py --freeze"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_the_pages_have_those_options(page):
    known = (REPOSITORY / "tests" / "golden" / "cli.txt").read_text(encoding="utf-8").splitlines()
    for verb, rest in re.findall(r"^(?: {4})?vramfit (\w+)(.*)", page.read_text(encoding="utf-8"), re.MULTILINE):
        options = {
            word.replace("_", "-")
            for word in re.findall(r"--[a-z][a-z_-]+", rest.partition("  #")[0].partition(" -- ")[0])
        }
        for option in options - {"--help", "--debug"}:
            assert any(re.match(rf"vramfit {verb}\b.* {option}\b", line) for line in known), (verb, option)


def test_the_gallery_shows_every_verb_and_no_picture_is_left_over():
    gallery = (DOCS / "gallery.md").read_text(encoding="utf-8")
    for verb in (*VERBS, *GROUPS):
        assert f"`vramfit {verb}" in gallery, f"show {verb} in scripts/make_pictures.py"
    pictures = [file for file in (DOCS / "pictures").rglob("*") if file.is_file()]
    assert {file.relative_to(DOCS).as_posix() for file in pictures} == set(
        re.findall(r"\]\((pictures/[^)]+)\)", gallery)
    )
    assert sum(file.stat().st_size for file in pictures) < 3 * 2**20


def test_the_launchers_say_the_same_and_their_options_exist():
    known = (REPOSITORY / "tests" / "golden" / "cli.txt").read_text(encoding="utf-8").splitlines()
    launchers = [REPOSITORY / "profiles" / f"train_768x768_rtx3070ti.{kind}" for kind in ("sh", "bat")]
    options = [re.findall(r"(?<!\S)--[a-z_]+(?: (?!--)[\w.-]+)*", _code(file)) for file in launchers]
    assert options[0] == options[1]
    assert options[0][0] == "--profile rtx3070ti-768"
    for option in options[0]:
        name = option.split()[0].replace("_", "-")
        assert any(line.startswith("vramfit train ") and name in line.split() for line in known), name


def test_the_windows_launcher_has_windows_line_ends():
    content = (REPOSITORY / "profiles" / "train_768x768_rtx3070ti.bat").read_bytes()
    assert content.count(b"\r\n") == content.count(b"\n") > 0
    assert content.isascii()


def _code(file):
    lines = file.read_text(encoding="utf-8").splitlines()
    return " ".join(line for line in lines if not line.startswith(("#", "rem", "@", "if", "set", "exit"))).replace(
        '"', ""
    )
