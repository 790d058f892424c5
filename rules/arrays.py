"""Array consistency: can one field be picked for every path so that no two lie in different elements of one array?

Absence is judged while picking, in the order of the paths: it holds if every field of the path conflicts with what has
been picked before. The naive search multiplies the candidates of unrelated arrays. Three reductions keep the answer
and make the work a sum:

* only distinct memberships of the accepted fields of a path are kept;
* paths fall into groups that share arrays; groups cannot conflict, so each is searched alone;
* within a group the picks made so far are a set, and arrays that no later path of the group mentions are dropped.

Inside one array of objects, nested to any depth, the set then never outgrows the elements. Only a key that stands many
times in one object, each time with an array of its own, could still multiply; `PICK_LIMIT` ends such a search, which
then counts as no match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rules.flatten import Membership

PICK_LIMIT = 20_000

Picked = frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Choice:
    """What one path offers: the memberships of the fields that were accepted, those of all its fields, and whether
    absence would do."""

    accepted: Sequence[Membership]
    present: Sequence[Membership]
    absence: bool

    @property
    def possible(self) -> bool:
        """Whether the path can be satisfied at all, other paths aside."""
        return self.absence or bool(self.accepted)

    def arrays(self) -> set[int]:
        memberships = [*self.accepted, *self.present] if self.absence else self.accepted
        return {number for membership in memberships for number, _ in membership}


def consistent(choices: Sequence[Choice]) -> bool:
    """Whether every path, in sorted order, can pick; `choices` has one entry a path."""
    if not any(choice.absence and choice.present for choice in choices):
        # No absence to judge: a field outside all arrays is the best pick, for it constrains nothing.
        choices = [choice for choice in choices if not choice.absence and () not in choice.accepted]
        if len(choices) < 2:
            return all(choice.accepted for choice in choices)
    return all(_pickable(group) for group in _groups(choices))


def _groups(choices: Sequence[Choice]) -> list[list[Choice]]:
    """Choices that share arrays, directly or through others, each group in the order given."""
    groups: list[tuple[set[int], list[int]]] = []
    for position, choice in enumerate(choices):
        arrays, members = choice.arrays(), [position]
        apart = []
        for group in groups:
            if group[0].isdisjoint(arrays):
                apart.append(group)
            else:
                arrays |= group[0]
                members += group[1]
        groups = [*apart, (arrays, members)]
    return [[choices[position] for position in sorted(members)] for _, members in groups]


def _pickable(choices: list[Choice]) -> bool:
    picks: set[Picked] = {frozenset()}
    later: set[int] = set()
    relevant: list[set[int]] = []
    for choice in reversed(choices):
        relevant.append(later)
        later = later | choice.arrays()
    for choice, needed in zip(choices, reversed(relevant), strict=True):
        picks = {frozenset(pair for pair in picked if pair[0] in needed) for picked in _extended(picks, choice)}
        if not picks or len(picks) > PICK_LIMIT:
            return False
    return True


def _extended(picks: set[Picked], choice: Choice) -> set[Picked]:
    found: set[Picked] = set()
    accepted = set(choice.accepted)
    for picked in picks:
        chosen = dict(picked)
        found.update(picked.union(membership) for membership in accepted if not _conflict(chosen, membership))
        if choice.absence and all(_conflict(chosen, membership) for membership in choice.present):
            found.add(picked)
        if len(found) > PICK_LIMIT:
            break
    return found


def _conflict(chosen: dict[int, int], membership: Membership) -> bool:
    return any(chosen.get(number, index) != index for number, index in membership)
