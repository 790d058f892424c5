"""Which wildcard patterns are admitted: complexity 10 at most on any field.

All wildcard terms that are asked of one field under the same earlier conditions become one nondeterministic automaton
over the bytes of the quoted value. Its complexity is the largest number, after any input, of (live state, term that can
still be reached) pairs. A star keeps its state alive for ever, a literal behind a star lives while the input spells it,
and literals before the first star are shared like in a trie. Each wildcard is one term; so is one anything-but list.

The automaton is never run on events (see `rules.wildcards` for that). It exists to count as AWS counts, which includes
an odd rule for sharing states behind a star: `Automaton.add` follows the original byte by byte.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rules.operators import Alternative, AnythingBut, Exists, Wildcard

COMPLEXITY_LIMIT = 10
TOO_COMPLEX = (
    "Rule is too complex - try using fewer wildcard characters "
    "or fewer repeating character sequences after a wildcard character"
)

Fork = Mapping[str, Sequence[Alternative]]

_NODE_LIMIT = 20_000
"""Conditions that multiply (overlapping lists in many `$or` branches) are pooled by path alone beyond this size."""


@dataclass(frozen=True, slots=True)
class _Byte:
    """One byte of a value; the first of its character if `first`; `cased` if upper and lower case differ."""

    value: int
    first: bool
    cased: bool


_STAR = None
_QUOTE = _Byte(0x22, True, False)


@dataclass(slots=True, eq=False)
class _State:
    determinate: bool
    final: bool = False
    literal: dict[int, list[_State]] = field(default_factory=dict)
    any: list[_State] = field(default_factory=list)
    terms: set[Hashable] = field(default_factory=set)


class Automaton:
    """The wildcard terms of one field."""

    def __init__(self) -> None:
        self._start = _State(determinate=True)
        self._finals: dict[Hashable, _State] = {}

    def add(self, identity: Hashable, wildcards: Iterable[Wildcard]) -> None:
        """Add one term, spelled by one wildcard or by the distinct wildcards of an anything-but list."""
        for wildcard in wildcards:
            self._add_value(identity, list(_tokens(wildcard)))

    def _add_value(self, identity: Hashable, tokens: list[_Byte | None]) -> None:
        state = self._start
        before_star: _State | None = None
        reuse = True
        for index, token in enumerate(tokens):
            if index == len(tokens) - 1:
                following = self._finals.setdefault(identity, _State(determinate=False, final=True))
            elif token is _STAR:
                if reuse and state.any:
                    following = state.any[0]
                else:
                    following, reuse = _star_state(state), False
            else:
                shared = self._shared(state, token, reuse)
                following, reuse = (shared, reuse) if shared else (_State(state.determinate), False)
            if token is not _STAR:
                _link(state, token.value, following)
                if index and tokens[index - 1] is _STAR and before_star is not None:
                    _link(before_star, token.value, following)
            following.terms.add(identity)
            before_star, state = state, following

    def _shared(self, state: _State, token: _Byte, reuse: bool) -> _State | None:
        """A successor that an earlier value made and this one may use as well."""
        others = any(successor is not state for successor in state.any)
        behind_star = reuse and not (token.first and (token.cased or others))
        for successor in state.literal.get(token.value, ()):
            if successor.final:
                continue
            if successor.determinate if state.determinate and successor.determinate else behind_star:
                return successor
        return None

    def exceeds(self, limit: int) -> bool:
        """Whether the complexity is above a limit; all terms are live after the opening quote."""
        return len(self._finals) > limit or self.complexity(limit) > limit

    def complexity(self, limit: int | None = None) -> int:
        """The largest weight any input reaches; the search stops as soon as it passes `limit`."""
        best = 0
        start = frozenset([self._start])
        seen, todo = {start}, [start]
        while todo:
            live = todo.pop()
            for reached in _steps(live):
                best = max(best, _weight(reached))
                if limit is not None and best > limit:
                    return best
                if reached not in seen:
                    seen.add(reached)
                    todo.append(reached)
        return best


def _tokens(wildcard: Wildcard) -> Iterator[_Byte | None]:
    yield _QUOTE
    for index, piece in enumerate(wildcard.pieces):
        if index:
            yield _STAR
        for char in piece:
            cased = char.lower() != char.upper()
            for offset, byte in enumerate(char.encode("utf-8", "surrogatepass")):
                yield _Byte(byte, offset == 0, cased)
    yield _QUOTE


def _star_state(state: _State) -> _State:
    star = _State(determinate=False)
    star.any.append(star)
    state.any.append(star)
    return star


def _link(state: _State, byte: int, following: _State) -> None:
    successors = state.literal.setdefault(byte, [])
    if following not in successors:
        successors.append(following)


def _steps(live: frozenset[_State]) -> Iterator[frozenset[_State]]:
    """What is live after one more byte; bytes that no live state spells all lead to the same states."""
    anything = {successor for state in live for successor in state.any}
    if anything:
        yield frozenset(anything)
    for byte in {byte for state in live for byte in state.literal}:
        yield frozenset(
            anything.union(*(state.literal[byte] for state in live if byte in state.literal)),
        )


def _weight(live: frozenset[_State]) -> int:
    ahead = sum(len(star.terms) for state in live for star in state.any if star not in live)
    return ahead + sum(len(state.terms) for state in live)


# Which terms share an automaton


@dataclass(slots=True, eq=False)
class _Field:
    """What is asked of one path under the same earlier conditions."""

    following: dict[Alternative, _Node] = field(default_factory=dict)
    terms: list[Alternative] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Node:
    present: dict[str, _Field] = field(default_factory=dict)
    absent: dict[str, _Node] = field(default_factory=dict)


def too_complex(forks: Sequence[Fork]) -> bool:
    """Whether the wildcard terms of a pattern exceed the limit; fork paths are in sorted order."""
    if not any(_is_term(alternative) for fork in forks for leaf in fork.values() for alternative in leaf):
        return False
    pools = _pools_by_conditions(forks)
    return any(_automaton(terms).exceeds(COMPLEXITY_LIMIT) for terms in (pools or _pools_by_path(forks)) if terms)


def _is_term(alternative: Alternative) -> bool:
    return isinstance(alternative, Wildcard) or (
        isinstance(alternative, AnythingBut) and alternative.form == "wildcard"
    )


def _automaton(terms: Iterable[Alternative]) -> Automaton:
    automaton = Automaton()
    for term in terms:
        if isinstance(term, Wildcard):
            automaton.add(term.text, [term])
        elif isinstance(term, AnythingBut):
            values = [value for value in term.excluded if isinstance(value, Wildcard)]
            automaton.add(frozenset(value.text for value in values), values)
    return automaton


def _pools_by_path(forks: Sequence[Fork]) -> list[list[Alternative]]:
    pools: dict[str, list[Alternative]] = {}
    for fork in forks:
        for path, leaf in fork.items():
            pools.setdefault(path, []).extend(filter(_is_term, leaf))
    return list(pools.values())


def _pools_by_conditions(forks: Sequence[Fork]) -> list[list[Alternative]] | None:
    """The terms of each path, apart for different conditions on the paths that sort before it; None if too many."""
    root = _Node()
    nodes = 0
    for fork in forks:
        level = [root]
        for path, leaf in fork.items():
            level = [reached for node in level for reached in _insert(node, path, leaf)]
            nodes += len(level)
            if nodes > _NODE_LIMIT:
                return None
    pools: list[list[Alternative]] = []
    todo = [root]
    while todo:
        for asked in todo.pop().present.values():
            pools.append(asked.terms)
            todo.extend({id(node): node for node in asked.following.values()}.values())
    return pools


def _insert(node: _Node, path: str, leaf: Sequence[Alternative]) -> list[_Node]:
    """Ask one path below a node; answer the nodes that stand for the alternatives, each once."""
    last: _Node | None = None
    reached: list[_Node] = []
    for alternative in leaf:
        if isinstance(alternative, Exists) and not alternative.present:
            last = node.absent.setdefault(path, last or _Node())
        else:
            asked = node.present.setdefault(path, _Field())
            last = asked.following.setdefault(alternative, last or _Node())
            if _is_term(alternative):
                asked.terms.append(alternative)
        if all(last is not other for other in reached):
            reached.append(last)
    return reached
