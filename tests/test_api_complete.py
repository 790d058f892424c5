"""The API is whole: every operation of the services has a method, and every member of a request is read, or is listed
with the reason in docs/compatibility.py, from which the page is made."""

from __future__ import annotations

import pytest
from botocore import xform_name

from bus.app import open_app
from bus.config import Settings
from docs.compatibility import NOT_READ, NOT_SERVED, PAGE, SERVICES, covers, members, model, page
from tests.members_read import Place, Source

SOURCE = Source()

HOMES = {"sqs": ("bus.queues",), "scheduler": ("bus.schedules",)}
"""Where the methods of a service are, as far as two services have operations of one name."""

DELIVERING = tuple(name for name in SOURCE.modules if name.startswith("bus.targets"))
ALSO = {
    # A target is read when it is delivered to.
    "PutTargets": ("bus.dispatch.lane", "bus.dispatch", "rules.template", *DELIVERING),
    **dict.fromkeys(("CreateSchedule", "UpdateSchedule"), ("bus.dispatch.lane", "bus.dispatch", *DELIVERING)),
}
"""What is read of a request elsewhere than on the way from the operation's method."""

OPERATIONS = [(service, name) for service in SERVICES for name in model(service).operation_names]


def methods(service: str, operation: str) -> list[Place]:
    """The methods that answer an operation; there should be one."""
    others = tuple(home for each, homes in HOMES.items() if each != service for home in homes)
    found = SOURCE.operations(xform_name(operation))
    return [place for place in found if place.module.startswith(HOMES.get(service, "")) and not _is_in(place, others)]


def _is_in(place: Place, homes: tuple[str, ...]) -> bool:
    return bool(homes) and place.module.startswith(homes)


def unread(service: str, operation: str) -> list[str]:
    """The members of an operation's request that no code reads."""
    (place,) = methods(service, operation)
    read = SOURCE.names_read(place, *ALSO.get(operation, ()))
    paths = members(model(service).operation_model(operation).input_shape)
    return [path for path in paths if path.rpartition(".")[2] not in read]


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_every_operation_has_a_method_or_a_reason(service: str, operation: str) -> None:
    found = methods(service, operation)
    if operation in NOT_SERVED[service]:
        assert not found, f"{operation} has a method: take it off NOT_SERVED"
    else:
        assert len(found) == 1, f"{operation} has {len(found)} methods and is not in NOT_SERVED"


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_every_member_is_read_or_has_a_reason(service: str, operation: str) -> None:
    if operation in NOT_SERVED[service]:
        return
    unlisted = [
        path
        for path in unread(service, operation)
        if not any(covers(row, operation, path) for row in NOT_READ[service])
    ]
    assert not unlisted, "read them, or say in NOT_READ why not"


@pytest.mark.parametrize(("service", "row"), [(service, row) for service in SERVICES for row in NOT_READ[service]])
def test_no_reason_is_given_for_a_member_that_is_read(service: str, row: str) -> None:
    operation = row.partition(" ")[0]
    assert any(covers(row, operation, path) for path in unread(service, operation)), f"take {row} off NOT_READ"


@pytest.mark.parametrize("service", SERVICES)
def test_reasons_are_for_operations_of_the_model(service: str) -> None:
    known = set(model(service).operation_names)
    assert set(NOT_SERVED[service]) <= known
    assert {row.partition(" ")[0] for row in NOT_READ[service]} <= known


async def test_what_has_a_method_is_wired() -> None:
    app = await open_app(Settings(data_dir=":memory:"))
    try:
        offered = app.rpc.offered | {operation.action for operation, _ in app.scheduler_api.methods()}
    finally:
        await app.close()
    for service, operation in OPERATIONS:
        if operation not in NOT_SERVED[service]:
            action = f"{service}:{operation.removesuffix('Batch') if service == 'sqs' else operation}"
            assert action in offered, f"{operation} has a method that no capability in bus.app brings"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m docs.compatibility"


class TestMembersRead:
    """The reader itself, on operations whose source is known."""

    def test_what_is_read_on_the_way_and_what_is_not(self) -> None:
        (place,) = methods("events", "ListRules")
        read = SOURCE.names_read(place)
        assert {"NamePrefix", "EventBusName", "NextToken", "Limit"} <= read
        assert not {"Force", "TargetArn", "KmsKeyIdentifier"} & read

    def test_answers_are_not_reading(self) -> None:
        (place,) = methods("events", "DeleteEndpoint")
        assert not {"EndpointUrl", "StateReason", "LastModifiedTime"} & SOURCE.names_read(place)

    def test_two_services_may_have_operations_of_one_name(self) -> None:
        (place,) = methods("sqs", "RemovePermission")
        assert place.module.startswith("bus.queues")
        assert all(not place.module.startswith("bus.queues") for place in methods("events", "RemovePermission"))
