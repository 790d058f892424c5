"""The server: a socket, uvicorn, and an orderly stop."""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import structlog
import uvicorn

from bus.api.turn import Turn
from bus.app import open_app
from bus.config import Settings
from bus.errors import ConfigError
from bus.protocol import HttpProtocol

log = structlog.get_logger("server")


def uvicorn_config(app: object, settings: Settings, *, turn: Turn | None = None) -> uvicorn.Config:
    """How every HTTP server of ours runs; the benchmark's floor uses the same, without a ``turn``."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        loop="uvloop",
        http=partial(HttpProtocol, turn=turn),  # type: ignore[arg-type]
        ws="none",
        interface="asgi3",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, int(settings.stop_grace)),
        backlog=2048,
    )


def bind(settings: Settings) -> socket.socket:
    """A listening socket; ConfigError with what to do when the address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except socket.gaierror as error:
        listener.close()
        raise ConfigError(f"--host {settings.host} is not an address of this machine: {error.strerror}") from error
    except OSError as error:
        listener.close()
        advice = "stop what is using it, or choose another --port (0 picks a free one)"
        if error.errno != errno.EADDRINUSE:
            advice = "choose another --host or --port"
        raise ConfigError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; {advice}"
        ) from error
    listener.setblocking(False)
    return listener


def address_of(listener: socket.socket) -> str:
    """The URL a listening socket is reached at."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process before the bus is closed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings, *, announce: Callable[[str], None] | None = None) -> None:
    """Run a bus until SIGTERM or SIGINT; a second signal stops without grace.

    Raises ConfigError or StoreUnusable when it cannot start; nothing is left behind then.
    """
    listener = bind(settings)
    try:
        app = await open_app(settings)
    except BaseException:
        listener.close()
        raise
    _settle_down()
    server = Server(uvicorn_config(app, settings, turn=Turn(app.rpc)))
    _stop_on_signals(server, app.begin_stop)
    url = address_of(listener)
    log.info("serving", url=url, data_dir=settings.data_dir)
    (announce or _announce)(url)
    try:
        await server.serve(sockets=[listener])
    finally:
        await app.close()
        log.info("stopped")


def _settle_down() -> None:
    """Spare the garbage collector what lives as long as the process, and let it look less often at the rest.

    Events and their plans are freed by reference counts; looking for cycles among them is a twentieth of all work.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _announce(url: str) -> None:
    sys.stdout.write(f"busbar listening on {url}\n")
    sys.stdout.flush()


def _stop_on_signals(server: uvicorn.Server, begin_stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if server.should_exit:
            server.force_exit = True
            return
        server.should_exit = True
        begin_stop()

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop)
