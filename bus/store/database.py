"""Opening the database file: who owns it, whether it can be trusted, and bringing its schema up to date."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import apsw

from bus.errors import StoreError, StoreUnavailable, StoreUnusable

FILE_NAME = "bus.sqlite3"
LOCK_NAME = "lock"
APPLICATION_ID = 0x62757362
"""Marks a file as ours ("busb" in ASCII), so that another program's database is not taken for one."""

PAGE_SIZE = 4096
BUSY_TIMEOUT_MS = 5000

DURABLE = ("PRAGMA synchronous=FULL", "PRAGMA wal_autocheckpoint=0")
"""What every connection that writes does: force each commit to disk, and leave checkpoints to others."""

PRAGMAS = (f"PRAGMA page_size={PAGE_SIZE}", *DURABLE, "PRAGMA cache_size=-65536")

CHECKED_BYTES = 32 << 20
"""Up to this size the whole file is checked when it is opened; beyond, damage is found when it is met."""

_REFUSALS = (apsw.FullError, apsw.IOError, apsw.ReadOnlyError, apsw.CantOpenError, apsw.BusyError, apsw.LockedError)
"""What SQLite raises when the disk, or another program that holds the file, refuses."""

_DAMAGE = (apsw.NotADBError, apsw.CorruptError)


def in_our_terms(error: apsw.Error) -> StoreError:
    """SQLite's error in the store's own terms: may it succeed later, is the file damaged, or was the request bad?"""
    if isinstance(error, _REFUSALS):
        return StoreUnavailable(f"the disk refused: {error}")
    if isinstance(error, _DAMAGE):
        return StoreUnusable(f"the database is damaged: {error}")
    return StoreError(f"{type(error).__name__}: {error}")


class DirectoryLock:
    """Keeps a second process out of a data directory; released by the system when the process dies."""

    def __init__(self, directory: Path) -> None:
        try:
            self._file = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnusable(f"the data directory {directory} cannot be locked: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(self._file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._file)
            raise StoreUnusable(
                f"the data directory {directory} is in use by another busbar (process {owner}); "
                "stop that one, or give this one its own --data-dir"
            ) from None
        with contextlib.suppress(OSError):  # the number is a courtesy to whoever comes second; the disk may be full
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, str(os.getpid()).encode("ascii"), 0)

    def release(self) -> None:
        os.close(self._file)


def make_directory(path: str) -> Path:
    """The data directory, made (for this user alone) when it is not there yet."""
    directory = Path(path)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnusable(f"the data directory {directory} cannot be made: {error.strerror}") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise StoreUnusable(f"the data directory {directory} is not writable for this user")
    return directory


def make_file(path: str) -> None:
    """The database file, empty, made for this user alone when it is not there yet.

    SQLite would make it as the umask says, and a data directory that was there before the bus, such as a volume, may be
    open to others. The write-ahead log beside it gets the same mode from SQLite. What goes wrong here goes wrong again
    when the file is opened, and is told then.
    """
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def connect(path: str) -> apsw.Connection:
    """An open, current database; raises StoreUnusable with what to do when the file cannot serve.

    Nothing is written before the file is known to be ours, whole, and not too new.
    """
    try:
        connection = apsw.Connection(path)
    except apsw.Error as error:
        raise _unusable(path, error) from error
    try:
        if connection.readonly("main"):  # SQLite falls back to reading when it may not write
            raise StoreUnusable(f"the database {path} is not writable for this user")
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        scripts = migrations()
        _check(connection, path, newest=len(scripts))
        for pragma in PRAGMAS:
            connection.execute(pragma).fetchall()
        _use_wal(connection, path)
        migrate(connection, scripts)
    except apsw.Error as error:
        connection.close()
        raise _unusable(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def open_again(path: str, *, cache_kib: int) -> apsw.Connection:
    """Another connection to a database that is open already, for another thread."""
    connection = apsw.Connection(path)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    for pragma in (*DURABLE, f"PRAGMA cache_size=-{cache_kib}"):
        connection.execute(pragma).fetchall()
    return connection


def _unusable(path: str, error: apsw.Error) -> StoreUnusable:
    if isinstance(error, _DAMAGE):
        return _damaged(path, str(error))
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StoreUnusable(f"the database {path} is held by another program ({error}); close that one first")
    return StoreUnusable(f"the database {path} cannot be opened: {error}; is the disk full or read-only?")


def _damaged(path: str, what: str) -> StoreUnusable:
    return StoreUnusable(
        f"the database {path} is damaged ({what}); nothing was changed. Put back a copy of the data directory, "
        "or move it away to begin with an empty bus"
    )


def _value(connection: apsw.Connection, query: str) -> int | str:
    row = connection.execute(query).fetchone()
    assert row is not None, "each of these queries has one row"
    return row[0]  # type: ignore[no-any-return]


def _check(connection: apsw.Connection, path: str, *, newest: int) -> None:
    tables = _value(connection, "SELECT count(*) FROM sqlite_master")
    if tables and _value(connection, "PRAGMA application_id") != APPLICATION_ID:
        raise StoreUnusable(f"{path} is the database of another program; choose another --data-dir")
    version = int(_value(connection, "PRAGMA user_version"))
    if version > newest:
        raise StoreUnusable(
            f"{path} was written by a newer busbar (schema {version}; this one knows up to {newest}): "
            "install that version again, or choose another --data-dir"
        )
    pages = int(_value(connection, "PRAGMA page_count"))
    if pages * PAGE_SIZE <= CHECKED_BYTES:
        found = str(_value(connection, "PRAGMA quick_check(1)"))
        if found != "ok":
            raise _damaged(path, " ".join(found.split()))


def _use_wal(connection: apsw.Connection, path: str) -> None:
    mode = _value(connection, "PRAGMA journal_mode=WAL")
    if mode not in ("wal", "memory"):
        raise StoreUnusable(
            f"the file system of {path} cannot hold a write-ahead log; choose a --data-dir on a local disk"
        )


def migrations() -> list[str]:
    """The numbered schema scripts, in order; script N brings version N-1 to N."""
    folder = files("bus.store") / "schema"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(folder / name).read_text(encoding="utf-8") for name in names]


def migrate(connection: apsw.Connection, scripts: Sequence[str]) -> None:
    """Bring the schema to the newest version, each step in a transaction of its own."""
    version = int(_value(connection, "PRAGMA user_version"))
    for number in range(version + 1, len(scripts) + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(scripts[number - 1]).fetchall()
            touch(connection)
            connection.execute(f"PRAGMA user_version={number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def touch(connection: apsw.Connection) -> None:
    """Mark the file as ours; on a file that is marked, the smallest write there is."""
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")


def rows(connection: apsw.Connection, query: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All rows of a read outside any transaction."""
    try:
        return connection.execute(query, bindings).fetchall()
    except apsw.Error as error:
        raise in_our_terms(error) from error


def scan(connection: apsw.Connection, query: str, bindings: tuple[Any, ...] = ()) -> Generator[Any, None, None]:
    """Row after row of a read outside any transaction; to be closed, because an open read holds up checkpoints."""
    try:
        cursor = connection.execute(query, bindings)
        try:
            yield from cursor
        finally:
            cursor.close(True)
    except apsw.Error as error:
        raise in_our_terms(error) from error
