"""Every command of `busbar` as a person runs it: a process of its own against a real server.

Mistakes and help texts are tried in this process, through the same entry, since starting one takes most of a second.
"""

from __future__ import annotations

import functools
import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from bus.cli import main
from bus.commands.entries import Numbered, batches
from tests.e2e.sink import Reply, Sink

DEADLINE_S = 60
NOWHERE = "http://127.0.0.1:1"
KEY = {"AWS_ACCESS_KEY_ID": "shop", "AWS_SECRET_ACCESS_KEY": "secret"}

_names = count(1)


class Server(Protocol):
    """What these tests use of the server in conftest."""

    url: str
    data_dir: Path

    def stop(self) -> int: ...
    def kill(self) -> int: ...


Run = Callable[..., Any]
Aws = Callable[..., Any]


def clean(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BUSBAR_", "AWS_"))}
    return {**kept, "AWS_EC2_METADATA_DISABLED": "true", "COLUMNS": "200", **extra}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "bus", *words]


def busbar(*words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), input=stdin, env=clean(environment), capture_output=True, text=True, timeout=DEADLINE_S,
        check=False,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a command, as `subprocess` says it."""

    returncode: int
    stdout: str
    stderr: str


def invoke(*words: str, stdin: str = "", **environment: str) -> Ended:
    """The command in this process, with nothing but ``environment`` to configure it."""
    absent = {name: None for name in os.environ if name.startswith(("BUSBAR_", "AWS_"))}
    done = CliRunner().invoke(
        main, words, input=stdin, env={**absent, "COLUMNS": "200", **environment}, prog_name="busbar"
    )
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Ended(done.exit_code, done.stdout, done.stderr)


@pytest.fixture
def attempt(server: Server) -> Run:
    """Runs a command in this process against the module's server."""
    return functools.partial(invoke, BUSBAR_ENDPOINT_URL=server.url)


