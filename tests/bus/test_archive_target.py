"""The archive as a target: it takes an event when it is accepted, or not at all."""

from __future__ import annotations

from bus.scope import Scope
from bus.store import NewArchived
from bus.targets import Delivered, Delivery, Failed, Route
from bus.targets.archive import ArchiveTarget
from rules.arn import archive_target_arn

RULE = "arn:aws:events:us-east-1:1:rule/Events-Archive-a"
EVENT = (
    b'{"version":"0","id":"i","detail-type":"t","source":"s","account":"1","time":"1970-01-01T00:01:01Z",'
    b'"region":"r","resources":[],"detail":{}}'
)
ROUTE = Route(
    1, Scope("1", "r"), "default", "Events-Archive-a", RULE, {"Id": "t", "Arn": archive_target_arn("us-east-1")}
)
DELIVERY = Delivery(ROUTE, "i", b"rendered otherwise", EVENT, 1, 0)


def test_the_whole_event_goes_to_the_archive_of_the_rule() -> None:
    target = ArchiveTarget({RULE: 7}.get)
    assert target.deliver_now(DELIVERY) == Delivered(archives=(NewArchived(7, time=61, size=2 + 1 + 1 + 20),))


def test_an_archive_that_is_gone_takes_nothing_and_holds_nobody_up() -> None:
    assert ArchiveTarget({}.get).deliver_now(DELIVERY) == Delivered()


async def test_there_is_no_other_way_in() -> None:
    target = ArchiveTarget({RULE: 7}.get)
    outcome = await target.deliver(DELIVERY)
    assert isinstance(outcome, Failed)
    assert not outcome.retry
    await target.close()
