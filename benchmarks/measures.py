"""The measures: each is a function from a `Plan` to rows of the table.

Theory of operation. A ratio is only worth something when both of its sides met the same machine, so every measure that
has a floor takes it in rounds (floor, measure, floor, measure, ...) and the median of the rounds' ratios is reported.
Servers and loops that are measured run on one core, generators and sinks on the other, for the floor as for the
measure. Each round of a measure that writes starts on an empty data directory, so that no round pays for the last.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import backlog, events
from benchmarks.processes import ANY_CORE, SERVER_CORE, BenchError, Running, Server, floor, free_port, job, sink
from benchmarks.report import Figure, Row, at_most, ratio_row

ACCOUNT = "000000000000"
QUEUE_ARN = f"arn:aws:sqs:us-east-1:{ACCOUNT}:bench"
HOOK_OPTIONS = ("--max-in-flight", "64")
DEAD_SOURCE = "shop.dead"
REPLAYED_SOURCE = "shop.replayed"
CEILING_FACTOR = 2.0
"""A generator whose own ceiling is not this far above what it measured would be measuring itself."""

UNWANTED = json.dumps({"source": ["shop.unwanted"]})
"""What the archive of a replay matches: none of the live events, which would only make it larger."""

BEHIND_MS = 250.0
"""When the last delivery comes this long after the last put, puts came faster than deliveries went."""


@dataclass
class Plan:
    """How much of everything, where, and what one measure found that another can use."""

    directory: Path
    rounds: int = 5
    seconds: float = 4.0
    deliveries: int = 20_000
    outstanding: int = 2_000
    failed: int = 100_000
    waiting: int = 1_000_000
    archived: int = 1_000_000
    last_puts: int = 50_000
    settle_seconds: float = 20.0
    pace_seconds: float = 8.0
    pairs: int = 5
    restarts: int = 3
    peak: float | None = None
    ceiling: float | None = None

    @contextlib.contextmanager
    def data_dir(self) -> Iterator[Path]:
        """An empty directory that is gone afterwards."""
        path = Path(tempfile.mkdtemp(dir=self.directory))
        try:
            yield path
        finally:
            shutil.rmtree(path)


Paced = dict[str, Any]
"""What came of a steady rate of events: the ``latencies`` of all of them (ms), and how far it fell ``behind``."""

QUICK: dict[str, Any] = {
    "rounds": 3, "seconds": 2.0, "deliveries": 5_000, "failed": 20_000, "waiting": 100_000, "archived": 200_000,
    "last_puts": 10_000, "settle_seconds": 5.0, "pace_seconds": 3.0, "pairs": 2, "restarts": 2,
}  # fmt: skip


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


# -- setting up a bus


def put_rule(server: Server, name: str, pattern: dict[str, object], **target: object) -> None:
    """A rule, with a target when one is given."""
    server.call("events", "PutRule", Name=name, EventPattern=json.dumps(pattern))
    if target:
        server.call("events", "PutTargets", Rule=name, Targets=[target])


def put_hundred_rules(server: Server, *, matching: bool) -> None:
    """A hundred rules with a queue as target, of which one or none matches the events."""
    server.call("sqs", "CreateQueue", QueueName="bench")
    for number, pattern in enumerate(events.patterns(matching=matching)):
        put_rule(server, f"rule-{number}", pattern, Id="queue", Arn=QUEUE_ARN)


def put_hook_rule(server: Server, port: int) -> None:
    put_rule(server, "hook", {"source": [events.SOURCE]}, Id="hook", Arn=f"http://127.0.0.1:{port}/hook")


def put_dead_rule(server: Server) -> None:
    """A rule whose webhook refuses every connection."""
    put_rule(server, "dead", {"source": [DEAD_SOURCE]}, Id="dead", Arn=f"http://127.0.0.1:{free_port()}/")


# -- PutEvents


def flood(server: Running, seconds: float) -> Figure:
    """PutEvents from 16 connections for so many seconds."""
    before = server.cpu_seconds()
    result = job("load", port=server.port, seconds=seconds)
    cpu = (server.cpu_seconds() - before) / (result["total"] * events.BATCH)
    return Figure(result["per_second"] * events.BATCH, cpu * 1e6)


def ceiling(plan: Plan) -> float:
    """Events a second that the load generator itself can put, against a responder that does nothing."""
    if plan.ceiling is None:
        with floor("responder") as responder:
            plan.ceiling = flood(responder, plan.seconds).per_second
    return plan.ceiling


def put_events(plan: Plan, *, matching: bool) -> Figure:
    """A flood at a new bus with a hundred rules."""
    with plan.data_dir() as directory, Server(directory, core=ANY_CORE) as server:
        server.wait_healthy()
        put_hundred_rules(server, matching=matching)
        return flood(server, plan.seconds)


def _put_events_row(plan: Plan, name: str, bar: float, *, matching: bool) -> Row:
    floors: list[Figure] = []
    measured: list[Figure] = []
    for number in range(plan.rounds):
        with floor("asgi", core=ANY_CORE) as bare:
            floors.append(flood(bare, plan.seconds))
        measured.append(put_events(plan, matching=matching))
        say(f"{name}, round {number + 1}: floor {floors[-1]}, busbar {measured[-1]}")
    row = ratio_row(name, floors, measured, bar)
    return replace(row, notes=row.notes + _ceiling_notes(plan, floors))


def _ceiling_notes(plan: Plan, floors: list[Figure]) -> str:
    """A remark when the load generator, not the server, may be what was measured."""
    if ceiling(plan) >= CEILING_FACTOR * max(each.per_second for each in floors):
        return ""
    return f"; the floor comes close to the load generator's own {ceiling(plan):,.0f} events/s"


def matched(plan: Plan) -> list[Row]:
    return [_put_events_row(plan, "PutEvents, 1 rule of 100 matches", 0.40, matching=True)]


def unmatched(plan: Plan) -> list[Row]:
    return [_put_events_row(plan, "PutEvents, no rule of 100 matches", 0.60, matching=False)]


# -- webhooks


def webhooks(plan: Plan) -> list[Row]:
    """Deliveries a second, from the first put to the last delivery."""
    floors: list[Figure] = []
    measured: list[Figure] = []
    for number in range(plan.rounds):
        floors.append(post(plan))
        measured.append(deliver(plan))
        say(f"webhooks, round {number + 1}: floor {floors[-1]}, busbar {measured[-1]}")
    plan.peak = statistics.median(each.per_second for each in measured)
    return [ratio_row("webhook deliveries end to end, 64 in flight", floors, measured, 0.50)]


def post(plan: Plan) -> Figure:
    """An aiohttp loop that posts to a sink."""
    port = free_port()
    with sink(port):
        url = f"http://127.0.0.1:{port}/hook"
        result = job("floors", "post", core=SERVER_CORE, url=url, count=plan.deliveries, in_flight=64)
    return Figure(result["per_second"], result["cpu_us"])


def deliver(plan: Plan) -> Figure:
    """A new bus that delivers to a sink what is put on it."""
    port = free_port()
    with plan.data_dir() as directory, Server(directory, *HOOK_OPTIONS) as server:
        server.wait_healthy()
        put_hook_rule(server, port)
        values = {"port": server.port, "sink": port, "outstanding": plan.outstanding}
        job("hook", "peak", **values, count=2_000)  # the first connections and the first pass through the code
        before = server.cpu_seconds()
        result = job("hook", "peak", **values, count=plan.deliveries)
        return Figure(result["per_second"], (server.cpu_seconds() - before) / plan.deliveries * 1e6)


def latency(plan: Plan) -> list[Row]:
    """p99 from put to receipt at a healthy webhook, without and with a dead target beside it."""
    rate = 0.2 * (plan.peak or deliver(plan).per_second)
    port = free_port()
    alone: list[Paced] = []
    beside: list[Paced] = []
    with plan.data_dir() as healthy, plan.data_dir() as burdened:
        _prepare(healthy, port, failed=0)
        _prepare(burdened, port, failed=plan.failed)
        for number in range(plan.pairs):
            alone.append(_pace(plan, healthy, port, rate))
            beside.append(_pace(plan, burdened, port, rate))
            say(f"latency, pair {number + 1}: {_p99s(alone[-1:], beside[-1:])}")
    return [_latency_row(plan, rate, alone, beside)]


def _quantile(runs: list[Paced], part: float) -> float:
    """A quantile of the latencies of several runs taken together (ms)."""
    latencies = sorted(latency for run in runs for latency in run["latencies"])
    return float(latencies[min(int(len(latencies) * part), len(latencies) - 1)])


def _p99s(alone: list[Paced], beside: list[Paced]) -> str:
    return f"p99 {_quantile(alone, 0.99):.2f} ms alone, {_quantile(beside, 0.99):.2f} ms beside"


def _latency_row(plan: Plan, rate: float, alone: list[Paced], beside: list[Paced]) -> Row:
    """All events of one kind of run together: a stall of the disk in a single run says little about the bus."""
    ratio = _quantile(beside, 0.99) / _quantile(alone, 0.99)
    pairs = [_quantile([ours], 0.99) / _quantile([theirs], 0.99) for theirs, ours in zip(alone, beside, strict=True)]
    behind = max(result["behind"] for result in [*alone, *beside])
    return Row(
        f"p99 latency, healthy webhook, {plan.failed:,} failed elsewhere",
        f"{_quantile(alone, 0.99):.2f} ms",
        f"{_quantile(beside, 0.99):.2f} ms",
        f"{ratio:.2f}",
        "≤ 2.00",
        ratio <= 2,
        f"{rate:,.0f} events/s; ratios by pair: {' '.join(f'{each:.2f}' for each in pairs)}; "
        f"p50 {_quantile(alone, 0.5):.2f} and {_quantile(beside, 0.5):.2f} ms, "
        f"longest {_quantile(alone, 1):.1f} and {_quantile(beside, 1):.1f} ms"
        + ("; the bus did not keep up with this rate, so this is no steady state" if behind > BEHIND_MS else ""),
    )


def _prepare(directory: Path, port: int, *, failed: int) -> None:
    """A stopped bus with a healthy webhook and, when ``failed``, as many failed deliveries of a dead one."""
    with Server(directory, *HOOK_OPTIONS) as server:
        server.wait_healthy()
        put_hook_rule(server, port)
        if failed:
            put_dead_rule(server)
        server.end()
    if failed:
        _fill(directory, failed, failed=True)


def _pace(plan: Plan, directory: Path, port: int, rate: float) -> Paced:
    with Server(directory, *HOOK_OPTIONS) as server:
        server.wait_healthy()
        job("hook", "pace", port=server.port, sink=port, rate=rate, seconds=1.0)
        result = job("hook", "pace", port=server.port, sink=port, rate=rate, seconds=plan.pace_seconds)
        server.end()
    return result


# -- replays


def replay(plan: Plan) -> list[Row]:
    """p99 from put to receipt at a healthy webhook, without and with a replay that feeds another one; its memory."""
    rate = 0.2 * (plan.peak or deliver(plan).per_second)
    port, other = free_port(), free_port()
    alone: list[Paced] = []
    beside: list[Paced] = []
    with plan.data_dir() as directory, sink(other):
        until = _prepare_archive(plan, directory, port, other)
        for number in range(plan.pairs):
            alone.append(_pace_and_replay(plan, directory, port, rate))
            beside.append(_pace_and_replay(plan, directory, port, rate, name=f"replay-{number}", until=until))
            say(f"replay, pair {number + 1}: {_p99s(alone[-1:], beside[-1:])}")
    return [_replay_row(plan, rate, alone, beside), _replay_memory_row(plan, alone, beside)]


def _prepare_archive(plan: Plan, directory: Path, port: int, other: int) -> int:
    """A stopped bus with two webhooks, and an archive whose events lead to the second; the end of the events' times."""
    bus = f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/default"
    with Server(directory, *HOOK_OPTIONS) as server:
        server.wait_healthy()
        put_hook_rule(server, port)
        put_rule(server, "replayed", {"source": [REPLAYED_SOURCE]}, Id="hook", Arn=f"http://127.0.0.1:{other}/hook")
        server.call("events", "CreateArchive", ArchiveName="bench", EventSourceArn=bus, EventPattern=UNWANTED)
        server.end()
    say(f"filling an archive with {plan.archived:,} events")
    result = job("archive", data_dir=str(directory), count=plan.archived, source=REPLAYED_SOURCE)
    if result["events"] != plan.archived:
        raise BenchError(f"{result['events']} events are archived instead of {plan.archived}")
    return int(result["until"])


