"""Load from several clients that survive the server's death: what they were answered is what they count as accepted."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from urllib.parse import urlsplit

CLIENTS = 4
ENTRIES = 10
DEADLINE_S = 60.0
HEADERS = {"X-Amz-Target": "AWSEvents.PutEvents", "Content-Type": "application/x-amz-json-1.1"}

MakeEntry = Callable[[int], dict[str, Any]]


class Load:
    """Clients that put batches of events made by ``entry`` from running numbers.

    A batch without an answer counts for nothing: it may be on disk or not. ``accepted`` maps the ids of all others to
    their numbers. ``refused`` has the numbers of entries that were answered with an error.
    """

    def __init__(self, url: str, entry: MakeEntry) -> None:
        self.accepted: dict[str, int] = {}
        self.refused: list[int] = []
        self._place = urlsplit(url)
        self._entry = entry
        self._numbers = count()
        self._changed = threading.Condition()
        self._up = threading.Event()
        self._up.set()
        self._over = False
        self._faults: list[BaseException] = []

    @contextmanager
    def running(self) -> Iterator[Load]:
        """Put events as fast as they are taken, for as long as the block runs."""
        threads = [threading.Thread(target=self._guarded, daemon=True) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over = True
            self._up.set()
            for thread in threads:
                thread.join(DEADLINE_S)
        assert not self._faults, self._faults
        assert not any(thread.is_alive() for thread in threads)

    def wait_for_more(self, number: int) -> None:
        """Wait until ``number`` more events have been accepted."""
        with self._changed:
            goal = len(self.accepted) + number
            reached = self._changed.wait_for(lambda: len(self.accepted) >= goal or self._faults, DEADLINE_S)
        assert reached, f"{number} more events were never accepted"
        assert not self._faults, self._faults

    @contextmanager
    def server_is_down(self) -> Iterator[None]:
        """Clients that lose their connection in this block wait for its end before they try again."""
        self._up.clear()
        try:
            yield
        finally:
            self._up.set()

    def _guarded(self) -> None:
        try:
            self._put_until_over()
        except BaseException as fault:
            with self._changed:
                self._faults.append(fault)
                self._changed.notify_all()

    def _put_until_over(self) -> None:
        while not self._over:
            self._up.wait(DEADLINE_S)
            connection = http.client.HTTPConnection(self._place.hostname or "", self._place.port, timeout=DEADLINE_S)
            try:
                while not self._over:
                    self._put(connection)
            except (OSError, http.client.HTTPException):
                pass  # the server was killed; nothing of this batch counts
            finally:
                connection.close()

    def _put(self, connection: http.client.HTTPConnection) -> None:
        with self._changed:
            numbers = [next(self._numbers) for _ in range(ENTRIES)]
        body = json.dumps({"Entries": [self._entry(number) for number in numbers]})
        connection.request("POST", "/", body=body, headers=HEADERS)
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise AssertionError(f"PutEvents was answered with {response.status}: {text!r}")
        answer = json.loads(text)
        with self._changed:
            for number, result in zip(numbers, answer["Entries"], strict=True):
                if "EventId" in result:
                    self.accepted[result["EventId"]] = number
                else:
                    self.refused.append(number)
            self._changed.notify_all()
