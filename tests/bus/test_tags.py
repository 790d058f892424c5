from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus.errors import ApiError, not_found
from bus.scope import Call, Scope
from bus.tags import TagBook, Tags
from rules.arn import Arn
from tests.bus.configuration import OTHER, PATTERN, SCOPE, Configuration, configuration

BUS = "arn:aws:events:us-east-1:111111111111:event-bus/b"
DEFAULT = "arn:aws:events:us-east-1:111111111111:event-bus/default"
RULE = "arn:aws:events:us-east-1:111111111111:rule/r"
BUS_RULE = "arn:aws:events:us-east-1:111111111111:rule/b/r"


async def prepare(conf: Configuration) -> None:
    await conf.call("create_event_bus", Name="b")
    await conf.call("put_rule", Name="r", EventPattern=PATTERN)
    await conf.call("put_rule", Name="r", EventPattern=PATTERN, EventBusName="b")


@pytest.fixture
async def conf() -> AsyncIterator[Configuration]:
    conf = await configuration()
    await prepare(conf)
    yield conf
    await conf.store.close()


async def tags(conf: Configuration, arn: str) -> dict[str, str]:
    answer = await conf.call("list_tags_for_resource", ResourceARN=arn)
    return {tag["Key"]: tag["Value"] for tag in answer["Tags"]}


@pytest.mark.parametrize("arn", [BUS, DEFAULT, RULE, BUS_RULE])
async def test_add_overwrite_remove(conf: Configuration, arn: str) -> None:
    assert await tags(conf, arn) == {}
    first = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}]
    assert await conf.call("tag_resource", ResourceARN=arn, Tags=first) == {}
    await conf.call("tag_resource", ResourceARN=arn, Tags=[{"Key": "a", "Value": "2"}])
    assert await tags(conf, arn) == {"a": "2", "b": ""}
    assert await conf.call("untag_resource", ResourceARN=arn, TagKeys=["b", "unknown"]) == {}
    assert await tags(conf, arn) == {"a": "2"}
    others = {BUS, DEFAULT, RULE, BUS_RULE} - {arn}
    assert [await tags(conf, other) for other in others] == [{}, {}, {}]


async def test_a_new_rule_of_the_same_name_starts_without(conf: Configuration) -> None:
    await conf.call("tag_resource", ResourceARN=RULE, Tags=[{"Key": "a", "Value": "1"}])
    await conf.call("delete_rule", Name="r")
    await conf.call("put_rule", Name="r", EventPattern=PATTERN)
    assert await tags(conf, RULE) == {}


async def test_tags_survive_a_restart(tmp_path: Path) -> None:
    conf = await configuration(str(tmp_path))
    await prepare(conf)
    for arn in (BUS, DEFAULT, RULE, BUS_RULE):
        await conf.call("tag_resource", ResourceARN=arn, Tags=[{"Key": "arn", "Value": arn}])
    await conf.store.close()
    conf = await configuration(str(tmp_path))
    for arn in (BUS, DEFAULT, RULE, BUS_RULE):
        assert await tags(conf, arn) == {"arn": arn}
    await conf.store.close()


@pytest.mark.parametrize(
    ("operation", "rest"),
    [
        ("tag_resource", {"Tags": [{"Key": "k", "Value": "v"}]}),
        ("untag_resource", {"TagKeys": ["k"]}),
        ("list_tags_for_resource", {}),
    ],
)
async def test_errors(conf: Configuration, operation: str, rest: dict[str, object]) -> None:
    absent = {
        RULE[:-1] + "x": "Rule x does not exist on EventBus default.",
        BUS_RULE[:-1] + "x": "Rule x does not exist on EventBus b.",
        BUS[:-1] + "x": "Event bus x does not exist.",
        RULE[:-1] + "x/r": "Event bus x does not exist.",
    }
    for arn, message in absent.items():
        assert await conf.error(operation, ResourceARN=arn, **rest) == ("ResourceNotFoundException", message)
    for arn in (RULE, BUS_RULE, BUS, DEFAULT):
        assert (await conf.error(operation, OTHER, ResourceARN=arn, **rest))[0] == "ResourceNotFoundException"
    for arn in ("r", "arn:aws:sqs:us-east-1:111111111111:q", "arn:aws:events:us-east-1:111111111111:replay/x"):
        assert await conf.error(operation, ResourceARN=arn, **rest) == (
            "ValidationException",
            f"Parameter {arn} is not valid. Reason: Provided Arn is not in correct format.",
        )


