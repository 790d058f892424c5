"""Which schedules and groups there are: looked up in memory, changed only when the change is on disk.

A route is what a delivery in the store points to. A schedule whose target changes gets a new one, so that invocations
on their way still end where they were meant to; `forget_routes` clears away those that no schedule and no delivery
uses. A run is the nominal instant of a schedule's latest invocation; it has a record of its own, because it is written
often and is small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

import orjson

from bus.schedules.schedule import DEFAULT_GROUP, Group, Schedule
from bus.scope import Scope
from bus.store import ConfChange, Store
from bus.targets import Route

GROUP, SCHEDULE, ROUTE, RUN = "scheduler-group", "scheduler-schedule", "scheduler-route", "scheduler-run"


class Registry:
    """All schedules, groups and routes.

    ``lock`` is held over a check of one schedule or group and the change that relies on it. Changes of different
    schedules do not wait for each other, so that they share their forced writes.
    ``changed`` is told of every schedule that was written, ``gone`` of every one that was removed.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._groups: dict[Scope, dict[str, Group]] = {}
        self._schedules: dict[tuple[Scope, str], dict[str, Schedule]] = {}
        self._routes: dict[int, Route] = {}
        self._replaced: set[int] = set()
        self._runs: dict[int, int] = {}
        self._locks: WeakValueDictionary[tuple[Scope, str, str], asyncio.Lock] = WeakValueDictionary()
        self.changed: Callable[[Schedule], None] = lambda schedule: None
        self.gone: Callable[[Schedule], None] = lambda schedule: None

    async def load(self) -> None:
        """Read everything from the store."""
        self._routes = {int(key): _load_route(int(key), value) for key, value in await self._stored(ROUTE)}
        for key, value in await self._stored(GROUP):
            self._put_group(Group.load(key, value))
        for key, value in await self._stored(SCHEDULE):
            schedule = Schedule.load(key, value, self._routes)
            self._schedules.setdefault((schedule.scope, schedule.group), {})[schedule.name] = schedule
        self._runs = {int(key): int(value) for key, value in await self._stored(RUN)}
        self._replaced = self._not_current()

    async def _stored(self, kind: str) -> list[tuple[str, bytes]]:
        _, entries = await self._store.conf_list(kind)
        return [(entry.key, entry.value) for entry in entries if entry.value is not None]

    # -- looking up

    def lock(self, scope: Scope, group: str, name: str = "") -> asyncio.Lock:
        """The lock of a schedule, or of a group."""
        return self._locks.setdefault((scope, group, name), asyncio.Lock())

    async def caught_up(self) -> None:
        """Wait until every change that was begun before is in place."""
        await self._store.transact(lambda cursor: None)

    def group(self, scope: Scope, name: str) -> Group | None:
        """The group of that name; the default group is always there."""
        found = self._groups.get(scope, {}).get(name)
        return Group(scope, name) if found is None and name == DEFAULT_GROUP else found

    def groups(self, scope: Scope) -> list[Group]:
        """The groups of a scope, in order of name."""
        return sorted(({DEFAULT_GROUP: Group(scope, DEFAULT_GROUP)} | self._groups.get(scope, {})).values(),
                      key=lambda group: group.name)  # fmt: skip

    def all_groups(self) -> Iterator[Group]:
        """The groups of every scope that have a record."""
        return (group for groups in self._groups.values() for group in groups.values())

    def schedule(self, scope: Scope, group: str, name: str) -> Schedule | None:
        return self._schedules.get((scope, group), {}).get(name)

    def schedules(self, scope: Scope, groups: Iterable[str]) -> list[Schedule]:
        """The schedules of some groups, in order of group and name."""
        found = (self._schedules.get((scope, group), {}).values() for group in groups)
        return sorted((each for some in found for each in some), key=lambda each: (each.group, each.name))

    def in_group(self, scope: Scope, group: str, limit: int) -> list[Schedule]:
        """Some schedules of a group."""
        found = self._schedules.get((scope, group), {}).values()
        return [schedule for schedule, _ in zip(found, range(limit), strict=False)]

    def all(self) -> Iterator[Schedule]:
        """Every schedule of every scope."""
        return (each for schedules in self._schedules.values() for each in schedules.values())

    def count(self, scope: Scope) -> int:
        """How many schedules a scope has."""
        return sum(len(schedules) for (owner, _), schedules in self._schedules.items() if owner == scope)

    def route(self, number: int) -> Route | None:
        """The route that a delivery refers to, whether its schedule still has it, or is still there, or not."""
        return self._routes.get(number)

    def last_run(self, schedule: Schedule) -> int | None:
        """The nominal instant of the schedule's latest invocation."""
        return self._runs.get(schedule.number)

    # -- changing

    async def save(self, schedule: Schedule) -> None:
        """Write a schedule, and its route if that is new."""
        changes = [ConfChange(SCHEDULE, schedule.key, schedule.dump())]
        if schedule.route.number not in self._routes:
            changes.append(ConfChange(ROUTE, str(schedule.route.number), _dump_route(schedule.route)))
        await self._store.conf_put(changes)
        self._routes[schedule.route.number] = schedule.route
        self._schedules.setdefault((schedule.scope, schedule.group), {})[schedule.name] = schedule
        self.changed(schedule)

    async def remove(self, schedules: Sequence[Schedule]) -> None:
        """Remove schedules; what they have under way goes on."""
        changes = [ConfChange(SCHEDULE, schedule.key, None) for schedule in schedules]
        runs = [schedule.number for schedule in schedules if schedule.number in self._runs]
        await self._store.conf_put([*changes, *(ConfChange(RUN, str(number), None) for number in runs)])
        for schedule in schedules:
            self._schedules.get((schedule.scope, schedule.group), {}).pop(schedule.name, None)
            self._runs.pop(schedule.number, None)
            self.gone(schedule)

    async def note_run(self, schedule: Schedule, nominal: int) -> None:
        """Write down the nominal instant of an invocation that was made."""
        await self._store.conf_put([ConfChange(RUN, str(schedule.number), b"%d" % nominal)])
        self._runs[schedule.number] = nominal

    async def save_group(self, group: Group) -> None:
        await self._store.conf_put([ConfChange(GROUP, group.key, group.dump())])
        self._put_group(group)

    async def remove_group(self, group: Group) -> None:
        """Remove a group that has no schedules any more."""
        await self._store.conf_put([ConfChange(GROUP, group.key, None)])
        self._groups[group.scope].pop(group.name, None)
        self._schedules.pop((group.scope, group.name), None)

    def _put_group(self, group: Group) -> None:
        self._groups.setdefault(group.scope, {})[group.name] = group

    # -- routes that are not needed any more

    def _not_current(self) -> set[int]:
        return self._routes.keys() - {schedule.route.number for schedule in self.all()}

    async def forget_routes(self, in_use: set[int]) -> int:
        """Remove the routes that neither a schedule nor a delivery uses; answers how many.

        ``in_use`` holds the route numbers of every delivery in the store, read after the previous call.
        """
        replaced = self._not_current()
        gone = self._replaced & replaced - in_use
        stale = self._runs.keys() - {schedule.number for schedule in self.all()}
        changes = [ConfChange(ROUTE, str(number), None) for number in sorted(gone)]
        changes += [ConfChange(RUN, str(number), None) for number in sorted(stale)]
        if changes:
            await self._store.conf_put(changes)
        for number in gone:
            self._routes.pop(number, None)
        for number in stale:
            self._runs.pop(number, None)
        self._replaced = replaced - gone
        return len(gone)


def _dump_route(route: Route) -> bytes:
    return orjson.dumps(
        {
            "account": route.scope.account,
            "region": route.scope.region,
            "rule": route.rule,
            "rule_arn": route.rule_arn,
            "target": route.target,
        }
    )


def _load_route(number: int, value: bytes) -> Route:
    stored: Mapping[str, Any] = orjson.loads(value)
    scope = Scope(stored["account"], stored["region"])
    return Route(number, scope, "", stored["rule"], stored["rule_arn"], stored["target"])
