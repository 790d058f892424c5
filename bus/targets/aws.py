"""AWS services as targets, called through botocore: at ``aws_endpoint_url`` or at AWS itself.

Theory of operation. botocore blocks, so calls run in a few threads of their own, and one place (a service, region and
account) has only some of them, so that one that hangs leaves the others theirs. A client is made on its first use,
which takes a noticeable part of a second (most of botocore is imported only then) and so happens in a thread as well.
botocore's own retries are off: the bus retries, and it alone knows for how long. An endpoint that was named is given
signatures by the account of the rule (emulators take the access key id for the account), never by the credentials of
this machine; AWS itself is called with the credentials that botocore finds. A target's RoleArn is not assumed.
"""

from __future__ import annotations

import asyncio
import re
import threading
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import structlog
from botocore import exceptions as aws_errors  # type: ignore[import-untyped]

from bus.config import Settings
from bus.scope import Scope
from bus.targets import Delivered, Delivery, Failed, Outcome
from bus.targets.aws_calls import Call, Row, row_for
from bus.targets.threads import Threads
from rules.arn import Arn, ArnError, parse
from rules.errors import RulesError

THREADS = 16
THREADS_PER_PLACE = 4
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
REAL_AWS = "aws"
"""The value of ``aws_endpoint_url`` that means AWS itself."""

log = structlog.get_logger(__name__)

_trace: ContextVar[str | None] = ContextVar("trace", default=None)


class Place(NamedTuple):
    """Where a call goes, and for whom."""

    service: str
    region: str
    account: str


def place_of(service: str, arn: Arn, scope: Scope) -> Place:
    """The place of an ARN; Firehose streams are looked for in the region of the rule."""
    region = scope.region if service == "firehose" else arn.region or scope.region
    return Place(service, region, scope.account)


class AwsService:
    """Delivers to ARNs of AWS services that this process does not hold itself."""

    def __init__(self, settings: Settings, *, timeout: float = ANSWER_SECONDS) -> None:
        self._settings = settings
        self._clients = Clients(settings.aws_endpoint_url, timeout)
        self._threads = Threads(THREADS, name="aws-target")
        self._turns: WeakValueDictionary[Place, asyncio.Semaphore] = WeakValueDictionary()

    async def deliver(self, delivery: Delivery) -> Outcome:
        try:
            arn = parse(delivery.route.arn)
        except ArnError as error:
            return Failed("INVALID_PARAMETER", str(error))
        row = row_for(arn, delivery.route.target)
        if self._settings.aws_endpoint_url is None:
            return Failed("NO_RESOURCE", _nowhere(arn))
        if row is None:
            return Failed("INVALID_PARAMETER", _unknown(arn))
        place = place_of(row.client, arn, delivery.route.scope)
        turns = self._turns.setdefault(place, asyncio.Semaphore(THREADS_PER_PLACE))
        try:
            async with turns:
                return await self._threads.run(partial(self._call, row, arn, delivery, place))
        except Exception as error:
            log.exception("a call ended in an unexpected way", target=str(arn))
            return Failed("INTERNAL_ERROR", f"The call ended with {type(error).__name__}.", retry=True)

    async def close(self) -> None:
        """Calls under way may still arrive; nobody waits for them."""
        self._threads.close()

    def _call(self, row: Row, arn: Arn, delivery: Delivery, place: Place) -> Outcome:
        """One attempt, in a thread."""
        try:
            client = self._clients.get(place)
            arguments = row.arguments(Call(arn, delivery, client.meta.endpoint_url))
        except (ValueError, TypeError, RulesError, *_NEVER_SENT) as error:
            return Failed("INVALID_PARAMETER", f"The input does not suit {arn}: {_one_line(error)}")
        from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]  # see Clients._make

        _trace.set(delivery.trace)
        try:
            getattr(client, row.method)(**arguments)
        except aws_errors.ClientError as error:
            return answer(error)
        except aws_errors.BotoCoreError as error:
            return failure(error)
        except ResponseParserError as error:
            return Failed("ERROR_FROM_TARGET", _one_line(error), retry=True)
        return Delivered()


class Clients:
    """botocore clients, made once for each place."""

    def __init__(self, endpoint_url: str | None, timeout: float) -> None:
        self._own_endpoint = None if endpoint_url in (None, REAL_AWS) else endpoint_url
        self._timeout = timeout
        self._session: Any = None
        self._clients: dict[Place, Any] = {}
        self._lock = threading.Lock()

    def get(self, place: Place) -> Any:
        """The client for calls to a place."""
        with self._lock:
            client = self._clients.get(place)
            if client is None:
                client = self._clients[place] = self._make(place)
            return client

    def _make(self, place: Place) -> Any:
        # Imported here because most buses never call AWS, and every start would pay for it.
        from botocore.config import Config  # type: ignore[import-untyped]
        from botocore.session import Session  # type: ignore[import-untyped]

        if self._session is None:
            self._session = Session()
        config = Config(
            connect_timeout=min(CONNECT_SECONDS, self._timeout),
            read_timeout=self._timeout,
            retries={"total_max_attempts": 1},
            max_pool_connections=THREADS_PER_PLACE,
            user_agent_extra="busbar",
        )
        keys = {"aws_access_key_id": place.account, "aws_secret_access_key": "busbar"} if self._own_endpoint else {}
        client = self._session.create_client(
            place.service, region_name=place.region, endpoint_url=self._own_endpoint, config=config, **keys
        )
        client.meta.events.register("before-call.lambda.Invoke", _carry_trace)
        return client


