"""Every example runs by itself, against a bus of its own, and ends well."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOT_EXAMPLES = {"__init__", "running", "receiver"}
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py") if path.stem not in NOT_EXAMPLES)

SAYS = {
    "archive_and_replay": ("/wrong  order 0", "/mended  order 2  from second-try", "COMPLETED", "3 events still"),
    "demo": ("answered 503", "ERROR_CODE: ERROR_FROM_TARGET", "RETRY_ATTEMPTS: 2", "1 sent again", "started again"),
    "one_time_schedule": ("schedule/reminders/order-17", '"order": 17', "and the schedule is gone"),
    "quickstart": ("accepted:", '"total": 250'),
    "api_destination_oauth": ("gives token-1", "with token-1: 401", "gives token-2", '"order": 2, "via": "busbar"'),
    "wire_existing_arns": ("/charge", "/fulfil", "/notify"),
    "two_accounts": ("no resource-based policy allows", "made by 222222222222", "an event of account 222222222222"),
    "cloudtrail_assume_role": (
        "4 records put",
        "AssumeRole of arn:aws:iam::111122223333:role/deploy by alice",
        "role/audit by bob",
        "ENABLED alone receives none of them",
    ),
    "partner_source": ("PENDING", "lost", "ACTIVE", '"order": 2', "DELETED"),
    "service_source": ("while the bus is down", '"key": "invoice-2.pdf"', "3 of 3 arrived, in their order"),
    "schedule": ("2030-03-01T08:30:00+00:00  Fri", "next at", "2030-03-04T08:30:00Z  Scheduled Event"),
    "global_endpoint": ("order 1 came to /us-east-1", "order 2 came to /us-west-2", "order 3 came to /us-east-1"),
    "dead_letters_and_redrive": ("RETRY_ATTEMPTS: 1", "sent again: 1", "answered with 200"),
}
"""What one has to see when the example did what it is for."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("BUSBAR_", "AWS_"))}
    ended = subprocess.run(
        [sys.executable, "-m", f"examples.{name}"],
        cwd=ROOT,
        env={**environment, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    for text in SAYS[name]:
        assert text in ended.stdout
    assert "\x1b" not in ended.stdout, "colours are for terminals"
    assert list(tmp_path.iterdir()) == [], "an example cleans up"


def test_the_receiver_shows_what_it_gets() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.receiver", "0", "1"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    url = process.stdout.readline().removeprefix("receiving on ").strip()
    with urllib.request.urlopen(f"{url}/orders", data=b'{"id":"1"}', timeout=60) as answer:
        assert answer.status == 200
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, '/orders  {"id": "1"}\n')
