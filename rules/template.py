"""What a target receives of an event: all of it, a fixed text, the value at a path, or a template filled in.

Theory of operation. A template is cut once, when its target is read, into literal pieces and slots, so that rendering
is a lookup per slot and one join. What a slot writes depends on where it stands:

* *in an object template, outside quotes*: the JSON of the value; `""` for what is missing;
* *in an object template, inside quotes*: text with JSON escapes; objects and arrays as they are, quotes included, which
  makes the result invalid, as on AWS;
* *in any other template*: bare text, nothing escaped; objects and arrays lose their quotes.

AWS does not mend what comes out, it looks whether it is JSON (one value, or several on lines of their own) and fails
the delivery for good when it is not. Names that nothing defines stay in the text as they are, brackets included.

Numbers leave as they were written in the event; `rules.exact` explains how.
"""

import json
import re
from bisect import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from rules import exact
from rules.errors import RulesError
from rules.paths import MISSING, Path, PathError

INVALID_JSON_CODE = "INVALID_JSON"
INVALID_JSON_MESSAGE = "Invalid input for target."


class TemplateError(RulesError):
    """An input member that PutTargets refuses; the text is AWS's message."""


@dataclass(slots=True)
class Rendering:
    """One event on its way to the targets of one rule; its body is parsed when first needed, and once.

    `body` is the event as stored, compact; `ingestion_ms` is the epoch time of its acceptance.
    """

    body: bytes
    rule_name: str
    rule_arn: str
    ingestion_ms: int
    _event: Any = field(default=MISSING, init=False, repr=False)

    @property
    def event(self) -> Any:
        """The parsed body, its numbers kept as `rules.exact.load` keeps them."""
        if self._event is MISSING:
            self._event = exact.load(self.body)
        return self._event


@dataclass(frozen=True, slots=True)
class Dropped:
    """Nothing is sent, and nothing has failed."""


@dataclass(frozen=True, slots=True)
class InvalidJson:
    """The delivery fails for good with INVALID_JSON; `body`, the broken text, goes to the dead-letter queue."""

    body: bytes


Rendered = bytes | Dropped | InvalidJson


class Input(Protocol):
    """What a target does with the event before it is sent."""

    @property
    def whole_event(self) -> bool:
        """True when the body goes out untouched, so that nobody needs to call `render`."""

    def render(self, event: Rendering) -> Rendered:
        """Make the body for the target."""


@dataclass(frozen=True, slots=True)
class WholeEvent:
    """No input member: the event itself."""

    whole_event = True

    def render(self, event: Rendering) -> Rendered:
        return event.body


@dataclass(frozen=True, slots=True)
class FixedInput:
    """Input: a text of its own, white space included; with an empty one AWS sends nothing."""

    text: bytes
    whole_event = False

    def render(self, event: Rendering) -> Rendered:
        return self.text or Dropped()


@dataclass(frozen=True, slots=True)
class PathInput:
    """InputPath: the JSON of one value; an empty path, a missing and a null value all give an empty object."""

    path: Path | None
    whole_event = False

    def render(self, event: Rendering) -> Rendered:
        if self.path is None:
            return b"{}"
        if self.path.is_whole:
            return event.body
        value = self.path.find(event.event)
        return b"{}" if value is None or value is MISSING else exact.dump(value)


