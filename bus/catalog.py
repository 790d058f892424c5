"""Rules and their targets: the operations, and the snapshots that events are matched against.

Every change follows one course: under the scope's lock a new `Rule` value is made from the one in place
and written together with its new routes in one transaction; when that is on disk, the bus's `RuleSet` is
swapped, so the very next event sees it.

A route is what a delivery in the store points to. PutTargets makes new routes and never changes one, so
deliveries accepted before it still go where they were meant to. `forget_routes` clears away the routes
that no rule and no delivery uses. An event can be matched a moment before its route is replaced and
stored a moment after; a route is therefore only forgotten when the round before had already found it
replaced, and deliveries were counted in between.

A managed rule belongs to a service (`put_managed`, `delete_managed`): the operations show it and do not change it, but
for taking it away by force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bus.clock import Clock
from bus.config import Settings
from bus.errors import ApiError, StoreUnusable, not_found, validation
from bus.pages import page
from bus.quotas import Quotas, check_quota
from bus.resources import Bus, Rule, dump_route, dump_rule, load_route, load_rule, rule_members, rule_summary
from bus.rule_checks import check_rule, parse_pattern, read_event, uses_wildcard
from bus.rule_set import RuleSet, rule_set
from bus.scope import Call, Scope
from bus.store import ConfChange, Store
from bus.tags import Change, given_tags
from bus.target_rules import CheckUrl, TargetRules, check_target_arn
from bus.targets import Route
from rules.arn import DEFAULT_BUS, Arn
from rules.errors import PatternError
from rules.states import RuleState

RULE = "rule"
ROUTE = "route"
_NO_FAILURES: Mapping[str, Any] = {"FailedEntryCount": 0, "FailedEntries": []}
_NO_RULES = rule_set(())


class Catalog:
    """The rule and target operations.

    ``require_bus`` finds a bus by name or ARN or raises; ``lock`` is held while rules or buses of a scope
    change; ``check_url`` says in a sentence why a webhook's URL is refused, or None.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        clock: Clock,
        *,
        require_bus: Callable[[Scope, str | None], Bus],
        lock: Callable[[Scope], asyncio.Lock],
        check_url: CheckUrl,
        quotas: Quotas | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._require_bus = require_bus
        self._lock = lock
        self._quotas = quotas or Quotas()
        self._target_rules = TargetRules(strict=settings.strict, check_url=check_url)
        self._sets: dict[int, RuleSet] = {}
        self._routes: dict[int, Route] = {}
        self._replaced: set[int] = set()
        self.on_rule: Callable[[str, Rule | None], None] = lambda key, rule: None
        """Called with a rule's key after each change of the rule that is on disk; None: it was deleted."""

    async def load(self) -> None:
        """Read every rule from the store; the buses are there already."""
        _, entries = await self._store.conf_list(ROUTE)
        self._routes = {int(e.key): load_route(int(e.key), e.value) for e in entries if e.value is not None}
        by_bus: dict[int, list[Rule]] = {}
        _, entries = await self._store.conf_list(RULE)
        for entry in entries:
            if entry.value is not None:
                rule = load_rule(entry.value, self._routes)
                by_bus.setdefault(self._require_bus(rule.scope, rule.bus).number, []).append(rule)
        self._sets = {number: _loaded(rules) for number, rules in by_bus.items()}
        self._replaced = self._not_current()

    # -- looking up

    def ruleset(self, bus: int) -> RuleSet:
        """The rules of the bus with that number, as of now."""
        return self._sets.get(bus, _NO_RULES)

    def route(self, number: int) -> Route | None:
        """The route that a delivery refers to, whether its rule still has it or not."""
        return self._routes.get(number)

    def find_rule(self, scope: Scope, bus: str | None, name: str) -> Rule | None:
        """The rule of that name; raises when the bus is absent."""
        return self.ruleset(self._require_bus(scope, bus).number).rules.get(name)

    def has_route(self, route: Route) -> bool:
        """Whether events can still come by this route: its rule has it, and is not disabled."""
        try:
            rule = self.find_rule(route.scope, route.bus, route.rule)
        except ApiError:
            return False
        return rule is not None and rule.state != RuleState.DISABLED and route in rule.routes

    def has_rules(self, bus: int) -> bool:
        """Whether the bus with that number has a rule."""
        return bool(self.ruleset(bus).rules)

    def rules(self) -> Iterator[Rule]:
        """Every rule of every scope."""
        for rules in self._sets.values():
            yield from rules.rules.values()

    def rules_summary(self, next_due: Callable[[str], int | None] = lambda key: None) -> list[dict[str, Any]]:
        """Every rule as operators want to see it, in order of account, region, bus and name.

        ``next_due`` is asked by a rule's key when its schedule makes its next event.
        """
        ordered = sorted(self.rules(), key=lambda rule: rule.key.split("/"))
        return [rule_summary(rule, next_due(rule.key)) for rule in ordered]

    def _require_rule(self, scope: Scope, bus_name: str | None, name: str) -> tuple[Bus, Rule]:
        bus = self._require_bus(scope, bus_name)
        rule = self.ruleset(bus.number).rules.get(name)
        if rule is None:
            raise _no_rule(name, bus.name)
        return bus, rule

    # -- changing

    async def _save(
        self, bus: Bus, rule: Rule, *, new_routes: Sequence[Route] = (), also: Sequence[ConfChange] = ()
    ) -> None:
        rules = self.ruleset(bus.number)
        rule = rule.in_place_of(rules.rules.get(rule.name), self._clock.now_ms())
        rules = rules.with_rule(rule)
        changes = [ConfChange(ROUTE, str(route.number), dump_route(route)) for route in new_routes]
        await self._store.conf_put([*changes, ConfChange(RULE, rule.key, dump_rule(rule)), *also])
        self._routes.update((route.number, route) for route in new_routes)
        self._sets[bus.number] = rules
        self.on_rule(rule.key, rule)

    def _not_current(self) -> set[int]:
        return self._routes.keys() - {route.number for rule in self.rules() for route in rule.routes}

    async def forget_routes(self, in_use: set[int]) -> int:
        """Remove the routes that neither a rule nor a delivery uses; answers how many.

        ``in_use`` holds the route numbers of every delivery in the store, read after the previous call.
        """
        replaced = self._not_current()
        gone = self._replaced & replaced - in_use
        if gone:
            await self._store.conf_put([ConfChange(ROUTE, str(number), None) for number in sorted(gone)])
        for number in gone:
            self._routes.pop(number, None)
        self._replaced = replaced - gone
        return len(gone)

    # -- rules

    async def put_rule(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        check_rule(request, self._settings)
        tags = given_tags(request.get("Tags") or (), self._quotas)
        async with self._lock(call.scope):
            bus = self._require_bus(call.scope, request.get("EventBusName"))
            old = self.ruleset(bus.number).rules.get(request["Name"])
            _refuse_managed(old)
            rule = Rule(
                scope=bus.scope,
                bus=bus.name,
                name=request["Name"],
                state=request.get("State") or RuleState.ENABLED,
                pattern=request.get("EventPattern"),
                schedule=request.get("ScheduleExpression"),
                description=request.get("Description"),
                role=request.get("RoleArn"),
                tags=old.tags if old else tags,
                routes=old.routes if old else (),
                guest=old.guest if old else call.guest,
            )
            self._check_quotas(bus, rule)
            await self._save(bus, rule)
        return {"RuleArn": rule.arn}

    def _check_quotas(self, bus: Bus, rule: Rule) -> None:
        others = [other for other in self.ruleset(bus.number).rules.values() if other.name != rule.name]
        check_quota(len(others) + 1, self._quotas.rules_per_bus)
        if uses_wildcard(rule.pattern):
            count = sum(uses_wildcard(other.pattern) for other in others) + 1
            check_quota(count, self._quotas.wildcard_rules_per_bus)

    async def describe_rule(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        _, rule = self._require_rule(call.scope, request.get("EventBusName"), request["Name"])
        return {**rule_members(rule), "CreatedBy": rule.creator}

    async def list_rules(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        bus = self._require_bus(call.scope, request.get("EventBusName"))
        prefix = request.get("NamePrefix") or ""
        named = [rule for rule in self._sorted(bus) if rule.name.startswith(prefix)]
        found, token = page(named, request, key=lambda rule: rule.name, of=("rules", bus.arn))
        return {"Rules": [rule_members(rule) for rule in found], **token}

    def _sorted(self, bus: Bus) -> list[Rule]:
        return sorted(self.ruleset(bus.number).rules.values(), key=lambda rule: rule.name)

    async def enable_rule(self, call: Call, request: dict[str, Any]) -> None:
        await self._set_state(call.scope, request, RuleState.ENABLED)

    async def disable_rule(self, call: Call, request: dict[str, Any]) -> None:
        await self._set_state(call.scope, request, RuleState.DISABLED)

    async def _set_state(self, scope: Scope, request: dict[str, Any], state: str) -> None:
        async with self._lock(scope):
            bus, rule = self._require_rule(scope, request.get("EventBusName"), request["Name"])
            _refuse_managed(rule)
            await self._save(bus, replace(rule, state=state))

    async def delete_rule(self, call: Call, request: dict[str, Any]) -> None:
        async with self._lock(call.scope):
            bus = self._require_bus(call.scope, request.get("EventBusName"))
            rule = self.ruleset(bus.number).rules.get(request["Name"])
            if rule is None:
                return
            _refuse_unforced(rule, request)
            if rule.routes:
                raise validation("Rule can't be deleted since it has targets.")
            await self._delete(bus, rule)

    async def _delete(self, bus: Bus, rule: Rule, also: Sequence[ConfChange] = ()) -> None:
        await self._store.conf_put([ConfChange(RULE, rule.key, None), *also])
        self._sets[bus.number] = self.ruleset(bus.number).without_rule(rule.name)
        self.on_rule(rule.key, None)

    # -- managed rules

    async def put_managed(self, rule: Rule, target: Mapping[str, Any], also: Sequence[ConfChange]) -> None:
        """Make, change or mend a service's rule with its one target, in one write with ``also``.

        The caller holds the scope's lock, and has seen that no other rule has the name.
        """
        bus = self._require_bus(rule.scope, rule.bus)
        old = self.ruleset(bus.number).rules.get(rule.name)
        kept = [route for route in old.routes if route.target == target] if old else []
        new = [] if kept else [self._new_route(rule, target)]
        await self._save(bus, replace(rule, routes=(*kept, *new)), new_routes=new, also=also)

    async def delete_managed(self, rule: Rule, also: Sequence[ConfChange]) -> None:
        """Take away a service's rule with its target, in one write with ``also``; the caller holds the lock."""
        await self._delete(self._require_bus(rule.scope, rule.bus), rule, also)

    def _new_route(self, rule: Rule, target: Mapping[str, Any]) -> Route:
        return Route(self._store.allocate(), rule.scope, rule.bus, rule.name, rule.arn, target)

    # -- targets

    async def put_targets(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        async with self._lock(call.scope):
            bus, rule = self._require_rule(call.scope, request.get("EventBusName"), request["Rule"])
            _refuse_managed(rule)
            targets = self._accepted(request["Targets"], rule)
            # A target put again as it is keeps its route, and with it the pace and the deliveries it has in hand.
            kept = [route for route in rule.routes if targets.get(route.target["Id"], route.target) == route.target]
            unchanged = {route.target["Id"] for route in kept}
            new = [self._new_route(rule, target) for target in targets.values() if target["Id"] not in unchanged]
            check_quota(len(kept) + len(new), self._quotas.targets_per_rule)
            await self._save(bus, replace(rule, routes=_by_id([*kept, *new])), new_routes=new)
        return dict(_NO_FAILURES)

    def _accepted(self, targets: Iterable[Mapping[str, Any]], rule: Rule) -> dict[str, dict[str, Any]]:
        accepted: dict[str, dict[str, Any]] = {}
        for target in targets:
            if target["Id"] in accepted:
                raise validation("Invalid parameter: Duplicated target ids are not allowed.")
            accepted[target["Id"]] = self._target_rules.accept(target, rule)
        return accepted

    async def remove_targets(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        async with self._lock(call.scope):
            bus, rule = self._require_rule(call.scope, request.get("EventBusName"), request["Rule"])
            _refuse_unforced(rule, request)
            kept = tuple(route for route in rule.routes if route.target["Id"] not in request["Ids"])
            if len(kept) < len(rule.routes):
                await self._save(bus, replace(rule, routes=kept))
        return dict(_NO_FAILURES)

    async def list_targets_by_rule(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        _, rule = self._require_rule(call.scope, request.get("EventBusName"), request["Rule"])
        targets = [route.target for route in rule.routes]
        found, token = page(targets, request, key=lambda target: str(target["Id"]), of=("targets", rule.arn))
        return {"Targets": found, **token}

    async def list_rule_names_by_target(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        arn = request["TargetArn"]
        check_target_arn(arn)
        bus = self._require_bus(call.scope, request.get("EventBusName"))
        names = [rule.name for rule in self._sorted(bus) if any(route.arn == arn for route in rule.routes)]
        found, token = page(names, request, key=str, of=("names", bus.arn, arn))
        return {"RuleNames": found, **token}

    # -- patterns

    async def test_event_pattern(self, call: Call, request: dict[str, Any]) -> dict[str, Any]:
        pattern = parse_pattern(request["EventPattern"])
        return {"Result": pattern.matches(read_event(request["Event"]))}

    # -- tags

    def tags_of(self, scope: Scope, arn: Arn) -> Mapping[str, str]:
        """The tags of the rule with that ARN."""
        return self._tagged(scope, arn)[1].tags

    async def change_tags(self, scope: Scope, arn: Arn, change: Change) -> None:
        """Replace the tags of the rule with that ARN by what ``change`` makes of them."""
        async with self._lock(scope):
            bus, rule = self._tagged(scope, arn)
            if rule.managed_by is not None:
                raise _managed(f"Tag related operations on the managed rule {rule.name} is not allowed.")
            await self._save(bus, replace(rule, tags=change(rule.tags)))

    def _tagged(self, scope: Scope, arn: Arn) -> tuple[Bus, Rule]:
        *bus_name, name = arn.resource.removeprefix("rule/").rsplit("/", 1)
        bus = bus_name[0] if bus_name else DEFAULT_BUS
        if (arn.account, arn.region) != scope:
            raise _no_rule(name, bus)
        return self._require_rule(scope, bus, name)


def _no_rule(name: str, bus: str) -> ApiError:
    return not_found(f"Rule {name} does not exist on EventBus {bus}.")


def _refuse_managed(rule: Rule | None) -> None:
    """Raise for a rule that is a service's to change."""
    if rule is not None and rule.managed_by is not None:
        raise _managed(f"{rule.name} is a managed rule.")


def _refuse_unforced(rule: Rule, request: Mapping[str, Any]) -> None:
    """Raise for a rule that is a service's, unless the caller says that it is to be taken away all the same."""
    if rule.managed_by is not None and not request.get("Force"):
        raise _managed(f"{rule.name} is a managed rule. Set 'force' parameter to true to override.")


def _managed(message: str) -> ApiError:
    return ApiError("ManagedRuleException", message)


def _by_id(routes: Iterable[Route]) -> tuple[Route, ...]:
    return tuple(sorted(routes, key=lambda route: str(route.target["Id"])))


def _loaded(rules: Sequence[Rule]) -> RuleSet:
    try:
        return rule_set(rules)
    except PatternError as error:
        where = f"{rules[0].scope.account}/{rules[0].scope.region}/{rules[0].bus}"
        raise StoreUnusable(
            f"a rule of bus {where} has an event pattern that this version refuses ({error.reason});"
            " start the version that wrote it and change that rule"
        ) from None
