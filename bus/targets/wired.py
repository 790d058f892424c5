"""Targets whose ARN a wire covers: local code at a URL stands in for what the ARN names."""

from __future__ import annotations

from collections.abc import Callable

from bus.targets import Delivery, Failed, Outcome
from bus.targets.webhook import Webhook


class Wired:
    """Posts to the URL that ``match`` gives for the target's ARN at the moment of the attempt."""

    def __init__(self, webhook: Webhook, match: Callable[[str], str | None]) -> None:
        self._webhook = webhook
        self._match = match

    async def deliver(self, delivery: Delivery) -> Outcome:
        url = self._match(delivery.route.arn)
        if url is None:
            return Failed("NO_RESOURCE", "The wire was removed while the delivery was on its way.", retry=True)
        return await self._webhook.post(url, delivery)

    async def close(self) -> None:
        """The webhook target is closed by its owner."""
