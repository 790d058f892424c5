"""A streaming JSON reader for event patterns, as lazy as the one behind AWS's answers.

AWS reports the first fault in document order, and says how far its reader had come. Both follow from four habits that
this reader shares:

* one token at a time: a fault of meaning beats a fault of syntax further on;
* a string token is known by its opening quote alone; its text is read when asked for, or skipped with the next token;
* a member name comes with the first token of its value already read, which the next call then hands out;
* nothing is read after the token asked for, so text behind the closing brace of the root is never seen.

`TokenReader.next` answers one of the kinds below; `string` and `lexeme` hold the text of the token just answered.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final, NoReturn

from rules.errors import PatternError

OBJECT: Final = "{"
OBJECT_END: Final = "}"
ARRAY: Final = "["
ARRAY_END: Final = "]"
NAME: Final = "name"
STRING: Final = "string"
NUMBER: Final = "number"
TRUE: Final = "true"
FALSE: Final = "false"
NULL: Final = "null"
END: Final = ""

DEPTH_LIMIT = 1000
NUMBER_LENGTH_LIMIT = 1000

_TOKENS = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')"
_EXPECTED_VALUE = f"expected a valid value {_TOKENS}"
_COMMENT = (
    "maybe a (non-standard) comment? (not recognized as one since Feature 'ALLOW_COMMENTS' not enabled for parser)"
)
_PLUS = (
    "JSON spec does not allow numbers to have plus signs: "
    "enable `JsonReadFeature.ALLOW_LEADING_PLUS_SIGN_FOR_NUMBERS` to allow"
)
_WORDS = {"t": TRUE, "f": FALSE, "n": NULL}
_NON_NUMBERS = {"N": "NaN", "I": "Infinity"}
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(r"[0-9]*")
_LINE_END = re.compile(r"\r\n|\r|\n")
_HEX = frozenset("0123456789abcdefABCDEF")


@dataclass(slots=True)
class _Scope:
    """An object or array that is being read: its kind, where it began, how many entries were begun."""

    kind: str
    start: int
    entries: int = 0

    @property
    def word(self) -> str:
        return "Object" if self.kind == OBJECT else "Array"


class TokenReader:
    """Reads the tokens of one pattern text; every refusal is a PatternError."""

    __slots__ = ("_pending", "_pending_start", "_scopes", "_string_open", "lexeme", "name", "position", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.name = ""
        self.lexeme = ""
        self._scopes: list[_Scope] = []
        self._pending = ""
        self._pending_start = 0
        self._string_open = False

    # Where and what went wrong

    def tail(self, position: int | None = None) -> str:
        """The location AWS appends to a reason: source, line and column behind the last character read."""
        return "\n at " + self._location(self.position if position is None else position)

    def fail(self, headline: str) -> NoReturn:
        raise PatternError(headline + self.tail())

    def _location(self, position: int) -> str:
        line, start = 1, 0
        for end in _LINE_END.finditer(self.text, 0, position):
            line, start = line + 1, end.end()
        column = utf16_length(self.text[start:position]) + 1
        return f'[Source: (String)"{self.text}"; line: {line}, column: {column}]'

    def _unexpected(self, char: str, comment: str, *, where: str = "") -> NoReturn:
        """Refuse a character just read; the column is that of the character itself."""
        message = f"Unexpected character ({_describe(char)}){where}: {comment}"
        raise PatternError(message + self.tail(self.position - 1))

    def _unexpected_end(self, where: str) -> NoReturn:
        self.position = len(self.text)
        self.fail(f"Unexpected end-of-input{where}")

    # Tokens

    def next(self) -> str:
        """Read the next token and answer its kind."""
        if self._pending:
            kind, self._pending = self._pending, ""
            return self._enter(kind, self._pending_start)
        if self._string_open:
            self.string()
        char = self._significant()
        if not char:
            return self._end()
        if char in "}]":
            return self._close(char)
        scope = self._scopes[-1] if self._scopes else None
        if scope is not None:
            char = self._separated(scope, char)
        if scope is None or scope.kind != OBJECT:
            start = self.position - 1
            return self._enter(self._value(char), start)
        self._read_name(char)
        char = self._colon()
        self._pending_start = self.position - 1
        self._pending = self._value(char)
        return NAME

    def string(self) -> str:
        """The text of the string token just answered."""
        if self._string_open:
            self._string_open = False
            self.lexeme = self._quoted(": was expecting closing quote for a string value", "string value")
        return self.lexeme

    def _enter(self, kind: str, start: int) -> str:
        if kind in (OBJECT, ARRAY):
            self._scopes.append(_Scope(kind, start))
            if len(self._scopes) > DEPTH_LIMIT:
                self.fail(
                    f"Document nesting depth ({len(self._scopes)}) exceeds the maximum allowed "
                    f"({DEPTH_LIMIT}, from `StreamReadConstraints.getMaxNestingDepth()`)"
                )
        return kind

    def _close(self, char: str) -> str:
        scope = self._scopes[-1] if self._scopes else None
        if scope is None:
            self._unexpected(char, _EXPECTED_VALUE)
        expected = OBJECT_END if scope.kind == OBJECT else ARRAY_END
        if char != expected:
            start = self._location(scope.start)
            message = f"Unexpected close marker '{char}': expected '{expected}' (for {scope.word} starting at {start})"
            raise PatternError(message + self.tail(self.position - 1))
        self._scopes.pop()
        return char

    def _end(self) -> str:
        if self._scopes:
            scope = self._scopes[-1]
            self._unexpected_end(
                f": expected close marker for {scope.word} (start marker at {self._location(scope.start)})"
            )
        return END

    def _separated(self, scope: _Scope, char: str) -> str:
        """Step over the comma before every entry but the first; answer the first character of the entry."""
        scope.entries += 1
        if scope.entries == 1:
            return char
        if char != ",":
            self._unexpected(char, f"was expecting comma to separate {scope.word} entries")
        return self._significant() or self._unexpected_end(f" within/between {scope.word} entries")

    def _read_name(self, char: str) -> None:
        if char != '"':
            self._unexpected(char, "was expecting double-quote to start field name")
        self.name = self._quoted(" in field name", "name")

    def _colon(self) -> str:
        char = self._significant()
        if char and char != ":":
            self._unexpected(char, "was expecting a colon to separate field name and value")
        return (char and self._significant()) or self._unexpected_end(" within/between Object entries")

    def _significant(self) -> str:
        """Skip white space; read and answer the next character, "" at the end of the text."""
        found = _SPACE.match(self.text, self.position)
        self.position = found.end() if found else self.position
        char = self.text[self.position : self.position + 1]
        self.position += len(char)
        if char and char < " ":
            message = (
                f"Illegal character ({_describe(char)}): only regular white space (\\r, \\n, \\t) "
                "is allowed between tokens"
            )
            raise PatternError(message + self.tail(self.position - 1))
        if char == "/":
            self._unexpected(char, _COMMENT)
        return char

    # Values

    def _value(self, char: str) -> str:
        """Judge the token that begins with `char`, which has been read."""
        if char == '"':
            self._string_open = True
            return STRING
        if char in "{[":
            self.lexeme = char
            return char
        if char == "-" or "0" <= char <= "9":
            return self._number(char)
        if char in _WORDS:
            return self._word(_WORDS[char])
        return self._odd_value(char)

    def _word(self, word: str) -> str:
        start = self.position - 1
        if self.text.startswith(word, start) and not _is_word_part(
            self.text[start + len(word) : start + len(word) + 1]
        ):
            self.position = start + len(word)
            self.lexeme = word
            return word
        return self._unrecognized(start)

    def _unrecognized(self, start: int) -> NoReturn:
        while _is_word_part(self.text[self.position : self.position + 1]):
            self.position += 1
        word = self.text[start : self.position]
        shown = word if len(word) <= 256 else word[:256] + "..."
        self.fail(f"Unrecognized token '{shown}': was expecting {_TOKENS}")

    def _odd_value(self, char: str) -> NoReturn:
        if char == "}":
            self._unexpected(char, "expected a value")
        if char == "+":
            self._unexpected(char, _PLUS, where=" in numeric value")
        start = self.position - 1
        special = _NON_NUMBERS.get(char, "")
        if special and self.text.startswith(special, start):
            end = start + len(special)
            if not _is_word_part(self.text[end : end + 1]):
                self.position = end
                self.fail(
                    f"Non-standard token '{special}': enable `JsonReadFeature.ALLOW_NON_NUMERIC_NUMBERS` to allow"
                )
        if _is_word_start(char):
            self._unrecognized(start)
        self._unexpected(char, _EXPECTED_VALUE)

    def _number(self, char: str) -> str:
        start = self.position - 1
        if char == "-":
            char = self._digit("expected digit (0-9) to follow minus sign, for valid numeric value")
        if char == "0" and self.text[self.position : self.position + 1] in _DECIMAL:
            self.position += 1
            self.fail("Invalid numeric value: Leading zeroes not allowed")
        self._digits()
        if self.text.startswith(".", self.position):
            self.position += 1
            self._digit("Decimal point not followed by a digit")
            self._digits()
        if self.text[self.position : self.position + 1] in _EXPONENT:
            self.position += 1
            if self.text[self.position : self.position + 1] in _SIGN:
                self.position += 1
            self._digit("Exponent indicator not followed by a digit")
            self._digits()
        self.lexeme = self.text[start : self.position]
        if len(self.lexeme) > NUMBER_LENGTH_LIMIT:
            self.fail(
                f"Number value length ({len(self.lexeme)}) exceeds the maximum allowed "
                f"({NUMBER_LENGTH_LIMIT}, from `StreamReadConstraints.getMaxNumberLength()`)"
            )
        return NUMBER

    def _digit(self, otherwise: str) -> str:
        char = self.text[self.position : self.position + 1]
        if not char:
            self._unexpected_end(" in a Number value")
        self.position += 1
        if char not in _DECIMAL:
            self._unexpected(char, otherwise, where=" in numeric value")
        return char

    def _digits(self) -> None:
        found = _DIGITS.match(self.text, self.position)
        self.position = found.end() if found else self.position

    def _quoted(self, end: str, context: str) -> str:
        """Read a string whose opening quote has been read, up to and including the closing one."""
        parts: list[str] = []
        while True:
            found = _PLAIN.match(self.text, self.position)
            if found:
                parts.append(found.group())
                self.position = found.end()
            char = self.text[self.position : self.position + 1]
            if not char:
                self._unexpected_end(end)
            self.position += 1
            if char == '"':
                return join_surrogates("".join(parts))
            if char != "\\":
                message = (
                    f"Illegal unquoted character ({_describe(char)}): has to be escaped using backslash "
                    f"to be included in {context}"
                )
                raise PatternError(message + self.tail(self.position - 1))
            parts.append(self._escape())

    def _escape(self) -> str:
        char = self.text[self.position : self.position + 1]
        if not char:
            self._unexpected_end(" in character escape sequence")
        self.position += 1
        if char == "u":
            return chr(int("".join(self._hex_digit() for _ in range(4)), 16))
        if char not in _ESCAPES:
            raise PatternError(
                f"Unrecognized character escape {_describe(char)}" + self.tail(self.position - 1),
            )
        return _ESCAPES[char]

    def _hex_digit(self) -> str:
        char = self.text[self.position : self.position + 1]
        if not char:
            self._unexpected_end(" in character escape sequence")
        self.position += 1
        if char not in _HEX:
            self._unexpected(char, "expected a hex-digit for character escape sequence")
        return char


_DECIMAL = frozenset("0123456789")
_EXPONENT = frozenset("eE")
_SIGN = frozenset("+-")


def utf16_length(text: str) -> int:
    """How many UTF-16 code units a text takes, which is how Java counts columns."""
    return len(text) + sum(char > "\uffff" for char in text)


def join_surrogates(text: str) -> str:
    """Make one character of every surrogate pair; a lone surrogate stays as it is."""
    if not any("\ud800" <= char <= "\udfff" for char in text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _describe(char: str) -> str:
    code = ord(char)
    if code < 0x20 or 0x7F <= code < 0xA0:
        return f"(CTRL-CHAR, code {code})"
    if code > 0xFFFF:
        code = 0xD800 + ((code - 0x10000) >> 10)
    shown = "?" if 0xD800 <= code <= 0xDFFF else char
    return f"'{shown}' (code {code} / 0x{code:x})" if code > 0xFF else f"'{shown}' (code {code})"


def _is_word_start(char: str) -> bool:
    return char.isidentifier() or char == "$" or (char != "" and unicodedata.category(char) == "Sc")


def _is_word_part(char: str) -> bool:
    """Whether Java would take the character as part of an identifier."""
    return char != "" and (("a" + char).isidentifier() or _is_word_start(char) or "\x7f" <= char <= "\x9f")
