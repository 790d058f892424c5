"""AuthParameters: what a connection must have, what an update keeps, and what may be shown.

The parameters are kept as the API takes them, with IsValueSecret filled in. Everything here is a pure function of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rules.header import is_token

Parameters = Mapping[str, Any]

BASIC, API_KEY, OAUTH = "BASIC", "API_KEY", "OAUTH_CLIENT_CREDENTIALS"
INVOCATION = "InvocationHttpParameters"
OAUTH_HTTP = "OAuthHttpParameters"

BLOCKS = {BASIC: "BasicAuthParameters", API_KEY: "ApiKeyAuthParameters", OAUTH: "OAuthParameters"}
"""The member of AuthParameters that each AuthorizationType reads."""

_NEEDED: Mapping[str, Sequence[tuple[str, ...]]] = {
    BASIC: (("Username",), ("Password",)),
    API_KEY: (("ApiKeyName",), ("ApiKeyValue",)),
    OAUTH: (
        ("ClientParameters", "ClientID"),
        ("ClientParameters", "ClientSecret"),
        ("AuthorizationEndpoint",),
        ("HttpMethod",),
    ),
}

_HIDDEN: Mapping[str, Sequence[tuple[str, ...]]] = {
    BASIC: (("Password",),),
    API_KEY: (("ApiKeyValue",),),
    OAUTH: (("ClientParameters", "ClientSecret"),),
}

HTTP_LISTS = ("HeaderParameters", "QueryStringParameters", "BodyParameters")


class ParametersError(ValueError):
    """Parameters that make no connection; says why in a sentence that holds no value of theirs."""


def accepted(kind: str, given: Parameters) -> dict[str, Any]:
    """The parameters of a connection of that type as they are kept; `ParametersError` says what is wrong."""
    block = BLOCKS[kind]
    for other in BLOCKS.values():
        if other != block and given.get(other) is not None:
            raise ParametersError(f"{other} cannot be given with AuthorizationType {kind}.")
    missing = [path for path in _NEEDED[kind] if _at(given.get(block), path) is None]
    if missing:
        names = ", ".join(".".join((block, *path)) for path in missing)
        raise ParametersError(f"AuthorizationType {kind} requires {names}.")
    if kind == API_KEY and not is_token(given[block]["ApiKeyName"].strip()):
        raise ParametersError("ApiKeyName is not the name of a header.")
    kept = {block: dict(given[block])}
    if kept[block].get(OAUTH_HTTP) is not None:
        kept[block][OAUTH_HTTP] = _filled(kept[block][OAUTH_HTTP], OAUTH_HTTP)
    if given.get(INVOCATION) is not None:
        kept[INVOCATION] = _filled(given[INVOCATION], INVOCATION)
    return {name: _without_nulls(value) for name, value in kept.items()}


def updated(kind: str, old_kind: str, old: Parameters, given: Parameters) -> dict[str, Any]:
    """The parameters after an update: those that were not given are kept, as far as the type stays the same."""
    block = BLOCKS[kind]
    kept = {name: value for name, value in old.items() if name == INVOCATION or (name == block and kind == old_kind)}
    present = _without_nulls(given)
    if block in present and block in kept:
        present[block] = _laid_over(kept[block], present[block])
    return accepted(kind, {**kept, **present})


def shown(parameters: Parameters) -> dict[str, Any]:
    """The parameters without what is secret."""
    visible: dict[str, Any] = {}
    for kind, block in BLOCKS.items():
        if block in parameters:
            visible[block] = _without(parameters[block], _HIDDEN[kind])
            if OAUTH_HTTP in visible[block]:
                visible[block][OAUTH_HTTP] = _shown_http(visible[block][OAUTH_HTTP])
    if INVOCATION in parameters:
        visible[INVOCATION] = _shown_http(parameters[INVOCATION])
    return visible


def entries(parameters: Parameters | None, name: str) -> Iterable[tuple[str, str]]:
    """Key and value of each entry of one of the `HTTP_LISTS`, in order."""
    for entry in (parameters or {}).get(name) or ():
        yield entry.get("Key") or "", entry.get("Value") or ""


def _at(value: Any, path: Sequence[str]) -> Any:
    for step in path:
        value = None if value is None else value.get(step)
    return value


def _filled(http: Parameters, where: str) -> dict[str, Any]:
    lists = {name: http[name] for name in HTTP_LISTS if http.get(name) is not None}
    for name, given in lists.items():
        if any(not entry.get("Key") for entry in given):
            raise ParametersError(f"Every entry of {where}.{name} requires a Key.")
    return {name: [_entry(each) for each in given] for name, given in lists.items()}


def _entry(given: Parameters) -> dict[str, Any]:
    return {
        "Key": given["Key"],
        "Value": given.get("Value") or "",
        "IsValueSecret": bool(given.get("IsValueSecret")),
    }


def _shown_http(http: Parameters) -> dict[str, Any]:
    return {
        name: [{k: v for k, v in entry.items() if k != "Value" or not entry["IsValueSecret"]} for entry in http[name]]
        for name in HTTP_LISTS
        if name in http
    }


def _without(block: Parameters, hidden: Sequence[Sequence[str]]) -> dict[str, Any]:
    visible = dict(block)
    for first, *rest in hidden:
        if rest:
            visible[first] = _without(visible[first], [rest])
        else:
            visible.pop(first)
    return visible


def _laid_over(old: Parameters, new: Parameters) -> dict[str, Any]:
    """New members over old ones; ClientParameters member by member, lists of HTTP parameters as a whole."""
    merged = {**old, **new}
    if "ClientParameters" in old and "ClientParameters" in new:
        merged["ClientParameters"] = {**old["ClientParameters"], **new["ClientParameters"]}
    return merged


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nulls(member) for name, member in value.items() if member is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value
