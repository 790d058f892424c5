"""HTTP as uvicorn speaks it, with an end to headers, and a short way for requests that are answered without a task.

Theory of operation. A POST that `Turn` wants is collected here and offered to it when it is complete; it is answered by
`_reply`, or left, and then goes the usual way. To uvicorn such a request is the connection's cycle like any other:
requests that follow it wait in the pipeline, and a stop lets it finish.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from bus.api.dialect import Answer
from bus.api.turn import Offered, Turn

LONGEST_HEAD = 65_536
"""Bytes of request line and headers, or of trailers, that may come before anything of use."""

LONGEST_SHORT = 65_536
"""Bytes of a body on the short way; up to these uvicorn does not stop reading either."""

_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_CLOSE = (b"connection", b"close")


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol; without an end to headers, a client that never finishes them would fill the memory."""

    _head = 0
    """Bytes received since the last that belonged to a body or ended a head."""

    def __init__(self, *arguments: Any, turn: Turn | None = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._turn = turn
        self._idle_since: float | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        """Looks whether the connection has been idle since an answer on the short way."""
        self._defaults: list[tuple[bytes, bytes]] = []
        self._default_lines = b""

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        self._idle_since = None
        super().data_received(data)
        if self._head > LONGEST_HEAD and not self.transport.is_closing():
            self.transport.write(_TOO_LONG)
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._head = 0
        if self._turn is None or self.url != b"/" or not self._begins_short(self._turn):
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head = 0
        super().on_message_complete()
        short: object = self.cycle
        if isinstance(short, _Short) and self._turn is not None and not short.offered:
            short.offered = True
            reply, leave = partial(self._reply, short), partial(self._go_the_usual_way, short)
            self._turn.offer(Offered(short.headers, self.headers, bytes(short.body), reply, leave))

    def connection_lost(self, error: Exception | None) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        super().connection_lost(error)

    # -- the short way

    def _begins_short(self, turn: Turn) -> bool:
        """Whether the request that begins may go the short way; then it is the connection's cycle."""
        parser, before = self.parser, self.cycle
        if parser.get_method() != b"POST" or not (before is None or before.response_complete) or self.pipeline:
            return False
        headers = dict(self.headers)
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or len(length) > 9 or int(length) > LONGEST_SHORT or self.expect_100_continue:
            return False
        if self.flow.write_paused or parser.should_upgrade() or parser.get_http_version() != "1.1":
            return False
        if not parser.should_keep_alive() or not turn.wants(headers):
            return False
        self.scope |= {"method": "POST", "path": "/", "raw_path": b"/", "query_string": b""}
        self.cycle = _Short(self.scope, headers)  # type: ignore[assignment]
        return True

    def _go_the_usual_way(self, short: _Short) -> None:
        """Give a request a task, as uvicorn does; others may have come behind it by now."""
        if short.disconnected:
            return
        cycle = RequestResponseCycle(
            scope=short.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=short.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.body, cycle.more_body = short.body, False
        cycle.message_event.set()
        latest: object = self.cycle
        if latest is short:
            self.cycle = cycle
        task = self.loop.create_task(cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _reply(self, short: _Short, answer: Answer, request_id: str) -> None:
        if short.response_complete:
            return
        short.response_complete = True
        if short.disconnected:
            return
        headers = answer.headers if short.keep_alive else (*answer.headers, _CLOSE)
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        self.transport.write(
            b"%b%bx-amzn-requestid: %b\r\ncontent-length: %d\r\n%b\r\n%b"
            % (STATUS_LINE[answer.status], self._always(), request_id.encode(), len(answer.body), lines, answer.body)
        )
        if _CLOSE in headers:
            self.transport.close()
        self._after_short()

    def _always(self) -> bytes:
        """The lines that uvicorn puts into every answer; it makes them anew each second."""
        if self.server_state.default_headers is not self._defaults:
            self._defaults = self.server_state.default_headers
            self._default_lines = b"".join([b"%b: %b\r\n" % header for header in self._defaults])
        return self._default_lines

    def _after_short(self) -> None:
        """What uvicorn does when a response is complete, but for a timer that is set and cancelled each time."""
        if self.pipeline or self.transport.is_closing():
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._see_if_idle)

    def _see_if_idle(self) -> None:
        """Close the connection if nothing came since the answer, as uvicorn's own timer does."""
        self._idle_timer = None
        if self._idle_since is None or self.transport.is_closing():
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._see_if_idle)
        else:
            self.transport.close()


class _Nobody:
    """Stands for whoever waits for parts of a body."""

    def set(self) -> None: ...


class _Short:
    """A request on the short way, as far as uvicorn looks into the cycle of a connection."""

    __slots__ = ("body", "disconnected", "headers", "keep_alive", "more_body", "offered", "response_complete", "scope")

    def __init__(self, scope: Any, headers: Mapping[bytes, bytes]) -> None:
        self.scope = scope
        self.headers = headers
        self.body = bytearray()
        self.more_body = True
        self.offered = False
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = False

    message_event = _Nobody()
