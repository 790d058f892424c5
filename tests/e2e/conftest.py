"""What the end-to-end tests share: a webhook that is steered, and an account of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.policies import names
from tests.e2e.sink import Sink
from tests.e2e.tenant import Tenant


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


@pytest.fixture
def tenant(server: Any, aws: Any) -> Tenant:
    """An account of the module's server that no other test uses."""
    return Tenant(aws, at=server)


@pytest.fixture
def other(server: Any, aws: Any) -> Tenant:
    """A second account of the module's server."""
    return Tenant(aws, at=server)


@pytest.fixture
def bus(tenant: Tenant) -> str:
    """The ARN of a bus of the first account."""
    return str(tenant.events.create_event_bus(Name=f"orders-{next(names)}")["EventBusArn"])
