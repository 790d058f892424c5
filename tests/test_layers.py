"""The walls of the house: which module may import which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Longest prefix wins. Modules of one level may import each other only where SAME_LEVEL says so.
LEVELS = {
    "rules": 0,
    "bus": 1,
    "bus.errors": 1,
    "bus.config": 1,
    "bus.clock": 1,
    "bus.metrics": 1,
    "bus.scope": 1,
    "bus.logs": 1,
    "bus.store": 2,
    "bus.targets": 2,
    "bus.accepted": 2,
    "bus.dispatch.pace": 2,
    "bus.dispatch.turns": 2,
    "bus.timetable": 2,
    "bus.pages": 3,
    "bus.quotas": 3,
    "bus.resources": 3,
    "bus.rule_checks": 3,
    "bus.rule_set": 3,
    "bus.target_rules": 3,
    "bus.tags": 3,
    "bus.buses": 3,
    "bus.catalog": 3,
    "bus.wires": 3,
    "bus.origins.partners": 3,
    "bus.queues": 3,
    "bus.watchers": 3,
    "bus.arrival": 3,
    "bus.permissions.principals": 3,
    "bus.permissions": 3,
    "bus.permissions.admission": 3,
    "bus.permissions.governed": 5,
    "bus.archives.archived": 3,
    "bus.archives.listing": 3,
    "bus.archives.replay": 3,
    "bus.archives": 4,
    "bus.archives.playback": 4,
    "bus.archives.replays": 4,
    "bus.schedules": 4,
    "bus.dispatch.letters": 4,
    "bus.endpoints": 3,
    "bus.bus_logs": 3,
    "bus.log_writer": 3,
    "bus.entries": 3,
    "bus.event_kinds": 3,
    "bus.https_endpoint": 3,
    "bus.connections": 3,
    "bus.api_destinations": 3,
    "bus.dispatch.lane": 4,
    "bus.dispatch.settling": 4,
    "bus.dispatch.aging": 4,
    "bus.dispatch.tally": 4,
    "bus.put_request": 3,
    "bus.intake": 3,
    "bus.ingest": 4,
    "bus.endpoints.entry": 4,
    "bus.dispatch": 4,
    "bus.dead_letters": 4,
    "bus.origins.partner_events": 4,
    "bus.origins.service_events": 4,
    "bus.origins.cloudtrail": 4,
    "bus.scheduler": 4,
    "bus.api": 5,
    "bus.composition": 6,
    "bus.app": 6,
    "bus.server": 6,
    "bus.protocol": 6,
    "bus.client": 6,
    "bus.sources": 6,
    "bus.origins": 3,
    "bus.commands": 6,
    "bus.cli": 6,
    "bus.__main__": 6,
}

# The implementations of a protocol stand above it, in its folder.
LEVELS |= {f"bus.targets.{path.stem}": 5 for path in (ROOT / "bus" / "targets").glob("*.py") if path.stem != "__init__"}

# Capabilities do not know each other: what one needs of another arrives as a callable.
STRANGERS = {
    "bus.buses", "bus.catalog", "bus.wires", "bus.queues", "bus.ingest", "bus.dispatch", "bus.dead_letters",
    "bus.origins.partners",
    "bus.connections", "bus.api_destinations",
    "bus.scheduler",
    "bus.archives", "bus.archives.replays",
    "bus.endpoints",
}  # fmt: skip

PURE_STDLIB = {
    "__future__", "abc", "ast", "base64", "binascii", "bisect", "calendar", "collections", "contextlib", "copy",
    "dataclasses", "datetime", "decimal", "email", "enum", "functools", "hashlib", "hmac", "ipaddress",
    "itertools", "json", "math", "operator", "re", "string", "struct", "time", "types", "typing", "unicodedata",
    "uuid", "weakref",
}  # fmt: skip
PURE_PACKAGES = {"jmespath", "msgspec", "orjson", "tenacity"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in ("rules", "bus"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def level(module: str) -> int:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        found = LEVELS.get(".".join(parts[:length]))
        if found is not None and not (length == 1 and parts[0] == "bus" and len(parts) > 1):
            return found
    raise AssertionError(f"{module} has no level: give it one in LEVELS")


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if (ROOT / Path(*inner.split("."))).with_suffix(".py").exists() else str(node.module)


MODULES = list(modules())


@pytest.mark.parametrize(("name", "tree"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_never_run_upwards(name: str, tree: ast.Module) -> None:
    for imported in imports(tree):
        if imported.split(".")[0] in ("rules", "bus"):
            assert level(imported) <= level(name), f"{name} imports {imported}, which stands above it"


@pytest.mark.parametrize(("name", "tree"), MODULES, ids=[name for name, _ in MODULES])
def test_capabilities_do_not_know_each_other(name: str, tree: ast.Module) -> None:
    if name in STRANGERS:
        others = {imported for imported in imports(tree) if imported in STRANGERS and imported != name}
        assert not others, f"{name} imports {others}"


@pytest.mark.parametrize(("name", "tree"), MODULES, ids=[name for name, _ in MODULES])
def test_our_packages_are_imported_at_the_top(name: str, tree: ast.Module) -> None:
    for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)):
        inner = ast.Module(body=list(function.body), type_ignores=[])
        ours = [imported for imported in imports(inner) if imported.split(".")[0] in ("rules", "bus")]
        assert not ours, f"{name}.{function.name} imports {ours} inside a function"


@pytest.mark.parametrize(("name", "tree"), MODULES, ids=[name for name, _ in MODULES])
def test_rules_is_pure(name: str, tree: ast.Module) -> None:
    if name.split(".")[0] == "rules":
        roots = {imported.split(".")[0] for imported in imports(tree)}
        assert roots <= PURE_STDLIB | PURE_PACKAGES | {"rules"}, f"{name} imports {roots}"
