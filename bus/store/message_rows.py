"""Plain messages as rows that SQLite takes apart, so that all of a commit are one statement.

A plain message has no attributes, no group and no deduplication: what an event for a queue comes to. Its row is one
piece of bytes: three numbers in columns of fixed width, its id, a letter, its text in UTF-8. Bound as an array, rows
are read by SQLite without the interpreter lock.

The letter says what is to be done with the text. `AS_IT_IS` is stored so; `LOOSE` is a JSON text that is stored without
the white space between its parts, which SQLite drops in the same call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

AS_IT_IS = b"T"
LOOSE = b"J"

LONGEST_LOOSE = 1900
"""Characters of JSON that cannot nest as deep as SQLite reads, which is 1000 levels."""

_INSERT = (
    "INSERT INTO message(queue, visible, sent, id, body) SELECT"
    " CAST(CAST(substr(value, 1, 20) AS TEXT) AS INTEGER), CAST(CAST(substr(value, 21, 20) AS TEXT) AS INTEGER),"
    " CAST(CAST(substr(value, 41, 20) AS TEXT) AS INTEGER), CAST(substr(value, 61, 36) AS TEXT),"
    " iif(substr(value, 97, 1) = x'4a', json(CAST(substr(value, 98) AS TEXT)), CAST(substr(value, 98) AS TEXT))"
    " FROM carray(?1)"
)


Bound = tuple[Any]
"""Rows as the statement takes them."""


def beginning(queue: int, visible: int, sent: int) -> bytes:
    """What the rows of a queue have in common at an instant (ms); an id (36 characters), a letter and a text follow."""
    return b"%020d%020d%020d" % (queue, visible, sent)


def bound(rows: Sequence[bytes]) -> Bound:
    """Bind rows, of which there is at least one."""
    return (apsw.carray(tuple(rows)),)


def store(connection: apsw.Connection, rows: Bound) -> None:
    """Store rows in order; outside a transaction they are one by themselves."""
    connection.execute(_INSERT, rows)
