"""Who may do what with an event bus: its own account whatever its policy does not deny, others what it allows.

A bus is in the account that made it. Its account needs no policy; a statement that denies is all that can keep it from
something, and never from changing the policy itself. Another account names the bus by its ARN and may do what the
policy allows; what it asks of a bus that is not there is denied in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from bus.errors import ApiError
from bus.permissions.principals import Known, Principals
from bus.resources import Bus
from bus.scope import Call, Scope
from bus.targets import Delivery
from rules.arn import Arn
from rules.policy import Policy, Request, Verdict, read_policy

PUT_EVENTS = "events:PutEvents"

FindForeign = Callable[[Scope, str | None], tuple[Arn, Bus | None] | None]
"""The bus of another account that an ARN names; see `bus.buses.Buses.find_foreign`."""

_NOTHING = Policy(())


class _Head(msgspec.Struct):
    """What conditions ask of a forwarded event."""

    source: str
    detail_type: str = msgspec.field(name="detail-type")


_read_head = msgspec.json.Decoder(_Head).decode


class Admission:
    """Decides; everyone who opens the door to a bus asks here.

    ``find`` looks up a bus of a scope, ``find_foreign`` that of another account by its ARN.
    """

    def __init__(
        self,
        principals: Principals,
        *,
        find: Callable[[Scope, str | None], Bus | None],
        find_foreign: FindForeign,
    ) -> None:
        self._principals = principals
        self._find = find
        self._find_foreign = find_foreign

    # -- events

    def reach(self, call: Call, name: str | None) -> Bus | None:
        """The bus of another account that a PutEvents entry names; its policy is still to be asked.

        None where the name is not one of another account's; AccessDeniedException for a bus without a policy, or none.
        """
        foreign = self._find_foreign(call.scope, name)
        if foreign is None:
            return None
        arn, bus = foreign
        if bus is None or bus.policy is None:
            raise self.refusal(call, PUT_EVENTS, str(arn))
        return bus

    def put(self, call: Call, bus: Bus, source: str | None, detail_type: str | None) -> None:
        """Let an entry of PutEvents onto a bus; AccessDeniedException."""
        if not _may_everything(call, bus):
            self.demand(call, bus, PUT_EVENTS, [bus.arn], _event_context(source, detail_type, forwarded=False))

    def takes(self, delivery: Delivery, arn: Arn) -> bool:
        """Whether the bus of that ARN takes an event that a rule sends on to it."""
        account, name = delivery.route.scope.account, str(arn)
        own = arn.account == account
        if own:
            bus = self._find(Scope(arn.account, arn.region), name)
        else:
            foreign = self._find_foreign(Scope(account, arn.region), name)
            bus = None if foreign is None else foreign[1]
        if bus is None or bus.policy is None:
            return own
        head = _read_head(delivery.event)
        context = _event_context(head.source, head.detail_type, forwarded=True)
        verdict = _policy(bus).judge(self._principals.forwarding(delivery.route, bus.arn, context))
        return verdict.allowed or (own and not verdict.denied)

    # -- operations

    def demand(self, call: Call, bus: Bus, action: str, resources: Sequence[str], context: Known) -> None:
        """Raise AccessDeniedException unless the caller may do this with a bus that is there."""
        if _may_everything(call, bus):
            return
        request = self._principals.caller(call, action, resources, context)
        verdict = _policy(bus).judge(request)
        if not verdict.allowed and (verdict.denied or bus.scope.account != call.account):
            raise _refusal(request, verdict)

    def refusal(self, call: Call, action: str, resource: str) -> ApiError:
        """The answer to who asks for something that no policy allows."""
        request = self._principals.caller(call, action, [resource], {})
        return _refusal(request, Verdict())

    def foreign(self, call: Call, name_or_arn: str | None) -> tuple[Arn, Bus | None] | None:
        """The bus of another account that a call names; see `FindForeign`."""
        return self._find_foreign(call.scope, name_or_arn)


def _may_everything(call: Call, bus: Bus) -> bool:
    """Whether it is the account's own bus, with nothing that denies; asked for every event on a bus with a policy."""
    return bus.scope.account == call.account and not _policy(bus).can_deny


def _policy(bus: Bus) -> Policy:
    return _NOTHING if bus.policy is None else read_policy(bus.policy)


def _event_context(source: str | None, detail_type: str | None, *, forwarded: bool) -> dict[str, str | list[str]]:
    context: dict[str, str | list[str]] = {"events:eventbusinvocation": "true" if forwarded else "false"}
    if source is not None:
        context["events:source"] = source
    if detail_type is not None:
        context["events:detail-type"] = detail_type
    return context


def _refusal(request: Request, verdict: Verdict) -> ApiError:
    reason = (
        "with an explicit deny in a resource-based policy"
        if verdict.denied
        else f"because no resource-based policy allows the {request.action} action"
    )
    return ApiError(
        "AccessDeniedException",
        f"User: {request.principal.arn} is not authorized to perform: {request.action} "
        f"on resource: {request.resources[0]} {reason}",
    )
