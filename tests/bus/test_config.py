"""Settings: what is refused, and how it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bus.config import Settings, from_mapping, is_loopback, unknown_variables
from bus.errors import ConfigError


def test_the_defaults_hold() -> None:
    settings = Settings()
    assert settings.on_loopback
    assert not settings.in_memory


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"port": 70_000}, "--port must be between 0 and 65535"),
        ({"max_put_events_bytes": 1}, "--max-put-events-bytes must be between"),
        ({"max_event_pattern": 5000}, "--max-event-pattern must be between 1 and 4096"),
        ({"webhook_timeout": 0}, "--webhook-timeout must be between"),
        ({"log_format": "xml"}, "--log-format must be one of console, json"),
        ({"account_id": "12"}, "--account-id must be 12 digits"),
        ({"region": "moon"}, "--region must look like us-east-1"),
        ({"organization": "ours"}, "--organization must look like o-1a2b3c4d5e"),
        ({"allow_target": ("10.0.0.0/99",)}, "--allow-target must be a network"),
        ({"webhook_secret": "hunter2"}, "--webhook-secret must start with whsec_"),
        ({"credentials": "/nowhere/keys.json"}, "does not exist"),
        ({"data_dir": ""}, "--data-dir must not be empty"),
        ({"credentials": ""}, "--credentials must not be empty"),
        ({"token": ""}, "--token must not be empty"),
        ({"aws_endpoint_url": ""}, "--aws-endpoint-url must not be empty"),
        ({"aws_endpoint_url": "localhost:4566"}, "--aws-endpoint-url must be `aws`, or a URL"),
        ({"aws_endpoint_url": "http://[::1"}, "--aws-endpoint-url must be `aws`, or a URL"),
        ({"host": "0.0.0.0"}, "give --credentials FILE"),
        ({"prot": 1}, "did you mean 'port'"),
    ],
)
def test_what_cannot_be_used_is_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence.replace("(", r"\(")):
        from_mapping(values)


def test_a_refused_secret_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as refusal:
        Settings(webhook_secret="hunter2")
    assert "hunter2" not in str(refusal.value)


def test_beyond_this_machine_it_takes_keys_or_insecure(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text("[]")
    assert not Settings(host="0.0.0.0", credentials=str(keys)).on_loopback
    assert not Settings(host="0.0.0.0", insecure=True).on_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "127.0.0.1.example.org"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_a_mistyped_variable_is_pointed_out() -> None:
    assert unknown_variables({"BUSBAR_PROT": "1", "PATH": "/bin", "BUSBAR_PORT": "4010"}) == [
        "BUSBAR_PROT is not a setting; did you mean BUSBAR_PORT?"
    ]
