"""The documentation names what is there, and what it points to exists."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click
import pytest

from bus.cli import main
from bus.commands.options import subcommands, variables
from bus.config import CLIENT_VARIABLES, Settings, environment_name
from bus.metrics import HELP
from rules import Pattern

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
SETTINGS = (ROOT / "docs/settings.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
README = (ROOT / "README.md").read_text()
EVERYTHING = "\n".join(page.read_text() for page in PAGES)

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def commands(command: click.Command = main, path: str = "busbar") -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that call it, groups left out."""
    if isinstance(command, click.Group):
        for name, each in subcommands(command):
            yield from commands(each, f"{path} {name}")
    else:
        yield path, command


def shown(default: object) -> str:
    """A default as the table writes it."""
    if default is False:
        return "off"
    return "none" if default is None or default == () else f"`{default}`"


class TestSettings:
    @pytest.mark.parametrize("field", fields(Settings), ids=lambda field: field.name)
    def test_every_field_has_its_row(self, field: Field[Any]) -> None:
        name, default, sentence = field.name, field.default, field.metadata["help"]
        option = "--" + name.replace("_", "-")
        assert f"| `{option}` | `{environment_name(name)}` | {shown(default)} | {sentence} |" in SETTINGS

    def test_no_row_is_of_an_option_that_is_gone(self) -> None:
        known = {option for _, command in commands() for each in command.params for option in each.opts}
        assert set(re.findall(r"\| `(--[a-z-]+)` \|", SETTINGS)) <= known

    def test_every_variable_is_named(self) -> None:
        missing = {name for name in variables(main) if f"`{name}`" not in SETTINGS}
        assert missing == set()

    def test_no_variable_is_named_that_nothing_reads(self) -> None:
        known = {*variables(main), *CLIENT_VARIABLES}
        named = set(re.findall(r"\bBUSBAR_[A-Z_]+[A-Z]\b", EVERYTHING))
        assert named <= known


class TestCommands:
    @pytest.mark.parametrize("path", [path for path, _ in commands()])
    def test_every_command_is_shown(self, path: str) -> None:
        assert path in EVERYTHING

    @pytest.mark.parametrize(
        "option",
        sorted(
            {option for _, command in commands() for each in command.params for option in each.opts if "--" in option}
        ),
    )
    def test_every_option_is_in_the_settings(self, option: str) -> None:
        assert f"`{option}`" in SETTINGS


class TestMetrics:
    @pytest.mark.parametrize("name", HELP)
    def test_every_metric_has_its_row(self, name: str) -> None:
        assert re.search(rf"^\| `{name}` \|", OPERATIONS, re.MULTILINE)

    def test_every_gauge_has_its_row(self) -> None:
        gauges = re.findall(r'metrics\.gauge\(\s*"(\w+)"', (ROOT / "bus/composition/operators.py").read_text())
        assert gauges
        for name in gauges:
            assert re.search(rf"^\| `{name}` \|", OPERATIONS, re.MULTILINE), name


class TestLinks:
    @pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
    def test_every_relative_link_leads_somewhere(self, page: Path) -> None:
        for link in LINK.findall(FENCE.sub("", page.read_text())):
            if link.startswith(("http://", "https://")):
                continue
            path, _, anchor = link.partition("#")
            place = (page.parent / path).resolve() if path else page
            assert place.exists(), f"{link} leads nowhere"
            if anchor:
                assert anchor in anchors(place.read_text()), f"{link} names no heading"

    def test_every_page_of_docs_can_be_reached_from_the_readme(self) -> None:
        reached, ahead = set(), [ROOT / "README.md"]
        while ahead:
            page = ahead.pop()
            reached.add(page)
            for link in LINK.findall(page.read_text()):
                place = (page.parent / link.partition("#")[0]).resolve()
                listed = place.glob("*.md") if place.is_dir() else [place]
                ahead += [each for each in listed if each.suffix == ".md" and each not in reached and each.exists()]
        assert set((ROOT / "docs").rglob("*.md")) <= reached


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as they are made from their text."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class TestMake:
    def test_every_target_that_is_named_exists(self) -> None:
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", EVERYTHING, re.MULTILINE))
        assert {"demo", "test", "serve"} <= named
        assert named <= targets


class TestReadme:
    def test_the_first_screen_has_what_the_project_is_and_its_commands(self) -> None:
        first = "\n".join(README.splitlines()[:45])
        assert "busbar is an event bus in one process" in first
        for command in (
            "make demo",
            "make test",
            "make serve",
            "put-rule",
            "put-targets",
            "put-events",
            "receive-message",
        ):
            assert command in first

    def test_the_library_example_is_true(self) -> None:
        (code,) = re.findall(r"```python\n(from rules.*?)```", README, re.DOTALL)
        *lines, last = code.strip().splitlines()
        call, _, answer = last.partition("  # ")
        program = "\n".join([*lines, f"assert {call} == {answer}"])
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)

    def test_the_patterns_on_the_command_line_can_be_read(self) -> None:
        patterns = re.findall(r"(?:--pattern|--event-pattern|test-pattern) '(\{[^']+\})'", EVERYTHING)
        assert patterns
        for pattern in patterns:
            assert Pattern.parse(pattern).forks