@pytest.fixture
def run(server: Server) -> Run:
    """Runs a command against the module's server, whose URL comes from the environment."""

    def run(*words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return busbar(*words, stdin=stdin, **{"BUSBAR_ENDPOINT_URL": server.url, **environment})

    return run


@pytest.fixture
def name() -> str:
    """A name that no other test of the module uses, for a bus, a rule or a source."""
    return f"name-{next(_names)}"


@pytest.fixture
def tapped(aws: Aws, name: str) -> Iterator[Callable[[int], list[dict[str, Any]]]]:
    """A queue that gets every event from the source ``name``; calling it waits for so many."""
    events, sqs = aws("events"), aws("sqs")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    events.put_rule(Name=name, EventPattern=json.dumps({"source": [name]}))
    arn = f"arn:aws:sqs:us-east-1:000000000000:{name}"
    events.put_targets(Rule=name, Targets=[{"Id": "tap", "Arn": arn}])

    def received(number: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while len(found) < number:
            messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=20).get("Messages")
            assert messages, f"only {len(found)} of {number} events arrived"
            found += [json.loads(message["Body"]) for message in messages]
        return found

    yield received
    events.remove_targets(Rule=name, Ids=["tap"])
    events.delete_rule(Name=name)


def lines(source: str, number: int) -> str:
    return "".join(
        json.dumps({"Source": source, "DetailType": "Made", "Detail": {"n": n}}) + "\n" for n in range(number)
    )


class TestHelp:
    COMMANDS = (
        (),
        ("serve",),
        ("put",),
        ("tail",),
        ("rules",),
        ("wire",),
        ("wire", "add"),
        ("wire", "list"),
        ("wire", "remove"),
        ("dlq",),
        ("dlq", "list"),
        ("dlq", "show"),
        ("dlq", "redrive"),
        ("test-pattern",),
    )

    @pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
    def test_every_help_explains_and_names_environment_variables(self, words: tuple[str, ...]) -> None:
        ended = invoke(*words, "--help")
        assert ended.returncode == 0
        assert len(ended.stdout.splitlines()) > 5
        options = set(re.findall(r"^  (--[a-z-]+)", ended.stdout, re.MULTILINE)) - {"--version"}
        assert " ".join(ended.stdout.split()).count("[env var: BUSBAR_") == len(options)

    @pytest.mark.parametrize("words", [(), ("put",), ("tail",), ("rules",), ("wire",), ("dlq",), ("test-pattern",)])
    def test_help_shows_the_command_in_use(self, words: tuple[str, ...]) -> None:
        assert f"  busbar {' '.join(words)}" in invoke(*words, "--help").stdout

    def test_version(self) -> None:
        assert re.fullmatch(r"busbar, version [0-9.]+\n", busbar("--version", BUSBAR_VERSION="1").stdout)

    def test_an_unknown_command_is_answered_with_the_nearest(self) -> None:
        ended = invoke("serv")
        assert ended.returncode == 2
        assert "serve" in ended.stderr


class TestPut:
    def test_one_event_from_arguments_shows_its_id(self, run: Run, name: str, tapped: Any) -> None:
        ended = run("put", name, "OrderPlaced", '{"id": 1}', "--resource", "arn:a", "--resource", "arn:b")
        assert (ended.returncode, ended.stderr) == (0, "")
        (event,) = tapped(1)
        assert event["id"] == ended.stdout.strip()
        assert event["detail-type"] == "OrderPlaced"
        assert event["detail"] == {"id": 1}
        assert event["resources"] == ["arn:a", "arn:b"]

    def test_entries_and_whole_events_on_stdin(self, run: Run, name: str, tapped: Any) -> None:
        whole = {"id": "old", "source": name, "detail-type": "B", "detail": {"n": 2}, "time": "2026-01-31T12:00:00Z"}
        text = lines(name, 1) + "\n" + json.dumps(whole) + "\n"
        ended = run("put", stdin=text)
        assert (ended.returncode, ended.stdout) == (0, "2 events put\n")
        first, second = sorted(tapped(2), key=lambda event: event["detail-type"])[::-1]
        assert (first["detail-type"], first["detail"]) == ("Made", {"n": 0})
        assert (second["detail-type"], second["time"]) == ("B", "2026-01-31T12:00:00Z")
        assert second["id"] != "old"

    def test_many_from_a_file_all_arrive_once(self, run: Run, name: str, tapped: Any, tmp_path: Path) -> None:
        path = tmp_path / "events.jsonl"
        path.write_text(lines(name, 137))
        ended = run("put", "--file", str(path))
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "137 events put\n", "")
        assert sorted(event["detail"]["n"] for event in tapped(137)) == list(range(137))

    def test_a_stream_is_put_as_it_comes(self, server: Server, name: str, tapped: Any) -> None:
        process = subprocess.Popen(
            command("put"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=clean({"BUSBAR_ENDPOINT_URL": server.url}),
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(lines(name, 3))
        process.stdin.flush()
        assert len(tapped(3)) == 3  # while the stream is still open
        out, _ = process.communicate(timeout=DEADLINE_S)
        assert (process.returncode, out) == (0, "3 events put\n")

    def test_quiet_says_nothing(self, run: Run, name: str) -> None:
        ended = run("put", "--quiet", stdin=lines(name, 12))
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")

    def test_bus_from_the_environment(self, attempt: Run, aws: Aws, name: str) -> None:
        aws("events").create_event_bus(Name=name)
        watching = attempt("put", name, "T", "{}", BUSBAR_PUT_BUS=name)
        assert watching.returncode == 0

    def test_a_refused_event_is_told_by_its_line_and_the_others_are_put(
        self, attempt: Run, name: str, tapped: Any
    ) -> None:
        refused = json.dumps({"Source": "aws.ec2", "DetailType": "T", "Detail": {}}) + "\n"
        ended = attempt("put", stdin=lines(name, 2) + refused)
        assert ended.returncode == 1
        assert ended.stdout == "2 events put, 1 refused\n"
        assert ended.stderr.startswith("refused: line 3 (aws.ec2): NotAuthorizedForSource")
        assert len(tapped(2)) == 2

    def test_a_line_that_is_no_event_ends_it_with_what_was_put(self, attempt: Run, name: str, tapped: Any) -> None:
        ended = attempt("put", stdin=lines(name, 30) + "nothing\n" + lines(name, 1))
        assert ended.returncode == 1
        put = re.match(r"(\d+) events put before it stopped\nbusbar: line 31 is not JSON", ended.stderr)
        assert put is not None
        assert len(tapped(int(put[1]))) == int(put[1]) <= 30

    @pytest.mark.parametrize(
        ("line", "sentence"),
        [
            ("nothing", "line 1 is not JSON"),
            ("[1]", "line 1 is not a JSON object"),
            ('{"Source":"s","DetailType":"t"}', "line 1 has no Detail"),
            ('{"Source":"s","DetailType":"t","Detial":{}}', "did you mean 'Detail'?"),
            ('{"Source":5,"DetailType":"t","Detail":{}}', "line 1 has a Source that is not text"),
            ('{"Source":"s","DetailType":"t","Detail":{},"Time":"noon"}', "write it as 2026-01-31T12:00:00Z"),
            ('{"Source":"s","DetailType":"t","Detail":{},"Resources":"arn:a"}', "Resources that are not a list"),
        ],
    )
    def test_a_line_that_is_no_event(self, attempt: Run, line: str, sentence: str) -> None:
        ended = attempt("put", stdin=f"{line}\n")
        assert ended.returncode == 1
        assert sentence in ended.stderr
        assert "Traceback" not in ended.stderr

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (("shop",), "one event needs SOURCE, DETAIL_TYPE and DETAIL"),
            (("shop", "T", "{}", "--file", "/dev/null"), "one event from the arguments, or many from --file; not both"),
            (("--file", "/dev/null", "--resource", "arn:a"), "--resource is for the one event of the arguments"),
            (("shop", "T", "nothing"), "quote it for the shell"),
            (("shop", "T", "[1]"), "is not a JSON object"),
            (("--file", "/no/such/file"), "No such file"),
        ],
    )
    def test_wrong_arguments(self, attempt: Run, words: tuple[str, ...], sentence: str) -> None:
        ended = attempt("put", *words)
        assert ended.returncode == 2
        assert sentence in ended.stderr

    def test_a_terminal_shows_progress_for_many(self, server: Server, name: str, tmp_path: Path) -> None:
        path = tmp_path / "events.jsonl"
        path.write_text(lines(name, 120))
        shown, status = on_terminal("put", "--file", str(path), endpoint=server.url)
        assert status == 0
        assert "putting events" in shown
        assert "120/120" in shown
        assert "120 events put" in shown

    def test_a_terminal_with_nothing_to_put_is_told_what_to_give(self, server: Server) -> None:
        shown, status = on_terminal("put", endpoint=server.url)
        assert status == 2
        assert "nothing to put: give SOURCE DETAIL_TYPE DETAIL, --file, or JSON lines on stdin" in shown


