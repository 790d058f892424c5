"""ARNs: parse, build, and tell what the Arn of a target stands for."""

import re
from dataclasses import dataclass
from typing import Literal

from rules.errors import RulesError

TargetKind = Literal["webhook", "event_bus", "api_destination", "queue", "log_group", "archive", "aws"]

DEFAULT_BUS = "default"


class ArnError(RulesError):
    """A text that is not an ARN, or not one of the resource it should name."""


_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z\-]*):(?P<service>[a-z0-9\-]+):(?P<region>[a-z0-9\-]*):(?P<account>[0-9]{12}|aws|)"
    r":(?P<resource>[^\s\x00-\x1f]+)"
)


@dataclass(frozen=True, slots=True)
class Arn:
    """An Amazon resource name; `region` and `account` are empty where the service has none."""

    partition: str
    service: str
    region: str
    account: str
    resource: str

    def __str__(self) -> str:
        return f"arn:{self.partition}:{self.service}:{self.region}:{self.account}:{self.resource}"


def parse(text: str) -> Arn:
    """Read an ARN; ArnError when it is not one."""
    match = _ARN.fullmatch(text)
    if match is None:
        raise ArnError(f"{text!r} is not an ARN.")
    return Arn(**match.groupdict())


# --- build -----------------------------------------------------------------------------------------------------------


_PARTITIONS = (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov"))


def partition_of(region: str) -> str:
    """Name the partition a region belongs to."""
    return next((partition for prefix, partition in _PARTITIONS if region.startswith(prefix)), "aws")


def _build(service: str, region: str, account: str, resource: str) -> str:
    return f"arn:{partition_of(region)}:{service}:{region}:{account}:{resource}"


def _events(region: str, account: str, resource: str) -> str:
    return _build("events", region, account, resource)


def bus_arn(name: str, *, region: str, account: str) -> str:
    """Build the ARN of an event bus."""
    return _events(region, account, f"event-bus/{name}")


def rule_arn(name: str, *, bus: str, region: str, account: str) -> str:
    """Build the ARN of a rule; the default bus does not appear in it."""
    return _events(region, account, f"rule/{name}" if bus == DEFAULT_BUS else f"rule/{bus}/{name}")


def event_source_arn(name: str, *, region: str) -> str:
    """Build the ARN of a partner event source; it belongs to no account."""
    return _events(region, "", f"event-source/{name}")


def archive_arn(name: str, *, region: str, account: str) -> str:
    """Build the ARN of an archive."""
    return _events(region, account, f"archive/{name}")


def replay_arn(name: str, *, region: str, account: str) -> str:
    """Build the ARN of a replay."""
    return _events(region, account, f"replay/{name}")


def archive_target_arn(region: str) -> str:
    """Build the ARN that an archive's managed rule has as its target: it names the service, and no archive."""
    return _events(region, "", ":")


def endpoint_arn(name: str, *, region: str, account: str) -> str:
    """Build the ARN of a global endpoint."""
    return _events(region, account, f"endpoint/{name}")


def queue_arn(name: str, *, region: str, account: str) -> str:
    """Build the ARN of an SQS queue."""
    return _build("sqs", region, account, name)


def connection_arn(name: str, uuid: str, *, region: str, account: str) -> str:
    """Build the ARN of a connection."""
    return _events(region, account, f"connection/{name}/{uuid}")


def api_destination_arn(name: str, uuid: str, *, region: str, account: str) -> str:
    """Build the ARN of an API destination."""
    return _events(region, account, f"api-destination/{name}/{uuid}")


def secret_arn(name: str, *, region: str, account: str) -> str:
    """Build the ARN of a secret."""
    return _build("secretsmanager", region, account, f"secret:{name}")


# --- recognise -------------------------------------------------------------------------------------------------------


def is_url(text: str) -> bool:
    """Tell a webhook's `http://` or `https://` URL, in any case of letters, from an ARN."""
    return text[:8].lower().startswith(("http://", "https://"))


# (service, form of the resource): kind. A log stream, for example, is a kind of "aws".
_TARGETS: tuple[tuple[str, re.Pattern[str], TargetKind], ...] = (
    ("events", re.compile(r"event-bus/([/.\-_A-Za-z0-9]{1,256})"), "event_bus"),
    ("events", re.compile(r"api-destination/[.\-_A-Za-z0-9]{1,64}/[A-Za-z0-9\-]+"), "api_destination"),
    ("sqs", re.compile(r"([A-Za-z0-9_\-]{1,80}|[A-Za-z0-9_\-]{1,75}\.fifo)"), "queue"),
    ("events", re.compile(r":"), "archive"),
    ("logs", re.compile(r"log-group:([.\-_/#A-Za-z0-9]{1,512})(?::\*)?"), "log_group"),
)


def target_kind(text: str) -> TargetKind:
    """Say what a target's Arn stands for; a URL is a webhook, an ARN without a kind of its own is "aws".

    ArnError when the text is neither.
    """
    if is_url(text):
        return "webhook"
    arn = parse(text)
    kinds = (kind for service, form, kind in _TARGETS if arn.service == service and form.fullmatch(arn.resource))
    return next(kinds, "aws")
