"""Services as botocore's models describe them: their operations, and the check of each request.

Loading reads the model and nothing more; an operation's check is built when its first request arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from botocore import xform_name  # type: ignore[import-untyped]
from botocore.loaders import Loader  # type: ignore[import-untyped]
from botocore.model import OperationModel, ServiceModel, Shape  # type: ignore[import-untyped]

from bus.api import constraints
from bus.api.constraints import Bounds, Check, MapKey
from bus.api.containers import ListOf, MapOf, Structure
from bus.api.scalars import Blob, Flag, Number, Scalar, Text, Time
from bus.errors import ApiError, validation

Refusal = Callable[[list[constraints.Violation]], ApiError]
"""Violations, at least one, to the error that reports them."""

PRINTED_ONLY = {"PutEventsRequestEntry": ("kmsKeyIdentifier", "internalMetadata")}
"""Members that AWS prints in its messages although they are not in the public model."""


ANY_TEXT = frozenset({"HeaderValue"})
"""Shapes whose pattern AWS does not hold values against: a target's header may be empty, or have a line break."""


def validation_errors(found: list[constraints.Violation]) -> ApiError:
    """All violations in one ValidationException."""
    plural = "error" if len(found) == 1 else "errors"
    return validation(f"{len(found)} validation {plural} detected: {'; '.join(map(_sentence, found))}")


def _sentence(violation: constraints.Violation) -> str:
    value = "Value null" if violation.value is None else f"Value '{violation.check.show(violation.value)}'"
    if violation.check.sensitive and violation.value is not None:
        value = "Value"
    return f"{value} at '{_dotted(violation.path)}' failed to satisfy constraint: {violation.constraint}"


def _dotted(path: constraints.Path) -> str:
    return ".".join(
        f"{step}.member" if isinstance(step, int | MapKey) else constraints.lower_camel(step) for step in path
    )


def missing_parameter(found: list[constraints.Violation]) -> ApiError:
    """The first absent member, in the words of SQS, which reports one at a time."""
    parameter = ".".join(str(step) for step in found[0].path)
    return ApiError("MissingRequiredParameterException", f"The request must contain the parameter {parameter}.")


