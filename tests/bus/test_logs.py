"""Logs: what a line may hold."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import pytest
import structlog

from bus import logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _with_locals(out: TextIO, error: Any) -> None:
    out.write(f"ValueError: told {error[2].tb_frame.f_locals}")


class _WithRich(structlog.dev.ConsoleRenderer):
    """Shows local variables by default, as the renderer does where rich is installed."""

    def __init__(self, *, exception_formatter: Any = _with_locals, **options: Any) -> None:
        super().__init__(exception_formatter=exception_formatter, **options)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_tracebacks_show_no_local_variables(monkeypatch: pytest.MonkeyPatch, log_format: str) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(structlog.dev, "ConsoleRenderer", _WithRich)
    logs.configure(log_format, "info")
    secret = "".join(["41", "11"])
    try:
        raise ValueError("told")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "ValueError: told" in stderr.getvalue()
    assert secret not in stderr.getvalue()
