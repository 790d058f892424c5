"""Event patterns: reading one, and asking it about one event.

A pattern is compiled to *forks*: maps from dotted path to the alternatives of its leaf. All paths of a fork must hold,
and a pattern matches if one of its forks does. Without `$or` there is one fork. A `$or` copies the forks built so far
for each of its branches, and keys after it are added to every fork that results; a later leaf at the same path replaces
an earlier one, so the order of the text matters.

Objects and `$or` lists that are being read lie on a stack of our own, so that nesting costs no recursion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rules import expressions, reader
from rules.arrays import Choice, consistent
from rules.complexity import TOO_COMPLEX, too_complex
from rules.errors import PatternError
from rules.flatten import Membership, Steps, flatten
from rules.operators import Alternative, Exists, Scalar
from rules.reader import TokenReader

PATTERN_LENGTH_LIMIT = 4096
"""Characters of a pattern text that AWS accepts at most; the API checks it, the library does not."""

PATTERN_LENGTH_QUOTA = 2048
"""Characters of a pattern text under an account's default quota."""

FORK_LIMIT = 1000
TOO_MANY_FORKS = f"Or operator is producing over {FORK_LIMIT} rule combinations"

RESERVED = frozenset(
    (
        *("exactly", "equals-ignore-case", "prefix", "suffix", "anything-but", "exists", "wildcard", "numeric", "cidr"),
        *("=", "<", "<=", ">", ">=", "regex", "not-wildcard", "not-equals-ignore-case", "in-date-range"),
        *("date-after", "date-on-or-after", "date-before", "date-on-or-before"),
        *("ip-address-in-range", "ip-address-not-in-range"),
    )
)
"""Names that no field inside a branch of `$or` may have."""

Leaf = tuple[Alternative, ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled event pattern; make it with `Pattern.parse`.

    `forks` hold the paths in sorted order (UTF-16 code units), in which absence is judged.
    """

    text: str
    forks: tuple[Mapping[str, Leaf], ...] = field(repr=False, compare=False)

    @staticmethod
    def parse(text: str) -> Pattern:
        """Compile a pattern text; raises PatternError, and nothing else, for every text that AWS refuses."""
        return Pattern(text, tuple(_Compiler(text).compile()))

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Whether an event, as `json.loads` or `parse_event` gives it, satisfies the pattern."""
        fields = flatten(event, Steps.of({path for fork in self.forks for path in fork}))
        offered: dict[int, Choice] = {}
        for fork in self.forks:
            choices = []
            for path, leaf in fork.items():
                # Forks made by one $or share their leaves, so each is asked once.
                choice = offered.get(id(leaf)) or offered.setdefault(id(leaf), offer(leaf, fields.get(path, ())))
                if not choice.possible:
                    break
                choices.append(choice)
            else:
                if consistent(choices):
                    return True
        return False


def path_order(path: str) -> bytes:
    """Sort key of paths: Java's string order."""
    return path.encode("utf-16-be", "surrogatepass")


def offer(leaf: Leaf, present: Sequence[tuple[Scalar, Membership]]) -> Choice:
    """What the fields of one path offer to the leaf that asks for it."""
    accepted = [membership for value, membership in present if any(each.accepts(value) for each in leaf)]
    absence = any(isinstance(each, Exists) and not each.present for each in leaf)
    return Choice(accepted, [membership for _, membership in present], absence)


@dataclass(slots=True)
class _ObjectScope:
    """An object being read: the path it stands at (None for the root) and whether it lies in a `$or` branch."""

    path: str | None
    in_or: bool
    empty: bool = True


@dataclass(slots=True)
class _OrScope:
    """A `$or` list being read: the forks before it and those its branches have made."""

    path: str | None
    before: list[dict[str, Leaf]]
    result: list[dict[str, Leaf]]
    branches: int = 0


class _Compiler:
    """Reads one pattern text to forks; checks run while reading, in the order of the text."""

    def __init__(self, text: str) -> None:
        self._tokens = TokenReader(text)
        self._stack: list[_ObjectScope | _OrScope] = []
        self._forks: list[dict[str, Leaf]] = []
        self._too_many = False

    def compile(self) -> list[dict[str, Leaf]]:
        if self._tokens.next() != reader.OBJECT:
            self._tokens.fail("Filter is not an object")
        self._stack.append(_ObjectScope(None, in_or=False))
        while self._stack:
            scope = self._stack[-1]
            if isinstance(scope, _ObjectScope):
                self._member(scope)
            else:
                self._branch(scope)
        if self._too_many:
            raise PatternError(TOO_MANY_FORKS)
        forks = [{path: fork[path] for path in sorted(fork, key=path_order)} for fork in self._forks]
        if too_complex(forks):
            raise PatternError(TOO_COMPLEX)
        return forks

    def _member(self, scope: _ObjectScope) -> None:
        """Read the next member of an object, or its end."""
        tokens = self._tokens
        if tokens.next() == reader.OBJECT_END:
            if scope.empty:
                tokens.fail("Empty objects are not allowed")
            self._stack.pop()
            return
        scope.empty = False
        name = tokens.name
        if name == "$or":
            self._open_or(scope)
            return
        if scope.in_or and name in RESERVED:
            tokens.fail(f"{name} is Ruler reserved fieldName which cannot be used inside $or.")
        path = name if scope.path is None else f"{scope.path}.{name}"
        kind = tokens.next()
        if kind == reader.OBJECT:
            self._stack.append(_ObjectScope(path, scope.in_or))
        elif kind == reader.ARRAY:
            self._leaf(path)
        else:
            tokens.fail(f'"{name}" must be an object or an array')

    def _open_or(self, scope: _ObjectScope) -> None:
        if self._tokens.next() != reader.ARRAY:
            self._tokens.fail("It must be an Array followed with $or.")
        self._stack.append(_OrScope(scope.path, before=self._forks, result=[]))

    def _branch(self, scope: _OrScope) -> None:
        """Take in the forks of the branch just read, if any, and begin the next one or end the list."""
        if scope.branches:
            self._collect(scope)
        kind = self._tokens.next()
        if kind == reader.ARRAY_END:
            if scope.branches < 2:
                self._tokens.fail("There must have at least 2 Objects in $or relationship.")
            self._forks = scope.result
            self._stack.pop()
            return
        scope.branches += 1
        if kind != reader.OBJECT:
            self._tokens.fail("Only JSON object is allowed in array of $or relationship.")
        self._forks = [] if self._too_many else [dict(fork) for fork in scope.before]
        self._stack.append(_ObjectScope(scope.path, in_or=True))

    def _collect(self, scope: _OrScope) -> None:
        """Beyond the limit nothing is multiplied any more; reading goes on, since a later fault comes first."""
        self._too_many = self._too_many or len(scope.result) + len(self._forks) > FORK_LIMIT
        scope.result = [] if self._too_many else scope.result + self._forks

    def _leaf(self, path: str) -> None:
        tokens = self._tokens
        alternatives: list[Alternative] = []
        while (kind := tokens.next()) != reader.ARRAY_END:
            if kind == reader.OBJECT:
                alternatives.append(expressions.read_expression(tokens))
            else:
                alternatives.append(expressions.read_literal(tokens, kind))
        if not alternatives:
            tokens.fail("Empty arrays are not allowed")
        if not self._forks:
            self._forks = [{}]
        leaf = tuple(alternatives)
        for fork in self._forks:
            fork[path] = leaf
