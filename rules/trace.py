"""X-Ray trace headers: the form in which AWS hands them on."""

import re
from collections.abc import Callable

_ROOT = re.compile(r"1-[0-9a-fA-F]{8}-[0-9a-fA-F]{24}")
_PARENT = re.compile(r"[0-9a-fA-F]{16}")
_SAMPLED = frozenset("01?")
_KNOWN = frozenset({"Root", "Parent", "Sampled"})


def normalise(header: str, new_root: Callable[[], str]) -> str | None:
    """Write a trace header as targets receive it, or None when none is handed on.

    An item that is not printable ASCII is left out, since the header goes into others: those of requests.

    `new_root` makes a root (`1-<8 hex>-<24 hex>`); it is called at most once, for an unsampled trace without one. Call
    this once per event, so that target, retries and dead letter share the root.
    """
    stripped = (item.strip() for item in header.split(";"))
    items = [
        (key, value)
        for key, equals, value in (item.partition("=") for item in stripped if item.isascii() and item.isprintable())
        if equals
    ]
    last = dict(items)
    sampled = last.get("Sampled") if last.get("Sampled") in _SAMPLED else None
    parent = _last_parent(items)
    root = _root(last.get("Root", ""), sampled, new_root)
    if root is None or (sampled == "1" and parent is not None and parent != parent.lower()):
        return None
    known = (("Root", root), ("Parent", parent), ("Sampled", sampled))
    others = sorted((key, value) for key, value in last.items() if key not in _KNOWN)
    return ";".join(f"{key}={value}" for key, value in (*known, *others) if value is not None)


def _last_parent(items: list[tuple[str, str]]) -> str | None:
    valid = [value for key, value in items if key == "Parent" and _PARENT.fullmatch(value)]
    return valid[-1] if valid else None


def _root(given: str, sampled: str | None, new_root: Callable[[], str]) -> str | None:
    if _ROOT.fullmatch(given):
        return given.lower()
    return new_root() if sampled == "0" else None
