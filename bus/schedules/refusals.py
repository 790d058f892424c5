"""The errors of EventBridge Scheduler that several operations raise."""

from __future__ import annotations

from bus.errors import ApiError, not_found


def conflict(message: str) -> ApiError:
    """The state of a resource does not allow what is asked."""
    return ApiError("ConflictException", message)


def no_group(name: str) -> ApiError:
    """There is no schedule group of that name."""
    return not_found(f"Schedule group {name} does not exist.")


def check_quota(count: int, quota: int, what: str) -> None:
    """Raise ServiceQuotaExceededException when ``count`` of something would be more than ``quota``."""
    if count > quota:
        raise ApiError("ServiceQuotaExceededException", f"An account can have at most {quota} {what} in a Region.")
