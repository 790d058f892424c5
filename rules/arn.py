"""ARNs and the grammars of names: parse, build, and tell what a target's ARN stands for."""

import re
from dataclasses import dataclass
from typing import Literal

from rules.errors import RulesError

TargetKind = Literal["webhook", "event_bus", "queue", "log_group", "aws"]

BUS_NAME = re.compile(r"[/.\-_A-Za-z0-9]{1,256}")
RULE_NAME = re.compile(r"[.\-_A-Za-z0-9]{1,64}")
TARGET_ID = RULE_NAME
ARCHIVE_NAME = re.compile(r"[.\-_A-Za-z0-9]{1,48}")
REPLAY_NAME = RULE_NAME
CONNECTION_NAME = RULE_NAME
API_DESTINATION_NAME = RULE_NAME
ENDPOINT_NAME = RULE_NAME
STATEMENT_ID = re.compile(r"[a-zA-Z0-9\-_]{1,64}")
PARTNER_SOURCE_NAME = re.compile(r"(?=.{1,256}\Z)aws\.partner(?:/[.\-_A-Za-z0-9]+){2,}")

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


def archive_arn(name: str, *, region: str, account: str) -> str:
    """Build the ARN of an archive."""
    return _events(region, account, f"archive/{name}")


def replay_arn(name: str, *, region: str, account: str) -> str:
    """Build the ARN of a replay."""
    return _events(region, account, f"replay/{name}")


def connection_arn(name: str, uuid: str, *, region: str, account: str) -> str:
    """Build the ARN of a connection."""
    return _events(region, account, f"connection/{name}/{uuid}")


def api_destination_arn(name: str, uuid: str, *, region: str, account: str) -> str:
    """Build the ARN of an API destination."""
    return _events(region, account, f"api-destination/{name}/{uuid}")


def endpoint_arn(name: str, *, region: str, account: str) -> str:
    """Build the ARN of a global endpoint."""
    return _events(region, account, f"endpoint/{name}")


def event_source_arn(name: str, *, region: str) -> str:
    """Build the customer's ARN of a partner event source, which bears no account."""
    return _events(region, "", f"event-source/{name}")


def connection_secret_arn(name: str, uuid: str, suffix: str, *, region: str, account: str) -> str:
    """Build the ARN of the secret that holds a connection's credentials; `suffix` is six characters."""
    return _build("secretsmanager", region, account, f"secret:events!connection/{name}/{uuid}-{suffix}")


def queue_arn(name: str, *, region: str, account: str) -> str:
    """Build the ARN of an SQS queue."""
    return _build("sqs", region, account, name)


def log_group_arn(name: str, *, region: str, account: str) -> str:
    """Build the ARN of a CloudWatch log group, without the trailing `:*`."""
    return _build("logs", region, account, f"log-group:{name}")


# --- recognise -------------------------------------------------------------------------------------------------------


def is_url(text: str) -> bool:
    """Tell a webhook's `http://` or `https://` URL, in any case of letters, from an ARN."""
    return text[:8].lower().startswith(("http://", "https://"))


# (service, form of the resource with the name as its group): kind. A log stream, for example, is a kind of "aws".
_TARGETS: tuple[tuple[str, re.Pattern[str], TargetKind], ...] = (
    ("events", re.compile(r"event-bus/([/.\-_A-Za-z0-9]{1,256})"), "event_bus"),
    ("sqs", re.compile(r"([A-Za-z0-9_\-]{1,80}|[A-Za-z0-9_\-]{1,75}\.fifo)"), "queue"),
    ("logs", re.compile(r"log-group:([.\-_/#A-Za-z0-9]{1,512})(?::\*)?"), "log_group"),
)


def target_kind(text: str) -> TargetKind:
    """Say what a target's Arn stands for; a URL is a webhook, an ARN without a kind of its own is "aws".

    ArnError when the text is neither.
    """
    return "webhook" if is_url(text) else _kind_and_name(parse(text))[0]


def _kind_and_name(arn: Arn) -> tuple[TargetKind, str]:
    for service, form, kind in _TARGETS:
        if arn.service == service and (match := form.fullmatch(arn.resource)):
            return kind, match[1]
    return "aws", arn.resource


def _name_in(text: str, kind: TargetKind) -> str:
    found, name = _kind_and_name(parse(text))
    if found != kind:
        raise ArnError(f"{text!r} is not the ARN of {_PHRASES[kind]}.")
    return name


_PHRASES: dict[TargetKind, str] = {"event_bus": "an event bus", "queue": "a queue", "log_group": "a log group"}


def bus_name(name_or_arn: str) -> str:
    """Read the name out of what EventBusName and its like take; ArnError for another ARN or no name at all."""
    if name_or_arn.startswith("arn:"):
        return _name_in(name_or_arn, "event_bus")
    if BUS_NAME.fullmatch(name_or_arn) is None:
        raise ArnError(f"{name_or_arn!r} is not the name of an event bus.")
    return name_or_arn


def queue_name(arn: str) -> str:
    """Read the name out of a queue's ARN; ArnError for anything else."""
    return _name_in(arn, "queue")


def log_group_name(arn: str) -> str:
    """Read the name out of a log group's ARN, with or without `:*`; ArnError for anything else."""
    return _name_in(arn, "log_group")


def rule_of(arn: str) -> tuple[str, str]:
    """Read (bus, rule) out of a rule's ARN; ArnError for anything else."""
    parsed = parse(arn)
    match = _RULE.fullmatch(parsed.resource) if parsed.service == "events" else None
    if match is None:
        raise ArnError(f"{arn!r} is not the ARN of a rule.")
    return match["bus"] or DEFAULT_BUS, match["rule"]


# The bus of a partner holds slashes itself; the rule is what follows the last one.
_RULE = re.compile(r"rule/(?:(?P<bus>[/.\-_A-Za-z0-9]{1,256})/)?(?P<rule>[.\-_A-Za-z0-9]{1,64})")

_REGION = re.compile(
    r"(?:af|ap|ca|cn|eu|eusc|il|me|mx|sa|us)(?:-(?:gov|iso[a-z]?|de))?"
    r"-(?:north|south|east|west|central|northeast|northwest|southeast|southwest)-[0-9]{1,2}"
)


def is_region(text: str) -> bool:
    """Tell whether a text has the form of an AWS region's name; new regions need no new release."""
    return _REGION.fullmatch(text) is not None
