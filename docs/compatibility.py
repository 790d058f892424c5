"""The part of compatibility.md that is made from AWS's service models; the rest of the page is written by hand.

    python -m docs.compatibility            writes it
    python -m docs.compatibility --check    fails when the page is not what would be written

`NOT_SERVED` and `NOT_READ` are the tables behind it: operations that nothing answers, and members of requests that no
code reads, each with the reason. ``tests/test_api_complete.py`` holds them against the models and the source, in both
directions: what is missing there fails, and so does what is there without need.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from botocore.loaders import Loader  # type: ignore[import-untyped]
from botocore.model import ServiceModel, Shape  # type: ignore[import-untyped]

PAGE = Path(__file__).with_suffix(".md")
BEGIN, END = "<!-- made by python -m docs.compatibility -->\n", "<!-- until here -->\n"

SERVICES: Mapping[str, str] = {"events": "EventBridge", "sqs": "SQS", "scheduler": "EventBridge Scheduler"}

NOT_SERVED: Mapping[str, Mapping[str, str]] = {"events": {}, "sqs": {}, "scheduler": {}}
"""Operations without a method, by service, and why or until when."""

_STORED = "stored and returned; there is no Route 53 that could be asked"
_HANDED_ON = "handed on as it is to the service, or to what a wire leads to"
_NOT_FAILING = "stored and returned; nothing is encrypted with a key that could fail, so nothing comes to that queue"
_NO_SUCH_BUS = "refused with the block: there are no buses of that kind here"
_NO_CLIENT = "stored and returned; no botocore client calls such a target: wire its ARN"

NOT_READ: Mapping[str, Mapping[str, str]] = {
    "events": {
        "CreateEndpoint RoutingConfig.FailoverConfig.Primary": _STORED,
        "UpdateEndpoint RoutingConfig.FailoverConfig.Primary": _STORED,
        "CreateEventBus DeadLetterConfig.Arn": _NOT_FAILING,
        "UpdateEventBus DeadLetterConfig.Arn": _NOT_FAILING,
        "PutTargets Targets.AppSyncParameters": _NO_CLIENT,
        "PutTargets Targets.BatchParameters": _HANDED_ON,
        "PutTargets Targets.EcsParameters": _HANDED_ON,
        "PutTargets Targets.RedshiftDataParameters": _HANDED_ON,
        "PutTargets Targets.RunCommandParameters": _HANDED_ON,
        "PutTargets Targets.SageMakerPipelineParameters.PipelineParameterList": _HANDED_ON,
    },
    "sqs": {},
    "scheduler": {
        f"{operation} Target.{member}": reason
        for operation in ("CreateSchedule", "UpdateSchedule")
        for member, reason in {
            "EcsParameters": _HANDED_ON,
            "EventBridgePutRawEventsParameters": _NO_SUCH_BUS,
        }.items()
    },
}
"""Members that no code reads by name, by service, as ``Operation Path``; a path stands for all below it too."""


def model(service: str) -> ServiceModel:
    """A service as botocore knows it."""
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def members(shape: Shape | None, path: str = "", within: tuple[str, ...] = ()) -> Iterator[str]:
    """The paths of every member of a request, those inside lists and maps too: ``Targets.RetryPolicy``."""
    if shape is None:
        return
    if shape.type_name == "structure" and shape.name not in within:
        for name, member in shape.members.items():
            inner = f"{path}.{name}" if path else name
            yield inner
            yield from members(member, inner, (*within, shape.name))
    elif shape.type_name == "list":
        yield from members(shape.member, path, within)
    elif shape.type_name == "map":
        yield from members(shape.value, path, within)


def covers(row: str, operation: str, path: str) -> bool:
    """Whether a row of `NOT_READ` stands for this member."""
    named, _, above = row.partition(" ")
    return named == operation and (path + ".").startswith(above + ".")


def made() -> str:
    """The text between the two markers."""
    return "".join(f"{line}\n" for line in _lines())


def _lines() -> Iterator[str]:
    yield "| service | operations | served |"
    yield "| --- | --- | --- |"
    for service, title in SERVICES.items():
        names = model(service).operation_names
        yield f"| {title} | {len(names)} | {len(names) - len(NOT_SERVED[service])} |"
    by_reason: dict[str, list[str]] = {}
    for service in SERVICES:
        for name, reason in NOT_SERVED[service].items():
            by_reason.setdefault(reason, []).append(name)
    if by_reason:
        yield ""
        yield "These answer `UnknownOperationException`, so that nothing seems to work that does not:"
        yield ""
        yield "| operations | |"
        yield "| --- | --- |"
        for reason, names in by_reason.items():
            yield f"| {', '.join(names)} | {reason} |"
    yield ""
    yield "Every member of every request is read, but for these:"
    yield ""
    yield "| member | what becomes of it |"
    yield "| --- | --- |"
    for service in SERVICES:
        for row, reason in NOT_READ[service].items():
            operation, _, path = row.partition(" ")
            yield f"| `{path}` of {operation} | {reason} |"


def page() -> str:
    """The whole page as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE} must have the lines {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}\n{made()}\n{END}{after}"


def main() -> None:
    """Write the page, or with --check say whether it is up to date."""
    wanted = page()
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") != wanted:
            raise SystemExit(f"{PAGE.name} is out of date: run python -m docs.compatibility")
    else:
        PAGE.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
