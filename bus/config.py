"""Settings: one frozen value that is made once, checked once, and handed to whoever needs it.

Every field carries the sentence that ``--help`` and ``docs/settings.md`` show, its option is the
field's name with dashes, and its environment name is ``BUSBAR_`` and the name in capitals.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bus.errors import ConfigError

ENV_PREFIX = "BUSBAR_"
STANDARD_BASE64 = str.maketrans("-_", "+/")

ORGANIZATION = r"o-[a-z0-9]{10,32}"
"""The ids that organisations have."""


def setting(default: Any, sentence: str, *, metavar: str | None = None, secret: bool = False) -> Any:
    """A field with its default and the sentence that explains it."""
    return field(default=default, repr=not secret, metadata={"help": sentence, "metavar": metavar, "secret": secret})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `busbar serve` can be told."""

    host: str = setting("127.0.0.1", "Address to listen on.", metavar="ADDRESS")
    port: int = setting(4010, "Port to listen on; 0 picks a free one and prints it.", metavar="PORT")
    data_dir: str = setting(
        ".busbar", "Directory for everything that must survive a restart, or :memory: to keep nothing.", metavar="DIR"
    )
    account_id: str = setting(
        "000000000000", "Account of callers whose access key id is not itself a 12-digit account.", metavar="ID"
    )
    region: str = setting("us-east-1", "Region of callers that do not sign their requests.", metavar="REGION")
    organization: str | None = setting(
        None, "Organisation that all accounts belong to, for policies that ask (aws:PrincipalOrgID).", metavar="o-ID"
    )
    strict: bool = setting(
        False,
        "Enforce what only makes sense inside AWS: RoleArn on the targets that need one, targets of the own account.",
    )
    max_put_events_bytes: int = setting(
        1_048_576, "Largest PutEvents request, counted as AWS counts entries (262144 was the limit before 2026)."
    )
    max_body_bytes: int = setting(
        16_777_216, "Largest HTTP body read at all; a longer one is refused before it is parsed."
    )
    max_event_pattern: int = setting(2048, "Longest event pattern in characters, up to 4096 (an AWS account quota).")
    webhook_secret: str | None = setting(
        None, "Sign webhook deliveries with this secret (whsec_ and base64), in the Standard Webhooks form.",
        metavar="whsec_...", secret=True,
    )  # fmt: skip
    webhook_timeout: float = setting(30.0, "Seconds a webhook may take to answer one attempt.", metavar="SECONDS")
    max_in_flight: int = setting(64, "Most attempts under way at one target at a time.", metavar="N")
    best_effort_buffer: int = setting(
        10_000, "Best-effort service events that may wait in memory; what comes beyond is dropped.", metavar="N"
    )
    aws_endpoint_url: str | None = setting(
        None, "Where targets with an AWS ARN that no wire covers are invoked: a URL, or `aws` for AWS itself.",
        metavar="URL",
    )  # fmt: skip
    queue_recreate_wait: float = setting(
        0.0, "Seconds before a deleted queue's name may be used again (60 on AWS).", metavar="SECONDS"
    )
    credentials: str | None = setting(
        None, "JSON file of the access keys that may call; every request must then be signed.", metavar="FILE"
    )
    token: str | None = setting(
        None, "Bearer token that opens /_bus and /metrics where credentials are required.", metavar="TOKEN", secret=True
    )
    secret_key: str | None = setting(
        None, "Key that seals secrets on disk (32 bytes in base64); without it, one is kept in the data directory.",
        metavar="KEY[,OLD...]", secret=True,
    )  # fmt: skip
    insecure: bool = setting(False, "Serve beyond this machine without credentials: everyone who can connect may act.")
    allow_target: tuple[str, ...] = setting(
        (), "Network a webhook may be sent to although it is link-local or a metadata address; may be repeated.",
        metavar="CIDR",
    )  # fmt: skip
    log_format: str = setting("console", "`console` for people, `json` for machines.", metavar="FORMAT")
    log_level: str = setting("info", "debug, info, warning or error.", metavar="LEVEL")
    stop_grace: float = setting(
        10.0, "Seconds that attempts under way get to finish when the server is told to stop.", metavar="SECONDS"
    )

    def __post_init__(self) -> None:
        for check in _CHECKS:
            check(self)

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    @property
    def in_memory(self) -> bool:
        return self.data_dir == ":memory:"


