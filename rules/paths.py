"""AWS's subset of JSONPath, compiled once to JMESPath.

    path := "$" step*
    step := "." name | "[" digits "]" | "[*]"
    name := one or more of A-Z a-z 0-9 _ - /

JMESPath answers null for a missing member and for a null one, and its projections leave nulls out; AWS tells the two
apart. So expressions run in an interpreter of JMESPath's syntax tree that answers `MISSING` for what is not there. Its
`[*]` collects, as a JSONPath does, every match in one flat array, nulls too; elements without a match leave nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Final

import jmespath  # type: ignore[import-untyped]  # the package ships no annotations
from jmespath.visitor import TreeInterpreter  # type: ignore[import-untyped]

from rules.errors import RulesError
from rules.event import load_json

MAX_CHARS = 256


class PathError(RulesError):
    """A text outside the grammar of paths."""


class _Missing(Enum):
    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing.MISSING

_STEP = r"\.[A-Za-z0-9_\-/]+|\[[0-9]+\]|\[\*\]"
_PATH = re.compile(rf"\$(?:{_STEP})*")
_STEPS = re.compile(_STEP)


@dataclass(frozen=True, slots=True)
class Path:
    """A path that was accepted; `find` may be called with any event, from any depth of nesting."""

    text: str
    tree: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str) -> "Path":
        """Compile a path; PathError outside the grammar, or beyond the 256 characters AWS allows."""
        if len(text) > MAX_CHARS or _PATH.fullmatch(text) is None:
            raise PathError(f"{text!r} is not a path such as $.detail.items[0].name")
        return cls(text, jmespath.compile("@" + "".join(map(_to_jmespath, _STEPS.findall(text)))).parsed)

    @property
    def is_whole(self) -> bool:
        """Tell whether the path points to the event itself."""
        return self.text == "$"

    def find(self, event: Any) -> Any:
        """Answer the value the path points to, None for a null, `MISSING` where there is nothing."""
        found = _INTERPRETER.visit(self.tree, event)
        return list(found) if type(found) is _Matches else found


def _to_jmespath(step: str) -> str:
    if step[0] == ".":
        return f'."{step[1:]}"'
    return step if step == "[*]" else f"[{int(step[1:-1])}]"


class _Matches(list[Any]):
    """What a projection found, as opposed to an array of the event."""


class _Interpreter(TreeInterpreter):  # type: ignore[misc]  # its base has no annotations
    """JMESPath's interpreter with absence for an answer."""

    def visit_field(self, node: Mapping[str, Any], value: Any) -> Any:
        return value.get(node["value"], MISSING) if isinstance(value, dict) else MISSING

    def visit_index(self, node: Mapping[str, Any], value: Any) -> Any:
        at = node["value"]
        return value[at] if isinstance(value, list) and at < len(value) else MISSING

    def visit_projection(self, node: Mapping[str, Any], value: Any) -> Any:
        array, rest = node["children"]
        elements = self.visit(array, value)
        if not isinstance(elements, list):
            return MISSING
        matches = _Matches()
        for element in elements:
            match = self.visit(rest, element)
            if type(match) is _Matches:
                matches.extend(match)
            elif match is not MISSING:
                matches.append(match)
        return matches


_INTERPRETER = _Interpreter()

_parse_once = lru_cache(1024)(Path.parse)


def read_path(text: str, event: bytes) -> Any:
    """Answer the value a path points to in an event's body, None where there is a null or nothing.

    For parameters of targets; a text outside the grammar raises PathError.
    """
    value = _parse_once(text).find(load_json(event))
    return None if value is MISSING else value