class Operation:
    """One operation of a service: its names, what its answer looks like, and the check of its requests."""

    def __init__(self, model: OperationModel, action: str, build: _Build) -> None:
        self.name: str = model.name
        self.method_name: str = xform_name(model.name)
        self.action = action
        self.service: str = model.service_model.service_name
        self.is_void = model.output_shape is None
        self.model = model
        self._build = build

    @cached_property
    def _check(self) -> Check:
        if self.model.input_shape is None:
            return _complete(Structure(self.name))
        return self._build.check_of(self.model.input_shape)

    def check(self, request: Any) -> None:
        """Hold a request, as parsed from JSON, against the model.

        Raises ApiError: SerializationException at a wrong JSON type, otherwise all violations in one.
        """
        if not self._check.accepts(request):
            self.walk(request)

    def accepts(self, request: Any) -> bool:
        """Whether the request is plainly in order; False is no verdict."""
        return self._check.accepts(request)

    def walk(self, request: Any) -> None:
        """The complete check, whatever `accepts` would say."""
        found: list[constraints.Violation] = []
        if request is None:
            raise constraints.unreadable("", "structure")
        self._check.walk(request, (), found)
        if found:
            raise self._build.refusal(found)


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the wire.

    ``name`` is botocore's and also the prefix of IAM actions; ``query_errors`` whether errors
    carry SQS's second code; ``operations`` are keyed by name. ``target_prefix`` and ``json_version`` are empty where
    operations are told apart by method and path. ``statuses`` are the HTTP statuses of the modelled errors.
    """

    name: str
    signing_name: str
    target_prefix: str
    json_version: str
    query_errors: bool
    operations: dict[str, Operation]
    statuses: Mapping[str, int]

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations.values())


def load_service(name: str, *, limits: bool = True, refusal: Refusal = validation_errors) -> Service:
    """A service from botocore's model.

    Without ``limits`` only JSON types and required members are checked; ``refusal`` words what is found.
    """
    model = ServiceModel(Loader().load_service_model(name, "service-2"), name)
    build = _Build(limits, refusal)
    return Service(
        name,
        model.signing_name,
        model.metadata.get("targetPrefix", ""),
        model.metadata.get("jsonVersion", ""),
        "awsQueryCompatible" in model.metadata,
        {o: Operation(model.operation_model(o), _action(name, o), build) for o in model.operation_names},
        {shape.name: int(shape.metadata.get("error", {}).get("httpStatusCode", 400)) for shape in model.error_shapes},
    )


def _action(service: str, operation: str) -> str:
    """The IAM action of an operation; SQS has none for batches, which go by the name of their single form."""
    return f"{service}:{operation.removesuffix('Batch') if service == 'sqs' else operation}"


def load_events() -> Service:
    """EventBridge."""
    return load_service("events")


def load_scheduler() -> Service:
    """EventBridge Scheduler."""
    return load_service("scheduler")


def load_queues() -> Service:
    """SQS, whose lengths and value sets its operations check themselves."""
    return load_service("sqs", limits=False, refusal=missing_parameter)


class _Build:
    """Shapes to checks, each shape once; the rows of `_KINDS` say how."""

    def __init__(self, limits: bool, refusal: Refusal) -> None:
        self.refusal = refusal
        self._limits = limits
        self._made: dict[str, Check] = {}

    def check_of(self, shape: Shape) -> Check:
        """The check of a shape, from the cache if it was met before."""
        made = self._made.get(shape.name)
        if made is None:
            made = self._made[shape.name] = _KINDS[shape.type_name](self, shape)
            if isinstance(made, Structure):
                made.fill({name: self.check_of(member) for name, member in shape.members.items()})
        return made

    def bounds(self, shape: Shape) -> Bounds:
        limits = shape.metadata if self._limits else {}
        return Bounds(limits.get("min"), limits.get("max"))

    def structure(self, shape: Shape) -> Structure:
        return Structure(
            shape.name,
            required=shape.metadata.get("required", ()),
            printed=PRINTED_ONLY.get(shape.name, ()),
            sensitive=_is_sensitive(shape),
        )

    def list_of(self, shape: Shape) -> ListOf:
        return ListOf(self.check_of(shape.member), length=self.bounds(shape), sensitive=_is_sensitive(shape))

    def map_of(self, shape: Shape) -> MapOf:
        key = self.check_of(shape.key)
        assert isinstance(key, Scalar), "the keys of every map in a JSON service are strings"
        return MapOf(key, self.check_of(shape.value), length=self.bounds(shape), sensitive=_is_sensitive(shape))

    def text(self, shape: Shape) -> Text:
        if not self._limits:
            return Text(sensitive=_is_sensitive(shape))
        return Text(
            length=self.bounds(shape),
            pattern=None if shape.name in ANY_TEXT else shape.metadata.get("pattern"),
            values=shape.metadata.get("enum", ()),
            sensitive=_is_sensitive(shape),
        )

    def number(self, shape: Shape) -> Number:
        whole, wanted = _NUMBERS[shape.type_name]
        return Number(bounds=self.bounds(shape), whole=whole, wanted=wanted, sensitive=_is_sensitive(shape))


_NUMBERS = {
    "integer": (True, "an Integer"),
    "long": (True, "a Long"),
    "float": (False, "a Float"),
    "double": (False, "a Double"),
}

_KINDS: dict[str, Callable[[_Build, Shape], Check]] = {
    "structure": _Build.structure,
    "list": _Build.list_of,
    "map": _Build.map_of,
    "string": _Build.text,
    **dict.fromkeys(_NUMBERS, _Build.number),
    "timestamp": lambda _, shape: Time(sensitive=_is_sensitive(shape)),
    "boolean": lambda _, shape: Flag(sensitive=_is_sensitive(shape)),
    "blob": lambda _, shape: Blob(sensitive=_is_sensitive(shape)),
}


def _is_sensitive(shape: Shape) -> bool:
    return bool(shape.metadata.get("sensitive"))


def _complete(structure: Structure) -> Structure:
    structure.fill({})
    return structure
