"""What every example needs around it: a bus to talk to, a webhook to be called, and clients."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

PATIENCE_S = 30.0
LISTENING = "busbar listening on "


class Bus:
    """`busbar serve` in a process of its own; a free port the first time, the same port after a restart."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)
        self.url = ""
        self._port = "0"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [
            sys.executable,
            "-m",
            "bus",
            "serve",
            "--port",
            self._port,
            "--data-dir",
            str(self.directory / "data"),
        ]
        with (self.directory / "log").open("a") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line.startswith(LISTENING):
            raise SystemExit(f"the bus did not start:\n{(self.directory / 'log').read_text()}")
        self.url = line.removeprefix(LISTENING)
        self._port = self.url.rpartition(":")[2]

    def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Take it away without a word, as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.communicate()
            self._process = None


@contextmanager
def own_bus() -> Iterator[Bus]:
    """A bus of one's own, with a data directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="busbar-") as directory:
        bus = Bus(directory)
        try:
            bus.start()
            yield bus
        finally:
            bus.stop()


@contextmanager
def endpoint() -> Iterator[str]:
    """The URL of the bus at BUSBAR_ENDPOINT_URL, or of one that lives as long as the example."""
    named = os.environ.get("BUSBAR_ENDPOINT_URL")
    if named:
        yield named
        return
    with own_bus() as bus:
        yield bus.url


def client(service: str, url: str, *, account: str = "example", region: str = "us-east-1", **config: Any) -> Any:
    """A boto3 client of the bus.

    A bus on this machine takes any credentials, so these are placeholders; an access key id of twelve digits is the
    account that the client acts in.
    """
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=region,
        aws_access_key_id=account,
        aws_secret_access_key="example",
        config=Config(proxies={}, **config),
    )


def call(url: str, method: str, path: str, body: Any = None) -> Any:
    """One of busbar's own routes, under /_bus."""
    data = None if body is None else json.dumps(body).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url + path, data, method=method), timeout=PATIENCE_S) as answer:
        return json.loads(answer.read())


@dataclass(frozen=True, slots=True)
class Arrived:
    """One request at a webhook."""

    path: str
    webhook_id: str
    event: Any
    status: int
    """What the webhook answered."""


class Webhook:
    """An HTTP server in this process; ``answer`` decides the status of each path's answer."""

    def __init__(self, answer: Callable[[str], int] = lambda path: 200, *, port: int = 0) -> None:
        self.answer = answer
        self._arrived: queue.Queue[Arrived] = queue.Queue()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Webhook:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def next(self, patience: float | None = PATIENCE_S) -> Arrived:
        """The next request, waiting for it so many seconds, or for ever."""
        try:
            return self._arrived.get(timeout=patience)
        except queue.Empty:
            raise SystemExit(f"no event arrived at {self.url} within {patience:.0f} s") from None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = webhook.answer(self.path)
                self.send_response(status)
                self.end_headers()
                webhook._arrived.put(Arrived(self.path, self.headers["webhook-id"], json.loads(body), status))

            def log_message(self, format: str, *args: Any) -> None:
                """The example tells what arrives."""

        return Handler
