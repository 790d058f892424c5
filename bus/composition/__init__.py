"""How a bus is put together, part by part; `bus.app` lists the parts in their order.

Each module here wires one subsystem by arguments and knows what it is made of; nothing below knows any of
them. What a part opens it hands to the stack, so that all of it is closed in reverse order.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from bus.clock import Clock, IdSource
from bus.config import Settings
from bus.metrics import Metrics
from bus.store.sqlite import SqliteStore
from bus.targets.addresses import Addresses
from bus.watchers import Watchers


@dataclass(frozen=True, slots=True)
class Foundation:
    """What every part may be given."""

    settings: Settings
    clock: Clock
    ids: IdSource
    metrics: Metrics
    watchers: Watchers
    addresses: Addresses
    store: SqliteStore
    stack: AsyncExitStack
