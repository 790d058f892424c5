"""What the end-to-end tests share: a webhook that is steered, and an account of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

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
