"""The statements of the queues against a naive model: a list of messages that is searched from end to end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import apsw
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.store import NewMessage, message_upkeep, messages
from bus.store.database import connect
from bus.store.message_upkeep import Counts
from bus.store.messages import DeadLetters, Source

QUEUE, DEAD, OTHER = 1, 2, 3
RETENTION = 50
MAX_RECEIVES = 3


@dataclass
class Message:
    number: int
    group: str
    visible: int
    sent: int
    received: int = 0
    receives: int = 0


@dataclass
class Model:
    """What a queue is, with no index and no cleverness."""

    fifo: bool
    now: int = 1000
    last: int = 0
    held: list[Message] = field(default_factory=list)
    dead: list[int] = field(default_factory=list)

    def send(self, group: str, delay: int) -> None:
        self.last += 1
        self.held.append(Message(self.last, group, self.now + delay, self.now))

    def receive(self, limit: int, timeout: int) -> list[int]:
        taken: list[Message] = []
        done: set[str] = set()
        while len(taken) < limit:
            run = self.next_run(done, taken)[: limit - len(taken)]
            if not run:
                break
            for message in run:
                if message.sent <= self.now - RETENTION:
                    self.held.remove(message)
                elif message.received and message.receives >= MAX_RECEIVES:
                    self.held.remove(message)
                    self.last += 1
                    self.dead.append(self.last)
                else:
                    taken.append(message)
                    done.add(message.group)
        for message in taken:
            message.visible, message.received = self.now + timeout, self.now
            message.receives += 1
        return [message.number for message in taken]

    def next_run(self, done: set[str], taken: list[Message]) -> list[Message]:
        """The next messages that may be received; in a FIFO queue, of one group."""
        if not self.fifo:
            free = [m for m in self.held if m.visible <= self.now and m not in taken]
            return sorted(free, key=lambda m: (m.visible, m.sent, m.received, m.number))
        groups = {m.group: [n for n in self.held if n.group == m.group] for m in self.held}
        heads = [run[0] for group, run in groups.items() if group not in done and run[0].visible <= self.now]
        if not heads:
            return []
        run = groups[min(heads, key=lambda m: (m.visible, m.number)).group]
        end = next((place for place, m in enumerate(run) if m.visible > self.now), len(run))
        return run[:end]

    def counts(self) -> Counts:
        alive = [m for m in self.held if m.sent > self.now - RETENTION]
        hidden = [m for m in alive if m.visible > self.now]
        in_flight = sum(1 for m in hidden if m.received)
        return Counts(len(alive) - len(hidden), in_flight, len(hidden) - in_flight)


class Sut:
    """The same, through the statements."""

    def __init__(self, fifo: bool) -> None:
        self.connection = connect(":memory:")
        self.fifo = fifo
        self.sent = 0

    def source(self, now: int) -> Source:
        return Source(QUEUE, self.fifo, now - RETENTION)

    def send(self, group: str, delay: int, now: int) -> None:
        self.sent += 1
        own = str(self.sent)
        name = own if self.fifo else None
        messages.insert(self.connection, [NewMessage(QUEUE, own, now + delay, now, "b", None, group, name)])

    def receive(self, limit: int, timeout: int, now: int) -> list[int]:
        dead = DeadLetters(DEAD, MAX_RECEIVES, "arn", by_group=False)
        taken = messages.receive(
            self.connection, self.source(now), now=now, until=now + timeout, limit=limit, dead=dead
        )
        return [message.number for message in taken.messages]

    def numbers(self, queue: int) -> list[int]:
        rows: Any = self.connection.execute("SELECT number FROM message WHERE queue=? ORDER BY number", (queue,))
        return [number for (number,) in rows]

    def heads(self) -> list[tuple[str, int]]:
        rows: Any = self.connection.execute("SELECT grp, number FROM message WHERE queue=? AND head = 1", (QUEUE,))
        return sorted(rows)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from("abc"), st.sampled_from([0, 0, 0, 3])),
        st.tuples(st.just("receive"), st.integers(1, 5), st.sampled_from([0, 5, 20])),
        st.tuples(st.just("delete"), st.integers(0, 20), st.none()),
        st.tuples(st.just("free"), st.integers(0, 20), st.sampled_from([0, 7])),
        st.tuples(st.just("pass"), st.integers(1, 30), st.none()),
        st.tuples(st.just("expire"), st.none(), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(fifo=st.booleans(), steps=STEPS)
def test_statements_equal_the_model(fifo: bool, steps: list[tuple[str, Any, Any]]) -> None:
    model, sut = Model(fifo), Sut(fifo)
    for what, first, second in steps:
        if what == "send":
            model.send(first, second)
            sut.send(first, second, model.now)
        elif what == "receive":
            now = model.now
            assert sut.receive(first, second, now) == model.receive(first, second)
        elif what in ("delete", "free") and model.held:
            message = model.held[first % len(model.held)]
            if what == "delete":
                model.held.remove(message)
                messages.delete(sut.connection, message.number)
            else:
                message.visible = model.now + second
                messages.set_visible(sut.connection, message.number, message.visible)
        elif what == "pass":
            model.now += first
        elif what == "expire":
            model.held = [m for m in model.held if m.sent > model.now - RETENTION or _delayed(m, model.now)]
            message_upkeep.expire(sut.connection, sut.source(model.now), 1000)
        check(model, sut)


def _delayed(message: Message, now: int) -> bool:
    """Upkeep leaves what was never received until it would have been visible for the retention period."""
    return message.receives == 0 and message.visible > now - RETENTION


def check(model: Model, sut: Sut) -> None:
    assert sut.numbers(QUEUE) == [m.number for m in model.held]
    assert sut.numbers(DEAD) == model.dead
    assert message_upkeep.count(sut.connection, sut.source(model.now), model.now) == model.counts()
    if model.fifo:
        first: dict[str, int] = {}
        for m in model.held:
            first.setdefault(m.group, m.number)
        assert sut.heads() == sorted(first.items())
        heads = [m for m in model.held if first[m.group] == m.number]
    else:
        heads = model.held
    later = [m.visible for m in heads if m.visible > model.now]
    assert messages.next_visible(sut.connection, sut.source(model.now), model.now) == min(later, default=None)


PLANS = {
    "receive, standard": ("SELECT number FROM message WHERE queue=? AND visible<=? AND number<=?"
                          " ORDER BY visible, sent, received, number LIMIT 10", "message_visible"),
    "receive, FIFO": ("SELECT grp FROM message WHERE queue=? AND head = 1 AND visible<=? AND number<=?"
                      " ORDER BY visible, number LIMIT 10", "message_head"),
    "group": ("SELECT visible, number FROM message WHERE queue=? AND grp=? AND head IS NOT NULL AND number<=?"
              " ORDER BY number LIMIT 10", "message_group"),
    "count": ("SELECT count(*) FROM message WHERE queue=? AND visible<=? AND sent>?", "COVERING INDEX message_visible"),
    "expired": ("SELECT number FROM message WHERE queue=? AND receives > 0 AND sent<=? LIMIT ?", "message_received"),
}  # fmt: skip


def test_each_question_is_answered_by_its_index() -> None:
    connection = connect(":memory:")
    for what, (query, index) in PLANS.items():
        plan = " / ".join(
            str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", (1,) * query.count("?"))
        )
        assert f"{index} " in plan, f"{what}: {plan}"
        assert "TEMP B-TREE" not in plan, f"{what}: {plan}"


def test_numbers_of_a_batch_follow_each_other() -> None:
    connection = connect(":memory:")
    plain = [NewMessage(QUEUE, f"p{n}", 1, 1, f"body {n}", b"x", "g") for n in range(3)]
    named = [NewMessage(OTHER, f"f{n}", 1, 1, "b", None, "g", "same") for n in range(2)]
    stored = messages.insert(connection, plain) + messages.insert(connection, [*named, plain[0]])
    assert [(s.number, s.message_id, s.duplicate) for s in stored] == [
        (1, "p0", False), (2, "p1", False), (3, "p2", False), (4, "f0", False), (4, "f0", True), (5, "p0", False),
    ]  # fmt: skip
    assert messages.insert(connection, []) == []
    rows: Any = connection.execute("SELECT id, body, attrs, grp, dedup, head FROM message ORDER BY number")
    assert list(rows)[2:4] == [("p2", "body 2", b"x", "g", None, None), ("f0", "b", None, "g", "same", 1)]


def test_numbers_are_never_used_twice() -> None:
    connection = connect(":memory:")
    send = [NewMessage(QUEUE, "a", 0, 0, "b")]
    (first,) = messages.insert(connection, send)
    messages.delete(connection, first.number)
    (second,) = messages.insert(connection, send)
    assert second.number > first.number
    assert message_upkeep.last_number(connection) == second.number


def test_queues_are_found_one_by_one() -> None:
    connection: apsw.Connection = connect(":memory:")
    assert message_upkeep.queues(connection) == set()
    messages.insert(connection, [NewMessage(queue, "a", 0, 0, "b") for queue in (7, 3, 7, 900)])
    assert message_upkeep.queues(connection) == {3, 7, 900}
