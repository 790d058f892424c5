"""Lookup: one scalar against many alternatives at once.

Every alternative lies in a bucket of its kind under a key, so that a value finds it by a dictionary access:

    literal strings            the string itself
    prefixes and suffixes      a bucket for each length, the first or last characters of that length
    ignore-case forms          the same with ASCII letters in upper case (spellings of ASCII are ASCII)
    numbers                    the binary64 value; integers that are not comparable, themselves
    numeric ranges, blocks     `rules.intervals`
    wildcards                  their beginning, their end or a gram of at most eight characters of a longest piece,
                               whichever fewest others use; a value is cut into all its grams of the lengths in use,
                               and what comes up is matched; with one star at an end they are prefixes or suffixes
    everything else            ignore-case forms beyond ASCII: asked one by one

A lookup is built by adding and then only read; `copy` gives one that can be changed while the first is in use. Buckets
map to tuples, so a copy is as cheap as copying the dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from rules import addresses
from rules.intervals import Intervals
from rules.numbers import comparable_value, number_text
from rules.operators import (
    Address,
    Alternative,
    Cidr,
    Constant,
    Digits,
    EqualsIgnoreCase,
    Number,
    Numeric,
    Prefix,
    PrefixIgnoreCase,
    Suffix,
    SuffixIgnoreCase,
    Text,
    Wildcard,
)

Item = TypeVar("Item")

_GRAM_LENGTHS = (1, 2, 4, 8)
_TRIED_TEXTS = 16
"""So many beginnings, or ends, are tried with one call before dictionaries are asked."""
_BucketName = tuple[str, int]


def _place(alternative: Alternative) -> tuple[_BucketName, Any]:
    """The bucket and the key of an alternative."""
    place = _PLACES.get(type(alternative))
    return place(alternative) if place else (("odd", 0), alternative)


def _affix(kind: str) -> Callable[[Any], tuple[_BucketName, Any]]:
    return lambda it: ((kind, len(it.text)), it.text)


def _folded(kind: str, *, by_length: bool) -> Callable[[Any], tuple[_BucketName, Any]]:
    def place(it: Any) -> tuple[_BucketName, Any]:
        if not it.text.isascii():
            return ("odd", 0), it
        return (kind, len(it.text) if by_length else 0), it.text.upper()

    return place


def _wildcard(it: Wildcard) -> tuple[_BucketName, Any]:
    """A wildcard with one star at an end is a prefix or a suffix, without any it is a literal."""
    first, last = it.pieces[0], it.pieces[-1]
    if len(it.pieces) == 1:
        return ("text", 0), first
    if len(it.pieces) == 2 and not (first and last):
        return (("prefix", len(first)), first) if first else (("suffix", len(last)), last)
    return ("wildcard", 0), it


def _numeric(it: Numeric) -> tuple[_BucketName, Any]:
    return (("number", 0), it.low) if it.low == it.high else (("range", 0), it)


_PLACES: dict[type, Callable[[Any], tuple[_BucketName, Any]]] = {
    Text: lambda it: (("text", 0), it.text),
    Address: lambda it: (("address", len(it.digits)), it.digits),
    Number: lambda it: (("number", 0), it.value),
    Digits: lambda it: (("integer", 0), it.value),
    Constant: lambda it: (("constant", 0), repr(it.value)),
    Prefix: _affix("prefix"),
    Suffix: _affix("suffix"),
    PrefixIgnoreCase: _folded("folded prefix", by_length=True),
    SuffixIgnoreCase: _folded("folded suffix", by_length=True),
    EqualsIgnoreCase: _folded("folded", by_length=False),
    Numeric: _numeric,
    Cidr: lambda it: (("block", 0), it),
    Wildcard: _wildcard,
}

Probe = Callable[[str], Sequence[Item]]


class Lookup(Generic[Item]):
    """Alternatives, each with items; answers the items of all alternatives that accept a scalar."""

    __slots__ = ("_blocks", "_buckets", "_hooks", "_ranges", "reads_addresses")

    def __init__(self) -> None:
        self._buckets: dict[_BucketName, dict[Any, tuple[Item, ...]]] = {}
        self._hooks: dict[_BucketName, dict[str, tuple[Wildcard, ...]]] = {}
        self._forget()

    def _forget(self) -> None:
        """Drop what is derived from the buckets; it is made again when first needed."""
        self._ranges: Intervals[Item] | None = None
        self._blocks: Intervals[Cidr] | None = None
        self.reads_addresses = any(kind in ("address", "block") for kind, _ in self._buckets)
        """Whether some alternative takes a value for an IP address, which numbers may look like as well."""

    def copy(self) -> Lookup[Item]:
        """An equal lookup that can be changed."""
        copied: Lookup[Item] = Lookup()
        copied._buckets = {name: bucket.copy() for name, bucket in self._buckets.items()}
        copied._hooks = {name: hooks.copy() for name, hooks in self._hooks.items()}
        copied.reads_addresses = self.reads_addresses
        return copied

    def __bool__(self) -> bool:
        return bool(self._buckets)

    def __len__(self) -> int:
        """How many different alternatives there are."""
        return sum(map(len, self._buckets.values()))

    def add(self, alternative: Alternative, item: Item) -> None:
        name, key = _place(alternative)
        bucket = self._buckets.setdefault(name, {})
        if name[0] == "wildcard" and key not in bucket:
            self._add_hook(key)
        bucket[key] = (*bucket.get(key, ()), item)
        self._forget()

    def discard(self, alternative: Alternative, item: Item) -> None:
        name, key = _place(alternative)
        bucket = self._buckets.get(name, {})
        if key not in bucket:  # an item may lie here by two alternatives: 1 and 1.0, or the same text twice
            return
        kept = tuple(other for other in bucket[key] if other is not item)
        if kept:
            bucket[key] = kept
        else:
            del bucket[key]
            if name[0] == "wildcard":
                self._discard_hook(key)
            if not bucket:
                del self._buckets[name]
        self._forget()

    # Wildcards

    def _add_hook(self, wildcard: Wildcard) -> None:
        hooks = min(_hooks(wildcard), key=self._crowd)
        held = self._hooks.setdefault(hooks[:2], {})
        held[hooks[2]] = (*held.get(hooks[2], ()), wildcard)

    def _discard_hook(self, wildcard: Wildcard) -> None:
        for kind, length, key in _hooks(wildcard):
            hooks = self._hooks.get((kind, length), {})
            kept = tuple(other for other in hooks.pop(key, ()) if other != wildcard)
            if kept:
                hooks[key] = kept
            elif not hooks:
                self._hooks.pop((kind, length), None)

    def _crowd(self, hook: tuple[str, int, str]) -> float:
        """How many wildcards a value with this hook would have to be matched with; short grams are in most values."""
        kind, length, key = hook
        held = len(self._hooks.get((kind, length), {}).get(key, ()))
        return held if kind != "gram" else held + 0.5 + (8 >> length)

    def _probe_wildcards(self, kind: str, length: int) -> Probe[Item]:
        """Look up one kind of hook; each wildcard hangs on one hook only, so nothing is found twice."""
        hooks, bucket = self._hooks[kind, length], self._buckets["wildcard", 0]

        def probe_grams(text: str) -> Sequence[Item]:
            known = hooks.keys() & [text[start : start + length] for start in range(len(text) - length + 1)]
            held = {wildcard for gram in known for wildcard in hooks[gram]} if known else ()
            return [item for it in held if it.accepts(text) for item in bucket[it]]

        def probe_end(text: str) -> Sequence[Item]:
            held = hooks.get(text[:length] if kind == "start" else text[-length:])
            return [item for it in held if it.accepts(text) for item in bucket[it]] if held else ()

        return probe_grams if kind == "gram" else probe_end

    # Strings

    def text_finder(self) -> Probe[Item]:
        """What answers the items of all alternatives that accept a string; it must not outlive a change."""
        starts, ends, others = self._starts(), self._ends(), list(self._others())
        probes = [*starts[1], *ends[1], *others]
        if len(probes) <= 1:
            return probes[0] if probes else lambda text: ()
        (start_texts, start_probes), (end_texts, end_probes) = starts, ends

        def find(text: str) -> Sequence[Item]:
            found: tuple[Item, ...] = ()
            if text.startswith(start_texts):
                for probe in start_probes:
                    found = (*found, *probe(text))
            if text.endswith(end_texts):
                for probe in end_probes:
                    found = (*found, *probe(text))
            for probe in others:
                items = probe(text)
                if items:
                    found = (*found, *items)
            return found

        return find

    def _starts(self) -> tuple[tuple[str, ...], list[Probe[Item]]]:
        """What strings begin with that come up by their beginning, and the probes for them."""
        return self._affixes("prefix", "start", _probe_prefix)

    def _ends(self) -> tuple[tuple[str, ...], list[Probe[Item]]]:
        return self._affixes("suffix", "end", _probe_suffix)

    def _affixes(
        self, kind: str, hook: str, make: Callable[[dict[Any, tuple[Any, ...]], int], Probe[Any]]
    ) -> tuple[tuple[str, ...], list[Probe[Item]]]:
        probes: list[Probe[Item]] = []
        texts: list[str] = []
        for (name, length), bucket in self._buckets.items():
            if name == kind:
                probes.append(make(bucket, length))
                texts += bucket
        for (name, length), hooks in self._hooks.items():
            if name == hook:
                probes.append(self._probe_wildcards(name, length))
                texts += hooks
        return tuple(texts) if len(texts) <= _TRIED_TEXTS else ("",), probes

    def _others(self) -> Iterator[Probe[Item]]:
        for (kind, length), bucket in self._buckets.items():
            make = _PROBES.get(kind)
            if make is not None:
                yield make(bucket, length)
        for kind, length in self._hooks:
            if kind == "gram":
                yield self._probe_wildcards(kind, length)
        if ("odd", 0) in self._buckets:
            odd = self._buckets["odd", 0]
            yield lambda text: [item for it, items in odd.items() if it.accepts(text) for item in items]
        if self.reads_addresses:
            yield lambda text: list(self._find_digits(addresses.address_hex(text) or ""))

    def _find_digits(self, digits: str) -> Iterator[Item]:
        if not digits:
            return
        for (kind, length), bucket in self._buckets.items():
            if kind == "address":
                yield from bucket.get(digits[:length], ())
        bucket = self._buckets.get(("block", 0), {})
        if bucket:
            blocks = self._blocks
            if blocks is None:
                blocks = self._blocks = Intervals(((it.low, True, it.high + "\uffff", False), it) for it in bucket)
            for block in blocks.at(blocks.segment(digits)):
                if addresses.in_block(digits, block.low, block.high):
                    yield from bucket[block]

    # Numbers and constants

    def points(self) -> set[float]:
        """The numbers that some alternative names; between two neighbours all numbers find the same."""
        ranges = self._buckets.get(("range", 0), {})
        return {*self._buckets.get(("number", 0), {}), *(end for it in ranges for end in (it.low, it.high))}

    @property
    def _number_ranges(self) -> Intervals[Item]:
        ranges = self._ranges
        if ranges is None:
            bucket: dict[Numeric, tuple[Item, ...]] = self._buckets.get(("range", 0), {})
            ranges = self._ranges = Intervals(
                ((it.low, it.low_included, it.high, it.high_included), item)
                for it, items in bucket.items()
                for item in items
            )
        return ranges

    def find_number(self, number: int | float) -> list[Item]:
        """The items of all alternatives that accept a number."""
        found: list[Item] = []
        value = comparable_value(number)
        if value is not None:
            found += self._buckets.get(("number", 0), {}).get(value, ())
            found += self._number_ranges.at(self._number_ranges.segment(value))
        elif type(number) is int:
            found += self._buckets.get(("integer", 0), {}).get(number, ())
        if self.reads_addresses:
            found += self._find_digits(number_text(number))
        return found

    def find_constant(self, value: bool | None) -> tuple[Item, ...]:
        """The items of all alternatives that accept true, false or null."""
        return self._buckets.get(("constant", 0), {}).get(repr(value), ())


def _hooks(wildcard: Wildcard) -> Iterator[tuple[str, int, str]]:
    """What a wildcard could be found by: its beginning, its end, or any gram of its longest pieces."""
    first, last = wildcard.pieces[0], wildcard.pieces[-1]
    if first:
        yield "start", len(first), first
    if last:
        yield "end", len(last), last
    longest = max(map(len, wildcard.pieces))
    length = max((each for each in _GRAM_LENGTHS if each <= longest), default=0)
    for piece in wildcard.pieces:
        for gram in _cuts(piece, length):
            yield "gram", length, gram


def _cuts(text: str, length: int) -> Iterator[str]:
    return (text[start : start + length] for start in range(len(text) - length + 1))


def _probe_text(bucket: dict[Any, tuple[Item, ...]], _: int) -> Probe[Item]:
    return lambda text: bucket.get(text, ())


def _probe_prefix(bucket: dict[Any, tuple[Item, ...]], length: int) -> Probe[Item]:
    return lambda text: bucket.get(text[:length], ())


def _probe_suffix(bucket: dict[Any, tuple[Item, ...]], length: int) -> Probe[Item]:
    return lambda text: bucket.get(text[-length:] if length else "", ())


def _probe_folded(bucket: dict[Any, tuple[Item, ...]], _: int) -> Probe[Item]:
    return lambda text: bucket.get(text.upper(), ()) if text.isascii() else ()


def _probe_folded_prefix(bucket: dict[Any, tuple[Item, ...]], length: int) -> Probe[Item]:
    def probe(text: str) -> Sequence[Item]:
        head = text[:length]
        return bucket.get(head.upper(), ()) if head.isascii() else ()

    return probe


def _probe_folded_suffix(bucket: dict[Any, tuple[Item, ...]], length: int) -> Probe[Item]:
    def probe(text: str) -> Sequence[Item]:
        end = text[-length:] if length else ""
        return bucket.get(end.upper(), ()) if end.isascii() else ()

    return probe


_PROBES: dict[str, Callable[[dict[Any, tuple[Any, ...]], int], Probe[Any]]] = {
    "text": _probe_text,
    "folded": _probe_folded,
    "folded prefix": _probe_folded_prefix,
    "folded suffix": _probe_folded_suffix,
}