def _carry_trace(params: dict[str, Any], **_: Any) -> None:
    """Lambda takes the trace header from the request, where no argument of Invoke puts it."""
    trace = _trace.get()
    if trace is not None:
        params["headers"]["X-Amzn-Trace-Id"] = trace


# --- what an attempt came to -----------------------------------------------------------------------------------------


def answer(error: aws_errors.ClientError) -> Failed:
    """The failure that a service answered with."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    kind, retry = classify(code, status)
    return Failed(kind, _one_line(error), retry=retry, cause=code or None)


def classify(code: str, status: int) -> tuple[str, bool]:
    """ERROR_CODE, and whether to try again, of an AWS error code and HTTP status."""
    for codes, outcome in _CODES:
        if code in codes:
            return outcome
    for first, last, outcome in _STATUSES:
        if first <= status <= last:
            return outcome
    return "INVALID_PARAMETER", False


_CODES: tuple[tuple[frozenset[str], tuple[str, bool]], ...] = (
    (
        frozenset(
            {
                "EC2ThrottledException",
                "KMSThrottlingException",
                "KmsThrottled",
                "LimitExceededException",
                "PriorRequestNotComplete",
                "ProvisionedThroughputExceededException",
                "RequestLimitExceeded",
                "RequestThrottled",
                "RequestThrottledException",
                "Throttled",
                "ThrottledException",
                "Throttling",
                "ThrottlingException",
                "TooManyRequestsException",
            }
        ),
        ("THROTTLING", True),
    ),
    (
        frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "RequestTimeTooSkewed"}),
        ("TRANSIENT_ASSUME_ROLE", True),
    ),
    (frozenset({"RequestTimeout", "RequestTimeoutException"}), ("TIMEOUT", True)),
    (
        frozenset({"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation"}),
        ("NO_PERMISSIONS", False),
    ),
    (
        frozenset(
            {
                "AWS.SimpleQueueService.NonExistentQueue",
                "ClusterNotFoundException",
                "InvalidDocument",
                "NotFound",
                "NotFoundException",
                "PipelineNotFoundException",
                "QueueDoesNotExist",
                "ResourceNotFound",
                "ResourceNotFoundException",
                "StateMachineDoesNotExist",
            }
        ),
        ("NO_RESOURCE", False),
    ),
)

_STATUSES: tuple[tuple[int, int, tuple[str, bool]], ...] = (
    (401, 401, ("NO_PERMISSIONS", False)),
    (403, 403, ("NO_PERMISSIONS", False)),
    (404, 404, ("NO_RESOURCE", False)),
    (408, 408, ("TIMEOUT", True)),
    (429, 429, ("THROTTLING", True)),
    (500, 599, ("ERROR_FROM_TARGET", True)),
)

_NEVER_SENT = (aws_errors.NoRegionError, aws_errors.InvalidRegionError, aws_errors.UnknownServiceError)


def failure(error: Exception) -> Failed:
    """The failure of a call that no service answered."""
    for kinds, code, final in _FAILURES:
        if isinstance(error, kinds):
            return Failed(code, _one_line(error), retry=not final)
    return Failed("INTERNAL_ERROR", _one_line(error), retry=True)


_FAILURES: tuple[tuple[tuple[type[Exception], ...], str, bool], ...] = (
    ((aws_errors.ParamValidationError, *_NEVER_SENT), "INVALID_PARAMETER", True),
    ((aws_errors.NoCredentialsError, aws_errors.PartialCredentialsError), "NO_PERMISSIONS", True),
    ((aws_errors.ConnectTimeoutError, aws_errors.ReadTimeoutError), "TIMEOUT", False),
    ((aws_errors.ConnectionError, aws_errors.HTTPClientError), "CONNECTION_FAILURE", False),
)
"""First match wins: the kinds of error, the ERROR_CODE, and whether it was certain before anything was sent."""


def _one_line(error: Exception) -> str:
    """botocore lists what is wrong with arguments on lines of their own, each with its value, which is event data."""
    if isinstance(error, aws_errors.ParamValidationError):
        return f"Parameter validation failed: {'; '.join(_COMPLAINT.findall(str(error))) or 'see the target'}."
    return " ".join(str(error).split())


_COMPLAINT = re.compile(
    r"^(?:Missing required parameter|Unknown parameter|Invalid [a-z ]+) (?:in|for parameter|parameter) [\w.\[\]]{1,200}"
    r"(?:: \"[\w, ]{1,200}\")?",
    re.MULTILINE,
)
"""The beginning of a line of botocore's report, up to the name of the parameter and short of its value."""


def _nowhere(arn: Arn) -> str:
    return (
        f"Nothing stands for {arn} here: run `busbar wire '{arn}' http://127.0.0.1:PORT/` to deliver to a local URL, "
        "or start the bus with --aws-endpoint-url."
    )


def _unknown(arn: Arn) -> str:
    return f"The bus cannot call {arn.service} for {arn}: run `busbar wire '{arn}' http://127.0.0.1:PORT/` instead."
