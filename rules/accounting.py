"""Accounting: whether reading some paths of a JSON text has seen every key that could have led to them.

What a struct that was decoded cannot show is a key that stands twice in one object: it keeps the last value, whereas
for a rule both count. Nor does it see `{"a.b": 1}` for the path `a.b`. So the keys are counted, at about 0.4 µs each:

1. If the last step of a path occurs in the text, as the end of a string, exactly as often as the path was found, then
   nothing was lost, whatever else the text may hold.
2. If the count is higher, the step before it may occur only once; then only what lies behind that is counted. The way
   that worked for one event is taken first for the next.
3. If that is no proof either, the text is decoded whole and encoded again, which drops what stood twice, and counted
   once more (10 to 15 µs). From such an event the plan learns where else these keys stand, and will read those places
   too, so that the next one adds up.
4. Text that fails all this, or spells characters as `\\u…`, goes to the exact reader, `parse_event` (20 µs).
"""

from __future__ import annotations

from collections.abc import Sequence


class Key:
    """The last step of some paths, as it stands in JSON text.

    Its end, `k"`, is in every way of spelling it, alone or behind others in a key with dots. If other keys end like it,
    it is counted between quotes, and `.k"` must not occur.
    """

    __slots__ = ("dotted", "end", "indexes", "quoted", "strict")

    def __init__(self, key: bytes, indexes: Sequence[int]) -> None:
        self.end, self.quoted, self.dotted = key + b'"', b'"' + key + b'"', b"." + key + b'"'
        self.indexes = tuple(indexes)
        self.strict = False

    def accounts(self, data: bytes, seen: Sequence[int], start: int) -> bool:
        found = sum([seen[index] for index in self.indexes])
        if not self.strict and data.count(self.end, start) == found:
            return True
        if data.count(self.quoted, start) == found and data.find(self.dotted, start) < 0:
            self.strict = True
            return True
        return False


class Group:
    """Last steps of paths that stand below the same step, the parent.

    If the parent, as bare text, occurs once at most, all that lies below it comes behind it; then it is enough that
    each key occurs behind it as often as it was found.
    """

    __slots__ = ("keys", "parent", "within")

    def __init__(self, parent: bytes) -> None:
        self.parent = parent
        self.keys: list[Key] = []
        self.within = False

    def accounts(self, data: bytes, seen: Sequence[int]) -> bool:
        """Whether nothing was lost; remembers which way to count has shown it."""
        for within in (True, False) if self.within else (False, True):
            start = self._start(data) if within else 0
            if start is not None and all(key.accounts(data, seen, start) for key in self.keys):
                self.within = within
                return True
        return False

    def _start(self, data: bytes) -> int | None:
        """Where the parent stands, the end of the text if nowhere, None if it is not unique."""
        if not self.parent:
            return None
        start = data.find(self.parent)
        if start < 0:
            return len(data)
        return start if data.find(self.parent, start + 1) < 0 else None


def grouped(paths: Sequence[str]) -> list[Group]:
    by_key: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        by_key.setdefault(path.rpartition(".")[2], []).append(index)
    groups: dict[bytes, Group] = {}
    for key, indexes in by_key.items():
        parents = {paths[index].rpartition(".")[0] for index in indexes}
        parent = encoded(parents.pop().rpartition(".")[2]) if len(parents) == 1 else b""
        groups.setdefault(parent, Group(parent)).keys.append(Key(encoded(key), indexes))
    return list(groups.values())


def encoded(step: str) -> bytes:
    return step.encode("utf-8", "surrogatepass")
