"""What end-to-end tests stand on: a real server process, and clients for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

DEADLINE_S = 60.0
"""How long a process may take to start or stop before the test fails; far beyond what it takes."""

SHOWN_LOG = 8000
ACCOUNT, REGION = "000000000000", "us-east-1"

StartServer = Callable[..., "Server"]
MakeClient = Callable[..., Any]


class Server:
    """`python -m bus serve` as a process of its own, on a free port, with a data directory of its own.

    After `kill` or `stop`, `restart` brings it back at the same URL with the same data.
    """

    def __init__(self, directory: Path, options: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self.data_dir = Path(options.get("data_dir") or directory / "data")
        self.url = ""
        self.log = directory / "stderr"
        self._options = {"port": 0, **options, "data_dir": str(self.data_dir)}
        self._environment = {**clean_environment(), **environment}
        self._process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Start the process and wait until it listens."""
        command = [sys.executable, "-m", "bus", "serve", *arguments(self._options)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env=self._environment, text=True
            )
        self.url = self._first_line(self._process).removeprefix("busbar listening on ")
        self._options["port"] = self.url.rpartition(":")[2]

    def stop(self) -> int:
        """SIGTERM, and wait for the end; the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """SIGKILL, and wait for the end."""
        return self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it, if it runs, and start it again."""
        self.stop()
        self.start()

    def said(self) -> str:
        """The end of what it wrote to stderr."""
        return self.log.read_text(errors="replace")[-SHOWN_LOG:]

    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None, "the server is stopped"
        return self._process

    def _first_line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        timer = threading.Timer(DEADLINE_S, process.kill)
        timer.start()
        line = process.stdout.readline().strip()
        timer.cancel()
        if not line.startswith("busbar listening on "):
            process.kill()
            raise AssertionError(f"the server did not start (status {process.wait()}): {line}\n{self.said()}")
        return line

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            return process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the server did not stop\n{self.said()}") from None
        finally:
            if process.stdout is not None:
                process.stdout.close()


def clean_environment() -> dict[str, str]:
    """This process's environment without anything that would configure a bus or an AWS client."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("BUSBAR_", "AWS_"))}


def arguments(options: Mapping[str, Any]) -> Iterator[str]:
    """Options of `serve` by their settings' names: True for a flag, a tuple for one that repeats."""
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            yield option
        elif value is not False and value is not None:
            for each in value if isinstance(value, list | tuple) else (value,):
                yield from (option, str(each))


_started: list[Server] = []
"""The servers of this worker that a failing test may want to see the log of."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with default settings that the tests of a module share."""
    made = Server(tmp_path_factory.mktemp("server"), {}, {})
    _started.append(made)
    yield made
    _end_all([made])


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers with settings of their own: ``start_server(strict=True, environment={...})``."""
    servers: list[Server] = []
    numbers = count(1)

    def start(*, environment: Mapping[str, str] | None = None, **options: Any) -> Server:
        directory = tmp_path / f"server-{next(numbers)}"
        directory.mkdir()
        servers.append(Server(directory, options, environment or {}))
        _started.append(servers[-1])
        return servers[-1]

    yield start
    _end_all(servers)


def _end_all(servers: Iterable[Server]) -> None:
    for each in servers:
        _started.remove(each)
        each.stop()


@pytest.fixture(scope="module")
def aws(request: pytest.FixtureRequest) -> Iterator[MakeClient]:
    """Makes boto3 clients: ``aws("events")`` at the shared server, ``aws("sqs", at=another)`` at another one.

    ``account`` and ``region`` make the scope. Credentials are placeholders, retries are off, and ``check=False``
    turns off boto3's own checks of parameters, so that it is the server that refuses.
    """
    clients: dict[tuple[Any, ...], Any] = {}

    def make(
        service: str, *, at: Server | None = None, account: str = ACCOUNT, region: str = REGION, check: bool = True
    ) -> Any:
        url = (at or request.getfixturevalue("server")).url
        key = (service, url, account, region, check)
        if key not in clients:
            clients[key] = boto3.client(
                service,
                endpoint_url=url,
                region_name=region,
                aws_access_key_id=account,
                aws_secret_access_key="any",
                config=Config(parameter_validation=check, retries={"total_max_attempts": 1}, proxies={}),
            )
        return clients[key]

    yield make
    for client in clients.values():
        client.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Beside a failure, what the servers said."""
    report = yield
    if report.failed:
        for each in _started:
            report.sections.append((f"stderr of the server at {each.url}", each.said()))
    return report