def _pace_and_replay(plan: Plan, directory: Path, port: int, rate: float, *, name: str = "", until: int = 0) -> Paced:
    """What `pace` finds, with a replay of that name under way all the time; and the bus's memory."""
    with Server(directory, *HOOK_OPTIONS) as server:
        server.wait_healthy()
        if name:
            start_replay(server, name, until)
        job("hook", "pace", port=server.port, sink=port, rate=rate, seconds=1.0)
        before = replayed(server, name) if name else 0
        started = time.perf_counter()
        result = job("hook", "pace", port=server.port, sink=port, rate=rate, seconds=plan.pace_seconds)
        if name:
            result["replayed"] = (replayed(server, name) - before) / (time.perf_counter() - started)
            server.call("events", "CancelReplay", ReplayName=name)  # refused when it ended before the measure did
        result["memory"], _ = server.memory()
        server.end()
    return result


def start_replay(server: Server, name: str, until: int) -> None:
    """Start the replay of the whole archive, and wait until it runs."""
    source = f"arn:aws:events:us-east-1:{ACCOUNT}:archive/bench"
    destination = {"Arn": f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/default"}
    window = {"EventStartTime": 0, "EventEndTime": until}
    server.call("events", "StartReplay", ReplayName=name, EventSourceArn=source, Destination=destination, **window)
    deadline = time.perf_counter() + 60
    while not replayed(server, name):
        if time.perf_counter() > deadline:
            raise BenchError("the replay never began")
        time.sleep(0.01)


def replayed(server: Server, name: str) -> int:
    """How many events a replay has put so far."""
    _, body = server.request("GET", f"/_bus/replays?arn=arn:aws:events:us-east-1:{ACCOUNT}:replay/{name}")
    return int(json.loads(body)["Replays"][0]["Replayed"])


def _replay_row(plan: Plan, rate: float, alone: list[Paced], beside: list[Paced]) -> Row:
    row = _latency_row(plan, rate, alone, beside)
    pace = statistics.median(result["replayed"] for result in beside)
    name = f"p99 latency, healthy webhook, replay of {plan.archived:,} running"
    return replace(row, measure=name, notes=f"{row.notes}; meanwhile {pace:,.0f} events/s were replayed")


def _replay_memory_row(plan: Plan, alone: list[Paced], beside: list[Paced]) -> Row:
    without = statistics.median(result["memory"] for result in alone)
    grown = max(result["memory"] for result in beside) - without
    return Row(
        f"resident memory, replay of {plan.archived:,} running",
        f"{without:.0f} MB",
        f"{without + grown:.0f} MB",
        f"{grown:+.0f} MB",
        "≤ +100 MB",
        grown <= 100,
        "at the end of each half of a pair; the largest counts",
    )


# -- a long backlog


def _fill(directory: Path, count: int, *, failed: bool) -> None:
    say(f"filling a store with {count:,} deliveries")
    started = time.perf_counter()
    result = job("backlog", data_dir=str(directory), count=count, target="dead", failed=failed)
    if result["waiting"] < count:
        raise BenchError(f"{result['waiting']} deliveries wait instead of {count}")
    say(f"filled in {time.perf_counter() - started:.1f} s")


def memory(plan: Plan) -> list[Row]:
    """Resident memory with a long backlog against an idle bus; then the restarts with the same backlog."""
    with plan.data_dir() as empty, Server(empty) as server:
        server.wait_healthy()
        put_dead_rule(server)
        time.sleep(1)
        idle, _ = server.memory()
    with plan.data_dir() as directory:
        with Server(directory) as server:
            server.wait_healthy()
            put_dead_rule(server)
            server.end()
        _fill(directory, plan.waiting - plan.last_puts, failed=False)
        return [_memory_row(plan, directory, idle), *_restart_rows(plan, directory)]


def _memory_row(plan: Plan, directory: Path, idle: float) -> Row:
    with Server(directory) as server:
        server.wait_healthy()
        started, _ = server.memory()
        job("load", port=server.port, count=plan.last_puts, source=DEAD_SOURCE)
        put, _ = server.memory()
        time.sleep(plan.settle_seconds)
        later, highest = server.memory()
        server.end(signal.SIGKILL)
    grown = max(started, put, later) - idle
    say(f"memory: idle {idle:.0f} MB; ready {started:.0f}, after the puts {put:.0f}, later {later:.0f} MB")
    return Row(
        f"resident memory, {plan.waiting:,} waiting",
        f"{idle:.0f} MB",
        f"{grown + idle:.0f} MB",
        f"+{grown:.0f} MB",
        "≤ +200 MB",
        grown <= 200,
        f"ready {started:.0f} MB; after the last {plan.last_puts:,} came in by PutEvents {put:.0f} MB; "
        f"{plan.settle_seconds:g} s later {later:.0f} MB; highest {highest:.0f} MB",
    )


def _restart_rows(plan: Plan, directory: Path) -> list[Row]:
    clean: list[float] = []
    killed: list[float] = []
    _restart(directory)  # so that every start of the rounds follows a stop of the kind it is counted under
    for number in range(plan.restarts):
        clean.append(_restart(directory, kill_after=plan.last_puts // 5))
        killed.append(_restart(directory))
        say(f"restart, round {number + 1}: {clean[-1]:.2f} s after a clean stop, {killed[-1]:.2f} s after kill -9")
    name = f"restart to ready, {plan.waiting:,} waiting"
    notes = "the files' pages dropped from the system's cache before each start"
    return [
        at_most(f"{name}, clean stop", clean, 3.0, notes=notes),
        at_most(f"{name}, kill -9 after puts", killed, 3.0, notes=notes),
    ]


def _restart(directory: Path, *, kill_after: int = 0) -> float:
    """Seconds to ready; then a clean stop, or kill -9 right after so many events were put."""
    backlog.forget_cached(directory)
    with Server(directory) as server:
        took = server.wait_healthy()
        if kill_after:
            job("load", port=server.port, count=kill_after, source=DEAD_SOURCE)
            server.end(signal.SIGKILL)
        else:
            server.end()
    return took


# -- starting


def start(plan: Plan) -> list[Row]:
    """From the start of the process to the first answered PutEvents, on an empty data directory."""
    times = []
    entry = events.entry(0, compact=True)
    for _ in range(plan.rounds + 1):
        with plan.data_dir() as directory, Server(directory, core=None) as server:
            server.wait_ready()
            server.call("events", "PutEvents", Entries=[entry])
            times.append(time.perf_counter() - server.started)
    say(f"start: {' '.join(f'{each:.2f}' for each in times)} s")
    return [at_most("import and start to first answered PutEvents", times[1:], 1.5)]


MEASURES: dict[str, Callable[[Plan], list[Row]]] = {
    "matched": matched,
    "unmatched": unmatched,
    "webhooks": webhooks,
    "latency": latency,
    "replay": replay,
    "backlog": memory,
    "start": start,
}
