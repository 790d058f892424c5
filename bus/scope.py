"""Who is asking, and where: the account and region every resource belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Scope(NamedTuple):
    """An account (12 digits) and a region; two scopes never see each other's resources."""

    account: str
    region: str


@dataclass(frozen=True, slots=True)
class Call:
    """One API request as the capabilities see it, the wire already taken off.

    ``host`` is the request's Host header (queue URLs are made from it); ``trace`` is its
    X-Amzn-Trace-Id header; ``access_key`` the caller's access key id, None for unsigned calls.
    ``guest`` is the account that acts where the scope is another account's, whose policy has let it in.
    """

    scope: Scope
    host: str = "127.0.0.1"
    trace: str | None = None
    access_key: str | None = None
    guest: str | None = None

    @property
    def account(self) -> str:
        """The account that acts."""
        return self.guest or self.scope.account