async def test_a_key_twice_and_a_tag_too_many(conf: Configuration) -> None:
    twice = [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}]
    duplicated = ("ValidationException", "Invalid parameter: Duplicated keys are not allowed.")
    assert await conf.error("tag_resource", ResourceARN=RULE, Tags=twice) == duplicated
    assert await conf.error("create_event_bus", Name="c", Tags=twice) == duplicated
    fifty = [{"Key": str(n), "Value": "v"} for n in range(50)]
    await conf.call("tag_resource", ResourceARN=RULE, Tags=fifty)
    await conf.call("tag_resource", ResourceARN=RULE, Tags=fifty[:3])
    limit = ("LimitExceededException", "The requested resource exceeds the maximum number allowed.")
    assert await conf.error("tag_resource", ResourceARN=RULE, Tags=[{"Key": "one", "Value": "more"}]) == limit
    assert len(await tags(conf, RULE)) == 50


@pytest.mark.parametrize("key", ["aws:cloudformation:stack-name", "AWS:x", "aws:"])
async def test_reserved_keys(conf: Configuration, key: str) -> None:
    tags = [{"Key": key, "Value": ""}]
    reserved = ("ValidationException", "Invalid parameter: Tag keys that begin with aws: are reserved for system use.")
    assert await conf.error("tag_resource", ResourceARN=RULE, Tags=tags) == reserved
    assert await conf.error("create_event_bus", Name="c", Tags=tags) == reserved
    assert await conf.error("put_rule", Name="n", EventPattern=PATTERN, Tags=tags) == reserved
    await conf.call("tag_resource", ResourceARN=RULE, Tags=[{"Key": "aws", "Value": "aws:x"}])


class TestTagBook:
    """Tags of a kind of resource that keeps none itself."""

    THING = "arn:aws:events:us-east-1:111111111111:thing/t"

    async def test_a_resource_of_the_same_name_starts_without(self, tmp_path: Path) -> None:
        conf, things = await configuration(str(tmp_path)), {"t": "first"}
        labels = self.tags(book := TagBook(conf.store), things)
        await labels.tag_resource(Call(SCOPE), {"ResourceARN": self.THING, "Tags": [{"Key": "a", "Value": "1"}]})
        await labels.tag_resource(Call(SCOPE), {"ResourceARN": self.THING, "Tags": [{"Key": "b", "Value": "2"}]})
        await labels.untag_resource(Call(SCOPE), {"ResourceARN": self.THING, "TagKeys": ["a", "absent"]})
        await conf.store.close()

        conf = await configuration(str(tmp_path))
        labels = self.tags(book := TagBook(conf.store), things)
        await book.load()
        request = {"ResourceARN": self.THING}
        assert await labels.list_tags_for_resource(Call(SCOPE), request) == {"Tags": [{"Key": "b", "Value": "2"}]}
        things["t"] = "second"
        assert await labels.list_tags_for_resource(Call(SCOPE), request) == {"Tags": []}
        del things["t"]
        for operation in (labels.list_tags_for_resource, labels.untag_resource):
            with pytest.raises(ApiError, match="ResourceNotFoundException"):
                await operation(Call(SCOPE), {**request, "TagKeys": ["b"]})
        await conf.store.close()

    async def test_tags_of_what_is_gone_are_let_go(self, tmp_path: Path) -> None:
        conf, things = await configuration(str(tmp_path)), {"t": "first", "u": "other", "v": "third"}
        labels = self.tags(book := TagBook(conf.store), things)
        for name in things:
            request = {"ResourceARN": self.THING[:-1] + name, "Tags": [{"Key": "a", "Value": name}]}
            await labels.tag_resource(Call(SCOPE), request)
        things["t"] = "second"
        del things["u"]
        await book.forget_gone()
        await book.forget_gone()
        _, entries = await conf.store.conf_list("tags")
        assert [entry.key for entry in entries] == [self.THING[:-1] + "v"]
        assert await labels.list_tags_for_resource(Call(SCOPE), {"ResourceARN": self.THING[:-1] + "v"}) == {
            "Tags": [{"Key": "a", "Value": "v"}]
        }
        await conf.store.close()

    def tags(self, book: TagBook, things: dict[str, str]) -> Tags:
        def identify(scope: Scope, arn: Arn) -> str:
            name = arn.resource.removeprefix("thing/")
            if name not in things:
                raise not_found(f"There is no {name}.")
            return things[name]

        return Tags({"thing": book.of(identify)})