def is_loopback(host: str) -> bool:
    """Whether ``host`` names this machine and nothing else."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def option_name(name: str) -> str:
    """The command-line option of a setting."""
    return "--" + name.replace("_", "-")


def environment_name(name: str) -> str:
    """The environment variable of a setting."""
    return ENV_PREFIX + name.upper()


def from_mapping(values: Mapping[str, Any]) -> Settings:
    """Settings from names and values; an unknown name is answered with the nearest known one."""
    known = [f.name for f in fields(Settings)]
    for name in values:
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise ConfigError(f"there is no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return Settings(**values)


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """One sentence for each ``BUSBAR_`` variable that no setting reads, so that a typing error is not silent."""
    names = os.environ if environment is None else environment
    known = {environment_name(f.name) for f in fields(Settings)} | CLIENT_VARIABLES
    sentences = []
    for name in sorted(names):
        if name.startswith(ENV_PREFIX) and name not in known:
            near = get_close_matches(name, sorted(known), 1)
            sentences.append(f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else ""))
    return sentences


CLIENT_VARIABLES = {"BUSBAR_ENDPOINT_URL", "BUSBAR_EVENT_RULER_JAR"}
"""Variables of the client commands and of the benchmarks."""


def _check_numbers(settings: Settings) -> None:
    ranges = {
        "port": (0, 65_535),
        "max_put_events_bytes": (1024, 1 << 30),
        "max_body_bytes": (1024, 1 << 31),
        "max_event_pattern": (1, 4096),
        "webhook_timeout": (0.001, 3600),
        "max_in_flight": (1, 10_000),
        "best_effort_buffer": (1, 10_000_000),
        "queue_recreate_wait": (0, 3600),
        "stop_grace": (0, 3600),
    }
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise ConfigError(f"{option_name(name)} must be between {low} and {high}, not {value}")


def _check_choices(settings: Settings) -> None:
    choices = {"log_format": ("console", "json"), "log_level": ("debug", "info", "warning", "error")}
    for name, allowed in choices.items():
        if getattr(settings, name) not in allowed:
            raise ConfigError(
                f"{option_name(name)} must be one of {', '.join(allowed)}, not {getattr(settings, name)!r}"
            )


def _check_texts(settings: Settings) -> None:
    """An option that was given an empty text is a shell variable that was not set: `--credentials "$KEYS"` that let
    everyone in, or `--data-dir "$DATA"` that filled the working directory, is not what anybody meant.
    """
    for name in ("data_dir", "credentials", "token", "aws_endpoint_url"):
        if getattr(settings, name) == "":
            raise ConfigError(f"{option_name(name)} must not be empty")


def _check_aws_endpoint(settings: Settings) -> None:
    url = settings.aws_endpoint_url
    if url is None or url == "aws":
        return
    try:
        place = urlsplit(url)
        usable = place.scheme in ("http", "https") and bool(place.hostname) and place.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"--aws-endpoint-url must be `aws`, or a URL such as http://127.0.0.1:4566, not {url!r}")


def _check_names(settings: Settings) -> None:
    if not re.fullmatch(r"[0-9]{12}", settings.account_id):
        raise ConfigError(f"--account-id must be 12 digits, not {settings.account_id!r}")
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-[0-9]+", settings.region):
        raise ConfigError(f"--region must look like us-east-1, not {settings.region!r}")
    if settings.organization is not None and not re.fullmatch(ORGANIZATION, settings.organization):
        raise ConfigError(f"--organization must look like o-1a2b3c4d5e, not {settings.organization!r}")


def _check_networks(settings: Settings) -> None:
    for network in settings.allow_target:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError as error:
            raise ConfigError(f"--allow-target must be a network such as 169.254.10.0/24: {error}") from None


def _check_secret(settings: Settings) -> None:
    if settings.webhook_secret is not None and not settings.webhook_secret.startswith("whsec_"):
        raise ConfigError("--webhook-secret must start with whsec_ and go on in base64")


def _check_secret_key(settings: Settings) -> None:
    for each in (settings.secret_key or "").split(",") if settings.secret_key is not None else ():
        try:
            usable = len(base64.b64decode(each.strip().translate(STANDARD_BASE64), validate=True)) == 32
        except ValueError:
            usable = False
        if not usable:
            raise ConfigError(
                "--secret-key (BUSBAR_SECRET_KEY) must be 32 bytes in base64, such as $(openssl rand -base64 32);"
                " several keys are separated by commas, the one to seal with first"
            )


def _check_access(settings: Settings) -> None:
    if settings.credentials and not Path(settings.credentials).is_file():
        raise ConfigError(f"credentials file {settings.credentials} does not exist")
    if not settings.on_loopback and not settings.credentials and not settings.insecure:
        raise ConfigError(
            f"{settings.host} can be reached from other machines: give --credentials FILE so that only key holders "
            "may call, or --insecure to let everyone"
        )


_CHECKS = (
    _check_numbers,
    _check_choices,
    _check_texts,
    _check_aws_endpoint,
    _check_names,
    _check_networks,
    _check_secret,
    _check_secret_key,
    _check_access,
)
