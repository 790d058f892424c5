"""Partner event sources: both sides of one, its states, and what the bus of its name does to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bus.buses import Buses
from bus.clock import ManualClock
from bus.errors import ApiError, StoreUnavailable
from bus.origins.partners import PATIENCE_MS, Partners
from bus.scope import Call, Scope
from bus.store.sqlite import SqliteStore, open_store

PARTNER, CUSTOMER = Scope("111111111111", "us-east-1"), Scope("222222222222", "us-east-1")
NAME = "aws.partner/example.com/orders/7"
ARN = f"arn:aws:events:us-east-1::event-source/{NAME}"
WEEK_S = 7 * 86_400
START = 1_700_000_000.0


@dataclass
class World:
    """Partners and buses over one store, as the composition root wires them."""

    store: SqliteStore
    clock: ManualClock
    buses: Buses
    partners: Partners

    async def call(self, operation: str, scope: Scope, /, **request: Any) -> Any:
        holder = self.partners if hasattr(self.partners, operation) else self.buses
        return await getattr(holder, operation)(Call(scope), request)

    async def error(self, operation: str, scope: Scope, /, **request: Any) -> tuple[str, str]:
        with pytest.raises(ApiError) as refused:
            await self.call(operation, scope, **request)
        return refused.value.code, refused.value.message

    async def offer(self, name: str = NAME, *, to: Scope = CUSTOMER, by: Scope = PARTNER) -> str:
        made = await self.call("create_partner_event_source", by, Name=name, Account=to.account)
        return str(made["EventSourceArn"])

    async def make_bus(self, scope: Scope = CUSTOMER, name: str = NAME) -> None:
        await self.call("create_event_bus", scope, Name=name, EventSourceName=name)

    async def state(self, scope: Scope = CUSTOMER, name: str = NAME) -> str:
        return str((await self.call("describe_event_source", scope, Name=name))["State"])

    async def seen(self, scope: Scope = CUSTOMER) -> list[str]:
        return [source["Name"] for source in (await self.call("list_event_sources", scope))["EventSources"]]

    async def offered(self, scope: Scope = PARTNER) -> list[str]:
        listed = await self.call("list_partner_event_sources", scope, NamePrefix="aws.partner/example.com/")
        return [source["Name"] for source in listed["PartnerEventSources"]]


async def world(directory: str = ":memory:", clock: ManualClock | None = None) -> World:
    clock = clock or ManualClock()
    store = await open_store(directory, clock)
    buses = Buses(store, clock, has_rules=lambda number: False, partners=lambda: partners)
    partners = Partners(store, clock, find_bus=buses.find, lock=buses.lock)
    await buses.load()
    await partners.load()
    return World(store, clock, buses, partners)


@pytest.fixture
async def there() -> AsyncIterator[World]:
    made = await world()
    yield made
    await made.store.close()


async def test_what_both_sides_see_of_a_new_source(there: World) -> None:
    assert await there.offer() == ARN
    assert await there.call("describe_partner_event_source", PARTNER, Name=NAME) == {"Arn": ARN, "Name": NAME}
    times = {"CreationTime": START, "ExpirationTime": START + 2 * WEEK_S, "State": "PENDING"}
    assert await there.call("describe_event_source", CUSTOMER, Name=NAME) == {
        "Arn": ARN, "CreatedBy": "aws.partner/example.com", "Name": NAME, **times
    }  # fmt: skip
    accounts = await there.call("list_partner_event_source_accounts", PARTNER, EventSourceName=NAME)
    assert accounts == {"PartnerEventSourceAccounts": [{"Account": CUSTOMER.account, **times}]}
    assert (await there.seen(PARTNER), await there.offered(CUSTOMER)) == ([], [])


async def test_one_account_may_be_both(there: World) -> None:
    await there.offer(to=PARTNER)
    await there.make_bus(PARTNER)
    assert await there.state(PARTNER) == "ACTIVE"
    assert await there.offered() == [NAME]


async def test_the_bus_activates_its_source(there: World) -> None:
    await there.offer()
    await there.make_bus()
    assert await there.state() == "ACTIVE"
    described = await there.call("describe_event_source", CUSTOMER, Name=NAME)
    assert "ExpirationTime" not in described
    there.clock.advance(10 * WEEK_S)
    assert await there.state() == "ACTIVE"
    assert there.partners.destination(PARTNER, NAME) == (CUSTOMER, "ACTIVE")


async def test_off_and_on(there: World) -> None:
    await there.offer()
    await there.make_bus()
    there.clock.advance(WEEK_S)
    await there.call("deactivate_event_source", CUSTOMER, Name=NAME)
    described = await there.call("describe_event_source", CUSTOMER, Name=NAME)
    assert (described["State"], described["ExpirationTime"]) == ("PENDING", START + 3 * WEEK_S)
    assert there.partners.destination(PARTNER, NAME) == (CUSTOMER, "PENDING")
    await there.call("activate_event_source", CUSTOMER, Name=NAME)
    assert await there.state() == "ACTIVE"


@pytest.mark.parametrize("over", ["the partner deletes it", "two weeks go by"])
async def test_the_end_of_a_source_without_a_bus(there: World, over: str) -> None:
    await there.offer()
    if over == "two weeks go by":
        there.clock.advance(PATIENCE_MS / 1000 - 0.001)
        assert await there.state() == "PENDING"
        there.clock.advance(0.001)
    else:
        await there.call("delete_partner_event_source", PARTNER, Name=NAME, Account=CUSTOMER.account)
    assert (await there.seen(), await there.offered()) == ([], [])
    assert there.partners.destination(PARTNER, NAME) is None
    assert (await there.error("create_event_bus", CUSTOMER, Name=NAME, EventSourceName=NAME))[0] == (
        "ResourceNotFoundException"
    )


@pytest.mark.parametrize("over", ["the partner deletes it", "two weeks go by"])
async def test_the_end_of_a_source_with_a_bus(there: World, over: str) -> None:
    await there.offer()
    await there.make_bus()
    if over == "two weeks go by":
        await there.call("deactivate_event_source", CUSTOMER, Name=NAME)
        there.clock.advance(2 * WEEK_S)
    else:
        await there.call("delete_partner_event_source", PARTNER, Name=NAME, Account=CUSTOMER.account)
    assert (await there.state(), await there.offered()) == ("DELETED", [])
    assert there.partners.destination(PARTNER, NAME) is None
    assert "ExpirationTime" not in await there.call("describe_event_source", CUSTOMER, Name=NAME)
    assert (await there.call("describe_event_bus", CUSTOMER, Name=NAME))["Name"] == NAME, "the bus remains"
    for operation in ("activate_event_source", "deactivate_event_source"):
        assert (await there.error(operation, CUSTOMER, Name=NAME))[0] == "InvalidStateException"
    await there.call("delete_event_bus", CUSTOMER, Name=NAME)
    assert await there.seen() == []


async def test_a_source_waits_when_its_bus_is_deleted(there: World) -> None:
    await there.offer()
    await there.make_bus()
    there.clock.advance(WEEK_S)
    await there.call("delete_event_bus", CUSTOMER, Name=NAME)
    described = await there.call("describe_event_source", CUSTOMER, Name=NAME)
    assert (described["State"], described["ExpirationTime"]) == ("PENDING", START + 3 * WEEK_S)
    await there.make_bus()
    assert await there.state() == "ACTIVE"


async def test_a_source_that_was_off_keeps_its_time_when_the_bus_goes(there: World) -> None:
    await there.offer()
    await there.make_bus()
    await there.call("deactivate_event_source", CUSTOMER, Name=NAME)
    there.clock.advance(WEEK_S)
    await there.call("delete_event_bus", CUSTOMER, Name=NAME)
    assert (await there.call("describe_event_source", CUSTOMER, Name=NAME))["ExpirationTime"] == START + 2 * WEEK_S


async def test_a_deleted_source_can_be_offered_again_to_the_same_bus(there: World) -> None:
    await there.offer()
    await there.make_bus()
    await there.call("delete_partner_event_source", PARTNER, Name=NAME, Account=CUSTOMER.account)
    await there.offer()
    assert await there.state() == "PENDING"
    await there.call("activate_event_source", CUSTOMER, Name=NAME)
    assert await there.state() == "ACTIVE"


async def test_a_name_that_went_to_another_customer(tmp_path: Path) -> None:
    first = await world(str(tmp_path))
    other = Scope("000000000001", "us-east-1")  # sorts before the first customer
    await first.offer()
    await first.make_bus()
    await first.call("deactivate_event_source", CUSTOMER, Name=NAME)
    first.clock.advance(2 * WEEK_S)
    await first.offer(to=other)
    await first.store.close()

    again = await world(str(tmp_path), first.clock)
    assert again.partners.destination(PARTNER, NAME) == (other, "PENDING")
    assert (await again.state(), await again.state(other)) == ("DELETED", "PENDING")
    await again.call("delete_event_bus", CUSTOMER, Name=NAME)
    assert again.partners.destination(PARTNER, NAME) == (other, "PENDING")
    await again.store.close()


async def test_deleting_takes_the_partner_and_the_account(there: World) -> None:
    await there.offer()
    for scope, account in ((PARTNER, "333333333333"), (CUSTOMER, CUSTOMER.account)):
        await there.call("delete_partner_event_source", scope, Name=NAME, Account=account)
    assert await there.state() == "PENDING"
    await there.call("delete_partner_event_source", PARTNER, Name="aws.partner/absent/x", Account=CUSTOMER.account)


async def test_a_name_is_taken_in_its_region_only(there: World) -> None:
    await there.offer()
    taken = ("ResourceAlreadyExistsException", f"Event source {NAME} already exists.")
    for by, to in ((PARTNER, CUSTOMER), (PARTNER, PARTNER), (CUSTOMER, CUSTOMER)):
        assert await there.error("create_partner_event_source", by, Name=NAME, Account=to.account) == taken
    await there.offer(by=Scope(PARTNER.account, "eu-west-1"))
    assert await there.seen(Scope(CUSTOMER.account, "eu-west-1")) == [NAME]


async def test_a_name_is_given_once_to_callers_at_the_same_time(there: World) -> None:
    offers = [
        there.call("create_partner_event_source", Scope(f"{n:012}", "us-east-1"), Name=NAME, Account=f"{n + 100:012}")
        for n in range(5)
    ]
    answers = await asyncio.gather(*offers, return_exceptions=True)
    assert [isinstance(answer, ApiError) for answer in answers] == [False, True, True, True, True]


async def test_lists_come_by_page_and_prefix(there: World) -> None:
    names = [f"aws.partner/example.com/{n}" for n in range(5)]
    for name in [*names, "aws.partner/other.com/x"]:
        await there.offer(name)
    assert await there.offered() == names
    first = await there.call("list_event_sources", CUSTOMER, NamePrefix="aws.partner/e", Limit=3)
    second = await there.call("list_event_sources", CUSTOMER, NamePrefix="aws.partner/e", NextToken=first["NextToken"])
    assert [each["Name"] for each in [*first["EventSources"], *second["EventSources"]]] == names
    assert "NextToken" not in second
    page = await there.call("list_partner_event_sources", PARTNER, NamePrefix="aws.partner/example.com/", Limit=2)
    assert len(page["PartnerEventSources"]) == 2
    code, text = await there.error("list_event_sources", CUSTOMER, NextToken=page["NextToken"])
    assert (code, text) == ("ValidationException", "Parameter NextToken is not valid.")


async def test_sources_survive_a_restart(tmp_path: Path) -> None:
    first = await world(str(tmp_path))
    for name in ("waits", "works", "deleted", "gone"):
        await first.offer(f"{NAME}/{name}")
    for name in ("works", "deleted"):
        await first.make_bus(name=f"{NAME}/{name}")
    for name in ("deleted", "gone"):
        await first.call("delete_partner_event_source", PARTNER, Name=f"{NAME}/{name}", Account=CUSTOMER.account)
    await first.store.close()

    again = await world(str(tmp_path), first.clock)
    listed = (await again.call("list_event_sources", CUSTOMER))["EventSources"]
    states = {source["Name"].rpartition("/")[2]: source["State"] for source in listed}
    assert states == {"waits": "PENDING", "works": "ACTIVE", "deleted": "DELETED"}
    assert await again.offered() == [f"{NAME}/waits", f"{NAME}/works"]
    await again.store.close()


async def test_what_is_gone_is_cleared_away_by_the_next_offer(there: World) -> None:
    for n in range(3):
        await there.offer(f"{NAME}/{n}")
    there.clock.advance(2 * WEEK_S)
    await there.offer()
    _, entries = await there.store.conf_list("partner-source")
    assert [entry.key for entry in entries] == [f"{CUSTOMER.account}/us-east-1/{NAME}"]


async def test_a_disk_that_refuses_leaves_bus_and_source_as_they_were(
    there: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await there.offer()

    async def refuse(changes: Any) -> int:
        raise StoreUnavailable("full")

    with monkeypatch.context() as patched:
        patched.setattr(there.store, "conf_put", refuse)
        with pytest.raises(StoreUnavailable):
            await there.make_bus()
    assert there.buses.find(CUSTOMER, NAME) is None
    assert await there.state() == "PENDING"
    await there.make_bus()
    with monkeypatch.context() as patched:
        patched.setattr(there.store, "conf_put", refuse)
        with pytest.raises(StoreUnavailable):
            await there.call("delete_event_bus", CUSTOMER, Name=NAME)
    assert await there.state() == "ACTIVE"
