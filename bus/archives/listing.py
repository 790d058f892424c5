"""What ListArchives and ListReplays have in common: one filter, items by name, AWS's words for a bad token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from bus.errors import ApiError, validation
from bus.pages import page

FILTERS = ("State", "EventSourceArn", "NamePrefix")


class Named(Protocol):
    """What is listed by its name."""

    @property
    def name(self) -> str: ...


Item = TypeVar("Item", bound=Named)


def one_filter(request: Mapping[str, Any], operation: str) -> None:
    """Refuse more than one filter."""
    if sum(request.get(member) is not None for member in FILTERS) > 1:
        raise validation(
            f"At most one filter is allowed for {operation}. Use either : State, EventSourceArn, or NamePrefix."
        )


def named_page(
    items: Iterable[Item], request: Mapping[str, Any], *, of: Sequence[str]
) -> tuple[list[Item], dict[str, str]]:
    """The page of the items that the request asks for, as `bus.pages.page` gives it."""
    in_order = sorted(items, key=lambda item: item.name)
    try:
        return page(in_order, request, key=lambda item: item.name, of=of)
    except ApiError:
        raise validation("Parameter NextToken is not valid. Reason: Malformed request.") from None