Variable = Callable[[Rendering], Any]
Writer = Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a template: what is put there, and how it is written there."""

    variable: Variable
    write: Writer


@dataclass(frozen=True, slots=True)
class TransformerInput:
    """InputTransformer: literal pieces and slots, in the order of the template."""

    pieces: tuple[str | Slot, ...]
    whole_event = False

    def render(self, event: Rendering) -> Rendered:
        text = "".join(piece if isinstance(piece, str) else piece.write(piece.variable(event)) for piece in self.pieces)
        if not text.strip():
            return Dropped()
        body = text.encode("utf-8", "backslashreplace")
        return body if _is_json_lines(text) else InvalidJson(body)


# --- variables and how they are written ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _RawJson:
    """JSON of an object that is known already."""

    text: str


def _at_path(path: Path, event: Rendering) -> Any:
    return path.find(event.event)


def _ingestion_time(event: Rendering) -> str:
    seconds, milliseconds = divmod(event.ingestion_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def _event_without_detail(event: Rendering) -> dict[str, Any]:
    body = event.event
    return {
        "id": body["id"],
        "account": body["account"],
        "detailType": body["detail-type"],
        "time": int(datetime.fromisoformat(body["time"]).timestamp()) * 1000,
        "source": body["source"],
        "region": body["region"],
        "resources": body["resources"],
        "version": body["version"],
    }


_EVENT_JSON = "aws.events.event.json"
_RESERVED: dict[str, Variable] = {
    "aws.events.rule-name": lambda event: event.rule_name,
    "aws.events.rule-arn": lambda event: event.rule_arn,
    "aws.events.event.ingestion-time": _ingestion_time,
    "aws.events.event": _event_without_detail,
    _EVENT_JSON: lambda event: _RawJson(event.body.decode()),
}


def _write_json(value: Any) -> str:
    if type(value) is _RawJson:
        return value.text
    return '""' if value is MISSING else exact.dump(value).decode()


def _write_in_quotes(value: Any) -> str:
    if value is MISSING:
        return ""
    written = _write_json(value)
    return written[1:-1] if type(value) is str else written


def _write_text(value: Any) -> str:
    if type(value) is str:
        return value
    return "" if value is MISSING else _write_json(value).replace('"', "")


# --- templates -------------------------------------------------------------------------------------------------------

_PLACEHOLDER = re.compile(r"<([A-Za-z0-9_.\-]+)>")
# A string without an end runs to the end of the text, so that no character is looked at twice.
_STRING = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z))([ \t\r\n]*:)?', re.DOTALL)


def _is_object_template(template: str) -> bool:
    return template.lstrip(" \t\r\n").startswith("{")


def _cut(template: str, variables: Mapping[str, Variable]) -> TransformerInput:
    """Cut a template at the placeholders that have a variable."""
    is_object = _is_object_template(template)
    quoted = [match.span(1) for match in _STRING.finditer(template)] if is_object else []
    pieces: list[str | Slot] = []
    end = 0
    for match in _PLACEHOLDER.finditer(template):
        variable = variables.get(match[1])
        if variable is None:
            continue
        pieces.append(template[end : match.start()])
        pieces.append(Slot(variable, _writer(match.start(), quoted) if is_object else _write_text))
        end = match.end()
    return TransformerInput((*pieces, template[end:]))


def _writer(at: int, quoted: list[tuple[int, int]]) -> Writer:
    before = bisect(quoted, (at,))
    return _write_in_quotes if before and at < quoted[before - 1][1] else _write_json


def _variables(paths: Mapping[str, str]) -> dict[str, Variable]:
    return {**_RESERVED, **{name: partial(_at_path, Path.parse(text)) for name, text in paths.items()}}


def _is_json_lines(text: str) -> bool:
    """Tell one JSON value, or several with line breaks between them, from anything else."""
    if exact.is_value(text):
        return True
    at = 0
    while True:
        start = _skip_space(text, at)
        if start == len(text):
            return at > 0
        if at and "\n" not in text[at:start]:
            return False
        try:
            _, at = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            return False


# --- checks of PutTargets --------------------------------------------------------------------------------------------


def check_input(text: str, target_id: str) -> None:
    """Check Input: JSON, or empty; TemplateError otherwise."""
    if text == "":
        return
    try:
        _, end = _DECODER.raw_decode(text, _skip_space(text, 0))
        if _skip_space(text, end) != len(text):
            raise json.JSONDecodeError("Extra data", text, _skip_space(text, end))
    except (ValueError, RecursionError) as error:
        raise TemplateError(f"JSON syntax error in input for target {target_id}: {_source(text, error)}") from None


def check_path(text: str, target_id: str) -> None:
    """Check InputPath: in the grammar of paths, or empty; TemplateError otherwise."""
    if text != "":
        _check_path(text, target_id)


def check_transformer(template: str, paths: Mapping[str, str] | None, target_id: str) -> None:
    """Check InputTransformer, its paths first; `paths` is None when the target has no InputPathsMap.

    As AWS does, only the first JSON value of the template is read: what follows it shows when an event is rendered.
    TemplateError with the first fault.
    """
    for path in (paths or {}).values():
        _check_path(path, target_id)
    _check_template(template, target_id)
    if any(_PLACEHOLDER.search(key) for key in _keys(template)):
        raise TemplateError(f"InputTemplate placeholder present as a JSON object key for target {target_id}.")
    names = _PLACEHOLDER.findall(template)
    if _EVENT_JSON in names and not _is_object_template(template):
        raise TemplateError(
            f"InputTemplate for target {target_id} contains placeholder {_EVENT_JSON} valid only for JSON template."
        )
    if paths is not None:
        for name in names:
            if name not in paths and name not in _RESERVED:
                raise TemplateError(f"InputTemplate for target {target_id} contains invalid placeholder {name}.")


def _check_path(text: str, target_id: str) -> None:
    try:
        Path.parse(text)
    except PathError:
        raise TemplateError(f"InputPath for target {target_id} is invalid.") from None


def _check_template(template: str, target_id: str) -> None:
    text = _PLACEHOLDER.sub("null", template)
    try:
        start = _skip_space(text, 0)
        _, end = _DECODER.raw_decode(text, start)
        if _GLUED.match(text, end - 1):
            raise json.JSONDecodeError("Unknown word", text, start)
    except (ValueError, RecursionError) as error:
        source = _source(text, error)
        raise TemplateError(f"Invalid InputTemplate for target {target_id} : {source}.") from None


def _keys(template: str) -> list[str]:
    return [string for string, colon in _STRING.findall(template) if colon]


def _source(text: str, error: ValueError | RecursionError) -> str:
    line, column = (error.lineno, error.colno) if isinstance(error, json.JSONDecodeError) else (1, 1)
    return f'[Source: (String)"{text}"; line: {line}, column: {column}]'


def _refuse_constant(constant: str) -> Any:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=str, parse_float=str)
_SPACE = re.compile(r"[ \t\r\n]*")
# The last character of a number or a literal, with more of a word behind it.
_GLUED = re.compile(r"[a-z0-9][\w$.+\-]")


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


# --- compile ---------------------------------------------------------------------------------------------------------


def compile_input(target: Mapping[str, Any]) -> Input:
    """Read Input, InputPath or InputTransformer out of a target that PutTargets has accepted.

    PathError or KeyError for members that the checks above would have refused.
    """
    fixed, path, transformer = (target.get(member) for member in ("Input", "InputPath", "InputTransformer"))
    if fixed is not None:
        return FixedInput(fixed.encode("utf-8", "backslashreplace"))
    if path is not None:
        return PathInput(Path.parse(path) if path else None)
    if transformer is not None:
        return _cut(transformer["InputTemplate"], _variables(transformer.get("InputPathsMap") or {}))
    return WholeEvent()
