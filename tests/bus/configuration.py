"""Buses, rules and tags over one store, wired as the composition root does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bus.buses import Buses
from bus.catalog import Catalog
from bus.clock import ManualClock
from bus.config import Settings
from bus.errors import ApiError
from bus.quotas import Quotas
from bus.scope import Call, Scope
from bus.store.sqlite import SqliteStore, open_store
from bus.tags import Tags

SCOPE = Scope("111111111111", "us-east-1")
OTHER = Scope("222222222222", "us-east-1")
PATTERN = '{"source":["shop"]}'
QUEUE = "arn:aws:sqs:us-east-1:111111111111:q"


def refuse_metadata(url: str) -> str | None:
    return "169.254.169.254 is refused." if "169.254.169.254" in url else None


@dataclass
class Configuration:
    """The three capabilities, and one method that calls any of their operations."""

    store: SqliteStore
    clock: ManualClock
    buses: Buses
    catalog: Catalog
    tags: Tags

    async def call(self, operation: str, scope: Scope = SCOPE, /, **request: Any) -> Any:
        for capability in (self.buses, self.catalog, self.tags):
            if hasattr(capability, operation):
                return await getattr(capability, operation)(Call(scope), request)
        raise AssertionError(f"no capability has {operation}")

    async def error(self, operation: str, scope: Scope = SCOPE, /, **request: Any) -> tuple[str, str]:
        try:
            answer = await self.call(operation, scope, **request)
        except ApiError as error:
            return error.code, error.message
        raise AssertionError(f"{operation} answered {answer}")

    def matches(self, detail: bytes = b"{}", bus: str | None = None, **fields: str) -> list[str]:
        found = self.buses.find(SCOPE, bus)
        assert found is not None
        ids = self.catalog.ruleset(found.number).index.match_event({"source": "shop"} | fields, detail)
        return sorted(str(name) for name in ids)


async def configuration(
    data_dir: str = ":memory:",
    *,
    store: SqliteStore | None = None,
    settings: Settings | None = None,
    quotas: Quotas | None = None,
) -> Configuration:
    """Everything loaded from a store: a given one, or that of a directory."""

    def has_rules(bus: int) -> bool:
        return catalog.has_rules(bus)

    clock = ManualClock()
    store = store or await open_store(data_dir, clock)
    buses = Buses(store, clock, has_rules=has_rules, quotas=quotas)
    catalog = Catalog(
        store,
        settings or Settings(),
        clock,
        require_bus=buses.require,
        lock=buses.lock,
        check_url=refuse_metadata,
        quotas=quotas,
    )
    await buses.load()
    await catalog.load()
    return Configuration(store, clock, buses, catalog, Tags({"event-bus": buses, "rule": catalog}, quotas=quotas))
