"""The vault: what must never lie open on disk, sealed with a key.

The key comes from the setting ``secret_key``, or from a file in the data directory that is made, for this user alone,
when the first secret is sealed. Several keys may be given: the first one seals, all of them open, so that a key can be
replaced. A bus without a data directory has a key that lives as long as the process.

Sealing is Fernet of the cryptography package: AES in CBC mode, authenticated with HMAC-SHA256.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from bus.config import Settings
from bus.errors import ConfigError, StoreError, StoreUnavailable, StoreUnusable

KEY_FILE = "secret.key"
_URL_SAFE = str.maketrans("+/", "-_")


class Vault:
    """Seals and opens secrets. Without ``keys`` the file at ``path`` holds the key; without either it is made up."""

    def __init__(self, keys: Sequence[Fernet] = (), *, path: Path | None = None) -> None:
        self._path = path
        self._given = bool(keys)
        self._keys = list(keys)
        if not keys and path is not None and path.exists():
            self._keys = [_read(path)]

    def seal(self, secret: bytes) -> str:
        """The secret as it may be stored; StoreUnavailable when the key it needs first cannot be written."""
        if not self._keys:
            self._keys = [_make(self._path)]
        return self._keys[0].encrypt(secret).decode()

    def open(self, sealed: str) -> bytes:
        """What was sealed; StoreUnusable or ConfigError, with what to do, when no key fits."""
        if self._keys:
            try:
                return MultiFernet(self._keys).decrypt(sealed)
            except InvalidToken:
                pass
        raise self._no_key()

    def is_current(self, sealed: str) -> bool:
        """Whether it was sealed with the key that seals now."""
        try:
            self._keys[0].decrypt(sealed)
        except InvalidToken:
            return False
        return True

    def _no_key(self) -> ConfigError | StoreError:
        if self._given:
            return ConfigError(
                "the secrets of connections in the data directory were sealed with another key than that of"
                " --secret-key (BUSBAR_SECRET_KEY): give that key, alone or behind the new one and a comma"
                + (f"; if it is the one in {self._path}, start without the setting" if self._has_file() else "")
            )
        if self._keys:
            return StoreUnusable(
                f"{self._path} is not the key that the secrets of connections were sealed with: put back the one that"
                " was there, or give the key as BUSBAR_SECRET_KEY"
            )
        return StoreUnusable(
            f"the key file {self._path} is missing, and connections have secrets that it sealed: put it back from a"
            " copy of the data directory, or give the key as BUSBAR_SECRET_KEY"
        )

    def _has_file(self) -> bool:
        return self._path is not None and self._path.exists()


def open_vault(settings: Settings) -> Vault:
    """The vault of a bus with these settings."""
    path = None if settings.in_memory else Path(settings.data_dir) / KEY_FILE
    return Vault(_keys(settings.secret_key), path=path)


def _keys(text: str | None) -> list[Fernet]:
    """The keys of the setting; its own check has read them already."""
    return [] if text is None else [Fernet(each.strip().translate(_URL_SAFE)) for each in text.split(",")]


def _read(path: Path) -> Fernet:
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreUnusable(f"the key file {path} cannot be read: {error}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StoreUnusable(f"other users may read the key file {path}: chmod 600 {path}")
    try:
        return Fernet(text.strip())
    except ValueError:
        raise StoreUnusable(
            f"the key file {path} is damaged: put it back from a copy of the data directory, or, when there are no"
            " connections whose secrets matter, remove it"
        ) from None


def _make(path: Path | None) -> Fernet:
    """A new key, on disk before anything is sealed with it; whole or not at all."""
    key = Fernet.generate_key()
    if path is not None:
        unfinished = path.with_suffix(".new")
        try:
            _write(unfinished, key + b"\n")
            unfinished.rename(path)
            _force(path.parent)
        except OSError as error:
            raise StoreUnavailable(f"the key file {path} cannot be written: {error.strerror}") from error
    return Fernet(key)


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # left behind by a process that died here
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, content)
        os.fsync(file)
    finally:
        os.close(file)


def _force(directory: Path) -> None:
    file = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
