"""Starting, pinning, asking and ending the processes of a benchmark."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SERVER_CORE = 0
CLIENT_CORE = 1
"""Servers and what stands in for them run on one core, generators and sinks on the other; see also `ANY_CORE`."""

ANY_CORE = None
"""Where PutEvents and its floor are measured: the bus stores events for queues beside its loop, on any core."""

READY_S = 60.0
JOB_S = 300.0
POLL_S = 0.001

TARGET_PREFIXES = {"events": ("AWSEvents", "1.1"), "sqs": ("AmazonSQS", "1.0")}


class BenchError(Exception):
    """A measure could not be taken: what ran did not do what is being measured."""


def pin(process: int, core: int) -> None:
    """Keep a process (and the threads it starts from now on) on one core, where there are two."""
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(process, {core})


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def job(module: str, *arguments: str, core: int = CLIENT_CORE, **values: Any) -> dict[str, Any]:
    """Run ``python -m benchmarks.MODULE`` to its end; the JSON it printed."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments, json.dumps(values)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        pin(process.pid, core)
        try:
            output, _ = process.communicate(timeout=JOB_S)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise BenchError(f"{' '.join(command[1:])} ended with {process.returncode}")
    result: dict[str, Any] = json.loads(output)
    for fault in ("refused", "lost"):
        if result.get(fault):
            raise BenchError(f"{' '.join(command[1:])}: {result[fault]} requests {fault}")
    return result


class Running:
    """A process that serves until the end of its ``with`` block; what it writes goes to a file."""

    def __init__(self, command: list[str], *, core: int | None, port: int) -> None:
        self.port = port
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.started = time.perf_counter()
        self._process = subprocess.Popen(command, stdout=self._output, stderr=self._output)
        if core is not None:
            pin(self._process.pid, core)

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Processor time it has used so far, its own and the system's on its behalf."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_ready(self) -> float:
        """Seconds from the start until it accepts a connection."""
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return time.perf_counter() - self.started
            except OSError:
                self._check_alive()
                time.sleep(POLL_S)

    def _check_alive(self) -> None:
        if self._process.poll() is not None:
            raise BenchError(f"ended with {self._process.returncode} before it was ready:\n{self.output()}")
        if time.perf_counter() - self.started > READY_S:
            raise BenchError(f"not ready after {READY_S:g} s:\n{self.output()}")

    def output(self) -> str:
        """The end of what it wrote."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")[-2000:]

    def end(self, sign: signal.Signals = signal.SIGTERM) -> None:
        """Stop it and wait until it is gone."""
        if self._process.poll() is None:
            self._process.send_signal(sign)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(signal.SIGKILL)


def floor(name: str, *, core: int | None = SERVER_CORE, **values: Any) -> Running:
    """A serving floor, ready."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.floors", name, json.dumps({"port": port, **values})]
    running = Running(command, core=core, port=port)
    running.wait_ready()
    return running


def sink(port: int) -> Running:
    """A sink for webhooks, ready."""
    command = [sys.executable, "-m", "benchmarks.hook", "sink", json.dumps({"sink": port})]
    running = Running(command, core=CLIENT_CORE, port=port)
    running.wait_ready()
    return running


class Server(Running):
    """`busbar serve` on a data directory."""

    def __init__(self, data_dir: Path, *options: str, core: int | None = SERVER_CORE) -> None:
        port = free_port()
        command = [
            sys.executable, "-m", "bus", "serve",
            "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(data_dir), *options,
        ]  # fmt: skip
        super().__init__(command, core=core, port=port)

    def call(self, service: str, operation: str, **members: Any) -> dict[str, Any]:
        """One operation over the wire."""
        prefix, version = TARGET_PREFIXES[service]
        headers = {"content-type": f"application/x-amz-json-{version}", "x-amz-target": f"{prefix}.{operation}"}
        status, body = self.request("POST", "/", json.dumps(members).encode(), headers)
        if status != 200:
            raise BenchError(f"{operation} answered {status}: {body.decode(errors='replace')}")
        answer: dict[str, Any] = json.loads(body or b"{}")
        return answer

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """One HTTP request on a connection of its own: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def wait_healthy(self) -> float:
        """Seconds from the start until ``GET /_bus/health`` answers 200."""
        while True:
            try:
                status, _ = self.request("GET", "/_bus/health")
            except OSError:
                status = 0
            if status == 200:
                return time.perf_counter() - self.started
            self._check_alive()
            time.sleep(POLL_S)

    def memory(self) -> tuple[float, float]:
        """Resident memory now and at its highest, in MB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        lines = dict(line.split(":", 1) for line in status.splitlines())
        now, highest = (int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
        return now, highest