class TestBatches:
    def entries(self, *sizes: int) -> list[Numbered | None]:
        return [Numbered(n, {"Source": "s", "DetailType": "t", "Detail": "x" * size}) for n, size in enumerate(sizes)]

    def test_ten_at_most(self) -> None:
        assert [len(batch) for batch in batches(self.entries(*[1] * 25))] == [10, 10, 5]

    def test_under_the_size_of_a_request(self) -> None:
        assert [len(batch) for batch in batches(self.entries(400_000, 400_000, 400_000, 950_000, 1))] == [2, 1, 1, 1]

    def test_a_pause_sends_what_there_is(self) -> None:
        first, second = self.entries(1, 1)
        assert list(batches([None, first, None, None, second])) == [[first], [second]]


def on_terminal(*words: str, endpoint: str) -> tuple[str, int]:
    """What a command shows on a terminal of its own, and its status."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(*words), stdin=theirs, stdout=theirs, stderr=theirs, env=clean({"BUSBAR_ENDPOINT_URL": endpoint})
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65_536):
            shown += chunk
    except OSError:  # how Linux says that the other side of a terminal is closed
        pass
    finally:
        os.close(ours)
    return shown.decode(), process.wait(DEADLINE_S)


class TestRules:
    def test_a_table_with_targets_and_counts(self, run: Run, name: str, tapped: Any) -> None:
        assert run("put", stdin=lines(name, 3)).returncode == 0
        tapped(3)
        title, *rows = run("rules").stdout.splitlines()
        assert title.split()[-7:] == ["BUS", "RULE", "STATE", "MATCHED", "INVOKED", "FAILED", "TARGETS"]
        (row,) = [row.split() for row in rows if f" {name} " in row]
        assert row[-6:] == [name, "ENABLED", "3", "3", "0", f"arn:aws:sqs:us-east-1:000000000000:{name}"]

    def test_json_holds_pattern_and_targets(self, attempt: Run, name: str, tapped: Any) -> None:
        found = [json.loads(line) for line in attempt("rules", "--json").stdout.splitlines()]
        (rule,) = [rule for rule in found if rule["Name"] == name]
        assert json.loads(rule["EventPattern"]) == {"source": [name]}
        assert [target["Id"] for target in rule["Targets"]] == ["tap"]

    def test_none_is_answered_with_how_to_make_one(self, attempt: Run, server: Server) -> None:
        ended = attempt("rules", "--bus", "no-such-bus")
        assert (ended.returncode, ended.stdout) == (0, "")
        assert f"aws --endpoint-url {server.url} events put-rule" in ended.stderr


class TestWire:
    def test_added_listed_led_elsewhere_and_removed(self, run: Run, attempt: Run, name: str) -> None:
        pattern = f"arn:aws:lambda:*:*:function:{name}"
        assert run("wire", pattern, "http://127.0.0.1:9001/").stdout == f"{pattern} -> http://127.0.0.1:9001/\n"
        assert f"{pattern} -> http://127.0.0.1:9001/\n" in run("wire", "list").stdout
        assert attempt("wire", "add", pattern, "http://127.0.0.1:9002/").returncode == 0
        assert f"{pattern} -> http://127.0.0.1:9002/\n" in attempt("wire", "list").stdout
        assert run("wire", "remove", pattern).stdout == f"removed {pattern}\n"
        assert pattern not in attempt("wire", "list").stdout

    def test_deliveries_come_to_the_url(self, attempt: Run, aws: Aws, name: str, sink: Sink) -> None:
        events = aws("events")
        events.put_rule(Name=name, EventPattern=json.dumps({"source": [name]}))
        arn = f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
        events.put_targets(Rule=name, Targets=[{"Id": "function", "Arn": arn}])
        assert attempt("wire", f"arn:aws:lambda:*:*:function:{name}", f"{sink.url}function").returncode == 0
        put = attempt("put", name, "T", '{"n":1}')
        arrived = sink.next()
        assert arrived.path == "/function"
        assert json.loads(arrived.body)["id"] == put.stdout.strip()

    @pytest.mark.parametrize(
        ("words", "status", "sentence"),
        [
            (("wire", "lambda", "http://127.0.0.1:1/"), 1, "not an ARN or a pattern of ARNs"),
            (("wire", "arn:aws:lambda:*:*:function:x", "ftp://host/"), 1, "http:// or https://"),
            (("wire", "remove", "arn:aws:lambda:*:*:function:none"), 1, "busbar wire list"),
            (("wire", "arn:aws:lambda:*:*:function:x"), 2, "Missing argument 'URL'"),
        ],
    )
    def test_mistakes(self, attempt: Run, words: tuple[str, ...], status: int, sentence: str) -> None:
        ended = attempt(*words)
        assert ended.returncode == status
        assert sentence in ended.stderr


class TestEndpoint:
    def test_listed_failed_over_and_recovered(self, run: Run, attempt: Run, aws: Aws, name: str) -> None:
        events = aws("events")
        primary = {"HealthCheck": "arn:aws:route53:::healthcheck/h"}
        buses = [f"arn:aws:events:{region}:000000000000:event-bus/default" for region in ("us-east-1", "eu-west-1")]
        made = events.create_endpoint(
            Name=name,
            RoutingConfig={"FailoverConfig": {"Primary": primary, "Secondary": {"Route": "eu-west-1"}}},
            EventBuses=[{"EventBusArn": bus} for bus in buses],
        )
        arn, ident = made["Arn"], events.describe_endpoint(Name=name)["EndpointId"]
        assert f"{arn}  {ident}  us-east-1* eu-west-1  replication enabled\n" in run("endpoint", "list").stdout
        assert attempt("endpoint", "fail-over", arn).stdout == f"{arn} is active in eu-west-1\n"
        assert f"{arn}  {ident}  us-east-1 eu-west-1*" in attempt("endpoint", "list").stdout
        assert attempt("endpoint", "recover", ident).stdout == f"{arn} is active in us-east-1\n"
        events.delete_endpoint(Name=name)

    def test_mistakes(self, attempt: Run) -> None:
        ended = attempt("endpoint", "fail-over", "absent.veo")
        assert (ended.returncode, "Endpoint absent.veo does not exist." in ended.stderr) == (1, True)
        assert "aws events create-endpoint" in attempt("endpoint", "list").stderr


class TestPattern:
    PATTERN = '{"source":["shop"],"detail":{"total":[{"numeric":[">",100]}]}}'

    def test_a_match_names_each_field(self) -> None:
        ended = busbar("test-pattern", self.PATTERN, '{"source":"shop","detail":{"total":150}}')
        assert ended.returncode == 0
        verdict, *findings = ended.stdout.splitlines()
        assert verdict == "matches"
        assert sorted(findings) == [
            "  ok    detail.total  150 satisfies a number > 100",
            '  ok    source        "shop" satisfies "shop"',
        ]

    def test_no_match_says_where_it_fails(self) -> None:
        ended = invoke("test-pattern", self.PATTERN, '{"source":"shop","detail":{"total":50}}')
        assert ended.returncode == 1
        assert ended.stdout.startswith("does not match\n")
        assert "  FAIL  detail.total  50 does not satisfy a number > 100" in ended.stdout
        assert "Finding" not in ended.stdout

    def test_each_way_through_or_is_told(self) -> None:
        ended = invoke("test-pattern", '{"$or":[{"source":["a"]},{"detail":{"x":[1]}}]}', '{"source":"b"}')
        assert ended.returncode == 1
        assert "way 1 through $or" in ended.stdout
        assert "way 2 through $or" in ended.stdout

    def test_files_and_stdin(self, tmp_path: Path) -> None:
        pattern, event = tmp_path / "pattern.json", '{"source":"shop","detail":{"total":101}}'
        pattern.write_text(self.PATTERN)
        assert invoke("test-pattern", f"@{pattern}", "-", stdin=event).returncode == 0

    @pytest.mark.parametrize(
        ("pattern", "event", "sentence"),
        [
            ('{"source":"shop"}', "{}", 'Event pattern is not valid. Reason: "source" must be an object or an array'),
            ('{"source":["shop"]', "{}", "Event pattern is not valid"),
            ('{"source":["shop"]}', "{", "the event is not JSON"),
            ('{"source":["shop"]}', "[]", "the event must be a JSON object"),
            ("@/no/such/file", "{}", "cannot be read"),
            ("-", "-", "only one of the two"),
        ],
    )
    def test_what_cannot_be_read_ends_with_2(self, pattern: str, event: str, sentence: str) -> None:
        ended = invoke("test-pattern", pattern, event)
        assert ended.returncode == 2
        assert sentence in ended.stderr
        assert "Traceback" not in ended.stderr


class TestDeadLetters:
    @pytest.fixture
    def letter(self, attempt: Run, aws: Aws, name: str, sink: Sink) -> str:
        """The id of a dead letter in the queue ``name``; the webhook behind it is mended by now."""
        events, sqs = aws("events"), aws("sqs")
        url = sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = f"arn:aws:sqs:us-east-1:000000000000:{name}"
        events.put_rule(Name=name, EventPattern=json.dumps({"source": [name]}))
        target = {"Id": "hook", "Arn": f"{sink.url}hook", "DeadLetterConfig": {"Arn": arn}}
        events.put_targets(Rule=name, Targets=[target])
        sink.answer = lambda post: Reply(400)
        assert attempt("put", name, "T", '{"n":1}').returncode == 0
        sink.next()
        (message,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20, VisibilityTimeout=0)["Messages"]
        sink.answer = lambda post: Reply(200)
        return str(message["MessageId"])

    def test_listed_shown_and_sent_again(self, run: Run, attempt: Run, name: str, letter: str, sink: Sink) -> None:
        listed = run("dlq", "list", "--queue", name).stdout
        assert listed.startswith(f"{letter}  SDK_CLIENT_ERROR  {name} -> {sink.url}hook")
        assert json.loads(attempt("dlq", "list", "--json", BUSBAR_QUEUE=name).stdout)["MessageId"] == letter

        shown = json.loads(run("dlq", "show", "--queue", name, letter).stdout)
        assert shown["Body"]["detail"] == {"n": 1}
        assert shown["Attributes"]["TARGET_ARN"] == f"{sink.url}hook"

        again = run("dlq", "redrive", "--queue", name, letter)
        assert (again.returncode, again.stdout) == (0, "1 sent again\n")
        assert json.loads(sink.next().body) == shown["Body"]
        assert attempt("dlq", "list", "--queue", name).stdout == ""

    def test_all_of_a_queue_by_its_arn(self, attempt: Run, name: str, letter: str, sink: Sink) -> None:
        arn = f"arn:aws:sqs:us-east-1:000000000000:{name}"
        assert attempt("dlq", "redrive", "--queue", arn, "--all").stdout == "1 sent again\n"
        sink.next()

    def test_a_letter_whose_target_is_gone_stays(self, attempt: Run, aws: Aws, name: str, letter: str) -> None:
        aws("events").remove_targets(Rule=name, Ids=["hook"])
        ended = attempt("dlq", "redrive", "--queue", name, "--all")
        assert (ended.returncode, ended.stdout) == (1, "0 sent again\n")
        assert f"kept {letter}: rule {name} has no target" in ended.stderr
        assert letter in attempt("dlq", "list", "--queue", name).stdout

    def test_the_default_queue_is_there_from_the_start(self, attempt: Run) -> None:
        ended = attempt("dlq", "list")
        assert (ended.returncode, ended.stdout) == (0, "")
        assert "No dead letters in dead-letters." in ended.stderr

    @pytest.mark.parametrize(
        ("words", "status", "sentence"),
        [
            (("list", "--queue", "none"), 1, "There is no queue none"),
            (("show", "none"), 1, "`busbar dlq list` shows what is"),
            (("redrive",), 2, "or give --all"),
            (("redrive", "--all", "id"), 2, "or give --all"),
            (("redrive", "no-such-id"), 1, "kept no-such-id: it is not in the queue"),
        ],
    )
    def test_mistakes(self, attempt: Run, words: tuple[str, ...], status: int, sentence: str) -> None:
        ended = attempt("dlq", *words)
        assert ended.returncode == status
        assert sentence in ended.stderr


class Tail:
    """`busbar tail` in the background, watching by the time it is made."""

    def __init__(self, server: Server, *words: str) -> None:
        self.process = subprocess.Popen(
            command("tail", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=clean({"BUSBAR_ENDPOINT_URL": server.url}),
        )  # fmt: skip
        assert self.process.stderr is not None
        assert self.process.stderr.readline().startswith("watching ")

    def rest(self) -> tuple[str, str]:
        return self.process.communicate(timeout=DEADLINE_S)


class TestTail:
    def test_shows_events_that_no_rule_matches(self, attempt: Run, server: Server, name: str) -> None:
        tail = Tail(server, "--count", "2", "--pattern", json.dumps({"source": [name]}))
        attempt("put", "another", "T", "{}")
        attempt("put", name, "OrderPlaced", '{"id":1}')
        attempt("put", name, "OrderPlaced", json.dumps({"long": "x" * 500}))
        out, _ = tail.rest()
        first, second = out.splitlines()
        assert re.fullmatch(rf'20\S+Z  default  {name}  OrderPlaced  {{"id": 1}}', first)
        assert len(second) < 300
        assert tail.process.returncode == 0

    def test_json_lines_can_be_put_again(self, attempt: Run, server: Server, name: str) -> None:
        tail = Tail(server, "--count", "1", "--json", "--pattern", json.dumps({"source": [name]}))
        event_id = attempt("put", name, "T", '{"ü":"€"}').stdout.strip()
        out, _ = tail.rest()
        assert json.loads(out)["id"] == event_id
        assert attempt("put", stdin=out).stdout == "1 event put\n"

    def test_ctrl_c_is_the_way_out(self, server: Server) -> None:
        tail = Tail(server)
        tail.process.send_signal(signal.SIGINT)
        assert tail.rest() == ("", "")
        assert tail.process.returncode == 0

    def test_a_reader_that_leaves_ends_it_quietly(self, attempt: Run, server: Server, name: str) -> None:
        tail = Tail(server, "--pattern", json.dumps({"source": [name]}))
        assert tail.process.stdout is not None
        tail.process.stdout.close()
        tail.process.stdout = None
        attempt("put", name, "T", "{}")
        _, said = tail.rest()
        assert "Traceback" not in said

    def test_a_pattern_that_is_none(self, attempt: Run) -> None:
        ended = attempt("tail", "--pattern", '{"source":"shop"}')
        assert ended.returncode == 1
        assert "Event pattern is not valid" in ended.stderr

    def test_a_bus_that_stops_is_told(self, start_server: Callable[..., Server]) -> None:
        server = start_server()
        tail = Tail(server)
        server.kill()
        _, said = tail.rest()
        assert tail.process.returncode == 1
        assert said.startswith("busbar: the ")


class TestUnreachable:
    @pytest.mark.parametrize(
        "words",
        [
            ("put", "s", "t", "{}"),
            ("rules",),
            ("wire", "list"),
            ("wire", "arn:aws:lambda:*:*:function:x", "http://127.0.0.1:9001/"),
            ("dlq", "list"),
            ("tail",),
        ],
        ids=" ".join,
    )
    def test_says_how_to_start_a_bus(self, words: tuple[str, ...]) -> None:
        ended = invoke(*words, "--endpoint-url", NOWHERE)
        assert ended.returncode == 1
        assert ended.stderr == (
            f"busbar: no bus answers at {NOWHERE}; start one with `busbar serve`, or name another with --endpoint-url\n"
        )

    @pytest.mark.parametrize("reply", [Reply(text=b"<html>"), Reply(text=b"{}"), Reply(404, text=b"<html>")], ids=repr)
    @pytest.mark.parametrize(
        "words", [("put", "--quiet", "s", "t", "{}"), ("rules",), ("wire", "list"), ("dlq", "list"), ("replay", "a")],
        ids=" ".join,
    )  # fmt: skip
    def test_a_server_that_is_no_bus(self, words: tuple[str, ...], reply: Reply, sink: Sink) -> None:
        sink.answer = lambda post: reply
        ended = invoke(*words, "--endpoint-url", f"http://{urlsplit(sink.url).netloc}")
        assert ended.returncode == 1
        assert ended.stderr.startswith("busbar: the server ")
        assert ended.stderr.endswith("; is it a busbar?\n")

    def test_a_file_says_how_much_was_put(self, name: str) -> None:
        ended = invoke("put", stdin=lines(name, 25), BUSBAR_ENDPOINT_URL=NOWHERE)
        assert ended.returncode == 1
        assert ended.stderr.startswith("0 events put before it stopped\nbusbar: no bus answers")

    @pytest.mark.parametrize(
        "url", ["127.0.0.1:4010", "nothing", "ftp://host/", "http://", "http://h:99999", "http://h/x"]
    )
    def test_an_endpoint_that_is_none(self, url: str) -> None:
        ended = invoke("rules", "--endpoint-url", url)
        assert ended.returncode == 2
        assert "is not the URL of a bus, such as http://127.0.0.1:4010" in ended.stderr


class TestCredentials:
    """A bus that only lets key holders act."""

    @pytest.fixture
    def url(self, start_server: Callable[..., Server], tmp_path: Path) -> str:
        keys = tmp_path / "keys.json"
        keys.write_text(json.dumps([{"access_key": "shop", "secret": "secret", "account": "111111111111"}]))
        keys.chmod(0o600)
        return start_server(credentials=str(keys), token="letmein").url

    def test_keys_come_from_the_environment_and_the_token_opens_the_operators_routes(self, url: str) -> None:
        here = {"BUSBAR_ENDPOINT_URL": url}
        assert busbar("put", "s", "t", "{}", **here, **KEY).returncode == 0
        assert busbar("wire", "list", **here, **KEY).returncode == 0
        assert busbar("rules", "--token", "letmein", **here).returncode == 0

        stranger = busbar("put", "s", "t", "{}", **here)
        assert stranger.returncode == 1
        assert stranger.stderr.startswith("busbar: UnrecognizedClientException: ")
        assert "AWS_ACCESS_KEY_ID" in stranger.stderr
        wrong = busbar("rules", **here, **{**KEY, "AWS_SECRET_ACCESS_KEY": "wrong"})
        assert wrong.returncode == 1
        assert wrong.stderr.startswith("busbar: The request signature we calculated")
        assert "--token" in wrong.stderr


def test_what_a_bus_says_to_try_can_be_typed_as_it_stands(start_server: Callable[..., Any]) -> None:
    said = re.search(r"command='busbar (put .*)'$", start_server().said(), re.MULTILINE)
    assert said
    ended = invoke(*shlex.split(said[1]))
    assert (ended.returncode, ended.stderr) == (0, "")


class TestServe:
    """`busbar serve` that does not start: one line that says what to do, and status 2."""

    def refused(self, *words: str, **environment: str) -> str:
        ended = busbar("serve", *words, **environment)
        assert ended.returncode == 2
        assert ended.stdout == ""
        assert "Traceback" not in ended.stderr
        return ended.stderr

    def one_line(self, *words: str, **environment: str) -> str:
        said = self.refused(*words, **environment)
        assert said.startswith("busbar: ")
        assert said.count("\n") == 1
        return said

    def test_settings_that_cannot_be(self, tmp_path: Path) -> None:
        for words, sentence in (
            (("--port", "70000"), "port must be between 0 and 65535"),
            (("--region", "mars"), "region must look like us-east-1"),
            (("--host", "0.0.0.0"), "give --credentials FILE"),
            (("--credentials", str(tmp_path / "none")), "does not exist"),
        ):
            ended = invoke("serve", *words)
            assert ended.returncode == 2
            assert ended.stderr.startswith("busbar: ")
            assert sentence in ended.stderr
        assert "whsec_" in self.one_line("--webhook-secret", "abc", "--data-dir", str(tmp_path / "data"))

    def test_settings_from_the_environment(self) -> None:
        assert "port must be between 0 and 65535" in self.one_line(BUSBAR_PORT="70000")
        assert "BUSBAR_PORT" in invoke("serve", BUSBAR_PORT="many").stderr

    def test_a_port_in_use(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            said = self.one_line("--port", port, "--data-dir", str(tmp_path / "data"))
        assert f"cannot listen on 127.0.0.1 port {port}" in said
        assert "0 picks a free one" in said

    def test_a_data_directory_in_use(self, server: Server) -> None:
        assert "is in use by another busbar" in self.one_line("--port", "0", "--data-dir", str(server.data_dir))

    def test_a_data_directory_that_cannot_be(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("")
        assert "cannot be made" in self.one_line("--port", "0", "--data-dir", str(path))

    def test_a_damaged_database_is_left_as_it_is(self, start_server: Callable[..., Server], tmp_path: Path) -> None:
        database = self.database(start_server, tmp_path)
        damaged = database.read_bytes()[:5000] + b"\xff" * 20_000
        database.write_bytes(damaged)
        assert "is damaged" in self.one_line("--port", "0", "--data-dir", str(database.parent))
        assert database.read_bytes() == damaged

    def test_a_database_of_a_newer_version(self, start_server: Callable[..., Server], tmp_path: Path) -> None:
        database = self.database(start_server, tmp_path)
        connection = sqlite3.connect(database)
        connection.execute("PRAGMA user_version=999")
        connection.close()
        said = self.one_line("--port", "0", "--data-dir", str(database.parent))
        assert "was written by a newer busbar (schema 999" in said

    def database(self, start_server: Callable[..., Server], tmp_path: Path) -> Path:
        """The database of a bus that ran once and has stopped."""
        server = start_server()
        assert server.stop() == 0
        copy = tmp_path / "copy"
        shutil.copytree(server.data_dir, copy)
        return copy / "bus.sqlite3"

    def test_a_setting_that_is_misspelt_in_the_environment_is_told(self, start_server: Callable[..., Any]) -> None:
        server = start_server(environment={"BUSBAR_PROT": "1", "BUSBAR_PUT_BUS": "x"})
        assert "BUSBAR_PROT is not a setting; did you mean BUSBAR_PORT?" in server.said()
        assert "BUSBAR_PUT_BUS" not in server.said()

    def test_the_log_says_what_to_do_next(self, start_server: Callable[..., Any]) -> None:
        server = start_server(log_format="json")
        said = [json.loads(line) for line in server.said().splitlines()]
        assert any(
            f"busbar put --endpoint-url {server.url} shop OrderPlaced" in line.get("command", "") for line in said
        )

    def test_stops_when_told_to(self, start_server: Callable[..., Server]) -> None:
        assert start_server().stop() == 0
