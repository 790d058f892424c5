"""The vault: where its key comes from, and what happens when it is the wrong one."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from bus.config import Settings
from bus.connections.secrets import KEY_FILE, Vault, open_vault
from bus.errors import ConfigError, StoreUnavailable, StoreUnusable

ONE, TWO = (base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in (1, 2))
"""Keys that are the same in every process that collects these tests."""


def test_the_key_file_is_made_with_the_first_secret_and_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path))
    vault = open_vault(settings)
    assert not (tmp_path / KEY_FILE).exists()
    sealed = vault.seal(b"secret")
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]
    assert open_vault(settings).open(sealed) == b"secret"


def test_what_a_dying_process_left_behind_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "secret.new").write_bytes(b"half a k")
    vault = Vault(path=tmp_path / KEY_FILE)
    sealed = vault.seal(b"secret")
    assert Vault(path=tmp_path / KEY_FILE).open(sealed) == b"secret"


def test_a_key_in_the_settings_needs_no_file(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path), secret_key=ONE)
    sealed = open_vault(settings).seal(b"secret")
    assert list(tmp_path.iterdir()) == []
    assert open_vault(settings).open(sealed) == b"secret"


def test_both_alphabets_of_base64_are_the_same_key() -> None:
    key = "-_" * 21 + "8="
    settings = (
        Settings(data_dir=":memory:", secret_key=text) for text in (key, key.translate(str.maketrans("-_", "+/")))
    )
    first, second = map(open_vault, settings)
    assert second.open(first.seal(b"secret")) == b"secret"


def test_a_bus_in_memory_makes_its_key_up() -> None:
    vault = open_vault(Settings(data_dir=":memory:"))
    assert vault.open(vault.seal(b"secret")) == b"secret"


def test_a_key_is_replaced_by_giving_the_new_one_first() -> None:
    old = open_vault(Settings(data_dir=":memory:", secret_key=ONE))
    sealed = old.seal(b"secret")
    both = open_vault(Settings(data_dir=":memory:", secret_key=f"{TWO}, {ONE}"))
    assert both.open(sealed) == b"secret"
    assert not both.is_current(sealed)
    again = both.seal(both.open(sealed))
    assert both.is_current(again)
    assert open_vault(Settings(data_dir=":memory:", secret_key=TWO)).open(again) == b"secret"


def test_the_wrong_key_in_the_settings(tmp_path: Path) -> None:
    sealed = open_vault(Settings(data_dir=str(tmp_path))).seal(b"secret")
    with pytest.raises(ConfigError, match="sealed with another key than that of --secret-key") as refused:
        open_vault(Settings(data_dir=str(tmp_path), secret_key=ONE)).open(sealed)
    assert "secret.key, start without the setting" in str(refused.value)
    assert ONE not in str(refused.value)


def test_a_missing_key_file(tmp_path: Path) -> None:
    sealed = open_vault(Settings(data_dir=str(tmp_path))).seal(b"secret")
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(StoreUnusable, match="is missing, and connections have secrets that it sealed"):
        open_vault(Settings(data_dir=str(tmp_path))).open(sealed)


def test_the_wrong_key_file(tmp_path: Path) -> None:
    sealed = open_vault(Settings(data_dir=str(tmp_path))).seal(b"secret")
    (tmp_path / KEY_FILE).write_text(ONE)
    with pytest.raises(StoreUnusable, match="is not the key that the secrets"):
        open_vault(Settings(data_dir=str(tmp_path))).open(sealed)


@pytest.mark.parametrize(("content", "mode", "message"), [("x", 0o600, "is damaged"), (ONE, 0o640, "chmod 600")])
def test_a_key_file_that_cannot_serve(tmp_path: Path, content: str, mode: int, message: str) -> None:
    (tmp_path / KEY_FILE).write_text(content)
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(StoreUnusable, match=message):
        open_vault(Settings(data_dir=str(tmp_path)))


def test_a_key_that_cannot_be_written_is_made_again_later(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    vault = Vault(path=folder / KEY_FILE)
    with pytest.raises(StoreUnavailable):
        vault.seal(b"secret")
    folder.mkdir()
    assert vault.open(vault.seal(b"secret")) == b"secret"


@pytest.mark.parametrize("text", ["short", "x" * 44, f"{ONE},", ONE + ONE])
def test_a_setting_that_is_no_key(text: str) -> None:
    with pytest.raises(ConfigError, match="must be 32 bytes in base64") as refused:
        Settings(secret_key=text)
    assert text not in str(refused.value)


def test_settings_do_not_show_their_secrets() -> None:
    shown = repr(Settings(secret_key=ONE, token="t0ken", webhook_secret="whsec_c2VjcmV0"))
    assert not any(secret in shown for secret in (ONE, "t0ken", "c2VjcmV0"))
