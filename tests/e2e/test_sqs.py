"""Queues from outside: boto3, the AWS CLI and plain HTTP do what they do against SQS."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import ACCOUNT, REGION, MakeClient, Server

pytestmark = pytest.mark.xdist_group("e2e_sqs")

ABSENT = "AWS.SimpleQueueService.NonExistentQueue"


@pytest.fixture
def sqs(aws: MakeClient) -> Any:
    return aws("sqs", account="420000000001")


@pytest.fixture
def queue(sqs: Any, request: pytest.FixtureRequest) -> str:
    """A queue of the test's own."""
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    return str(sqs.create_queue(QueueName=name)["QueueUrl"])


def refusal(call: Any, **request: Any) -> tuple[str, str, int, str]:
    """What a refused call says: query code, shape name, status and text."""
    with pytest.raises(ClientError) as caught:
        call(**request)
    answer = caught.value.response
    error = answer["Error"]
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    return error["Code"], error["QueryErrorCode"], status, error["Message"]


def test_create_send_receive_delete(sqs: Any, queue: str) -> None:
    sent = sqs.send_message(QueueUrl=queue, MessageBody="hello")
    assert sent["MD5OfMessageBody"] == hashlib.md5(b"hello").hexdigest()
    [message] = sqs.receive_message(QueueUrl=queue, AttributeNames=["All"])["Messages"]
    assert (message["MessageId"], message["Body"]) == (sent["MessageId"], "hello")
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert "Messages" not in sqs.receive_message(QueueUrl=queue)


def test_url_and_arn(sqs: Any, server: Server, queue: str) -> None:
    name = queue.rpartition("/")[2]
    assert queue == f"{server.url}/420000000001/{name}"
    assert sqs.get_queue_url(QueueName=name)["QueueUrl"] == queue
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    assert arn == f"arn:aws:sqs:{REGION}:420000000001:{name}"


def test_absent_queue(sqs: Any, server: Server) -> None:
    url = f"{server.url}/420000000001/absent"
    with pytest.raises(sqs.exceptions.QueueDoesNotExist) as caught:
        sqs.receive_message(QueueUrl=url)
    assert caught.value.response["Error"]["Code"] == ABSENT
    assert refusal(sqs.get_queue_url, QueueName="absent") == (
        ABSENT, "QueueDoesNotExist", 400, "The specified queue does not exist.",
    )  # fmt: skip


def test_errors_carry_both_codes_and_their_status(sqs: Any, queue: str) -> None:
    refused = {
        "value": refusal(sqs.receive_message, QueueUrl=queue, MaxNumberOfMessages=11)[:3],
        "missing": refusal(sqs.send_message, QueueUrl=queue, MessageBody="")[:3],
        "name": refusal(sqs.get_queue_attributes, QueueUrl=queue, AttributeNames=["Nope"])[:3],
        "batch": refusal(sqs.send_message_batch, QueueUrl=queue, Entries=[])[:3],
        "handle": refusal(sqs.delete_message, QueueUrl=queue, ReceiptHandle="garbage")[:3],
        "task": refusal(sqs.list_message_move_tasks, SourceArn=f"arn:aws:sqs:{REGION}:420000000001:absent")[:3],
    }
    sqs.purge_queue(QueueUrl=queue)
    refused["purge"] = refusal(sqs.purge_queue, QueueUrl=queue)[:3]
    assert refused == {
        "value": ("InvalidParameterValue", "InvalidParameterValueException", 400),
        "missing": ("MissingParameter", "MissingRequiredParameterException", 400),
        "name": ("InvalidAttributeName", "InvalidAttributeName", 400),
        "batch": ("AWS.SimpleQueueService.EmptyBatchRequest", "EmptyBatchRequest", 400),
        "handle": ("ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", 400),
        "task": ("ResourceNotFoundException", "ResourceNotFoundException", 404),
        "purge": ("AWS.SimpleQueueService.PurgeQueueInProgress", "PurgeQueueInProgress", 403),
    }


def test_attributes_of_every_type_pass_the_sdk_s_digest_check(sqs: Any, queue: str) -> None:
    attributes = {
        "text": {"DataType": "String.label", "StringValue": "caf\u00e9"},
        "number": {"DataType": "Number", "StringValue": "1493147359900"},
        "bytes": {"DataType": "Binary", "BinaryValue": bytes(range(256))},
    }
    sqs.send_message(QueueUrl=queue, MessageBody="x", MessageAttributes=attributes)
    [message] = sqs.receive_message(QueueUrl=queue, MessageAttributeNames=["All"])["Messages"]
    assert message["MessageAttributes"] == attributes


def test_batches(sqs: Any, queue: str) -> None:
    entries = [{"Id": str(n), "MessageBody": f"body {n}"} for n in range(9)] + [{"Id": "bad", "MessageBody": "\x00"}]
    answer = sqs.send_message_batch(QueueUrl=queue, Entries=entries)
    assert [entry["Id"] for entry in answer["Successful"]] == [str(n) for n in range(9)]
    assert [(entry["Id"], entry["Code"]) for entry in answer["Failed"]] == [("bad", "InvalidMessageContents")]
    messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert [message["Body"] for message in messages] == [f"body {n}" for n in range(9)]
    receipts = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
    freed = [{**receipt, "VisibilityTimeout": 0} for receipt in receipts]
    assert len(sqs.change_message_visibility_batch(QueueUrl=queue, Entries=freed)["Successful"]) == 9
    assert len(sqs.delete_message_batch(QueueUrl=queue, Entries=receipts)["Successful"]) == 9
    assert "Messages" not in sqs.receive_message(QueueUrl=queue)


def test_long_poll_ends_when_a_message_comes(sqs: Any, queue: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sqs.receive_message, QueueUrl=queue, WaitTimeSeconds=20)
        sqs.send_message(QueueUrl=queue, MessageBody="x")
        assert waiting.result(15)["Messages"][0]["Body"] == "x"


def test_client_that_disconnects_receives_nothing(sqs: Any, server: Server, queue: str) -> None:
    body = json.dumps({"QueueUrl": queue, "WaitTimeSeconds": 20}).encode()
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(json_request(server.url, "ReceiveMessage", body), timeout=1).read()
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    answer = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=10, AttributeNames=["ApproximateReceiveCount"])
    assert answer["Messages"][0]["Attributes"] == {"ApproximateReceiveCount": "1"}


def test_fifo(sqs: Any) -> None:
    attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    url = sqs.create_queue(QueueName="orders.fifo", Attributes=attributes)["QueueUrl"]
    sent = [sqs.send_message(QueueUrl=url, MessageBody=b, MessageGroupId="g") for b in ("1", "2", "1")]
    assert sent[0]["SequenceNumber"] < sent[1]["SequenceNumber"]
    assert (sent[2]["MessageId"], sent[2]["SequenceNumber"]) == (sent[0]["MessageId"], sent[0]["SequenceNumber"])
    [first] = sqs.receive_message(QueueUrl=url)["Messages"]
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    sqs.delete_message(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    assert [m["Body"] for m in sqs.receive_message(QueueUrl=url)["Messages"]] == ["2"]


def test_dead_letters_and_their_way_back(sqs: Any, queue: str) -> None:
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedrivePolicy": policy, "VisibilityTimeout": "0"})
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [queue]
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    assert "Messages" in sqs.receive_message(QueueUrl=queue)
    assert "Messages" not in sqs.receive_message(QueueUrl=queue)
    handle = sqs.start_message_move_task(SourceArn=arn)["TaskHandle"]
    assert json.loads(base64.b64decode(handle))["sourceArn"] == arn
    [message] = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=10)["Messages"]
    assert message["Body"] == "x"
    deadline = time.monotonic() + 20
    while (task := sqs.list_message_move_tasks(SourceArn=arn)["Results"][0])["Status"] == "RUNNING":
        assert time.monotonic() < deadline
    assert (task["Status"], task["ApproximateNumberOfMessagesMoved"]) == ("COMPLETED", 1)


def json_request(url: str, operation: str, body: bytes, *, account: str = "420000000001") -> urllib.request.Request:
    """A request as a small client writes it; its credential names the account, and nobody checks more here."""
    credential = (
        f"AWS4-HMAC-SHA256 Credential={account}/20260101/{REGION}/sqs/aws4_request, SignedHeaders=host, Signature=0"
    )
    headers = {
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": f"AmazonSQS.{operation}",
        "Authorization": credential,
    }
    return urllib.request.Request(url, data=body, headers=headers)


def test_request_posted_to_the_queue_s_url(queue: str) -> None:
    body = json.dumps({"QueueUrl": queue, "MessageBody": "x"}).encode()
    with urllib.request.urlopen(json_request(queue, "SendMessage", body), timeout=20) as answer:
        assert answer.headers["Content-Type"] == "application/x-amz-json-1.0"
        assert json.loads(answer.read())["MD5OfMessageBody"] == hashlib.md5(b"x").hexdigest()


def test_void_answer_is_empty(queue: str) -> None:
    body = json.dumps({"QueueUrl": queue}).encode()
    with urllib.request.urlopen(json_request(queue, "PurgeQueue", body), timeout=20) as answer:
        assert (answer.status, answer.read()) == (200, b"")


def test_queues_and_messages_survive_a_kill(start_server: Any, aws: MakeClient) -> None:
    mine = start_server()
    sqs = aws("sqs", at=mine)
    url = sqs.create_queue(QueueName="q", Attributes={"VisibilityTimeout": "600"})["QueueUrl"]
    sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": str(n)} for n in range(3)])
    [held] = sqs.receive_message(QueueUrl=url)["Messages"]
    mine.kill()
    mine.start()
    messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert [message["Body"] for message in messages] == ["1", "2"]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=held["ReceiptHandle"])


class TestCommandLine:
    """The AWS CLI, as people type it."""

    @pytest.fixture
    def run(self, server: Server) -> Any:
        environment = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": ACCOUNT,
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
        }

        def run(*words: str) -> Any:
            aws = str(Path(sys.executable).with_name("aws"))
            command = [aws, "--endpoint-url", server.url, "--output", "json", "sqs", *words]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout) if done.stdout.strip() else {}

        return run

    def test_commands(self, run: Any) -> None:
        url = run("create-queue", "--queue-name", "cli")["QueueUrl"]
        assert run("send-message", "--queue-url", url, "--message-body", "hello")["MessageId"]
        received = run("receive-message", "--queue-url", url, "--wait-time-seconds", "5")
        assert received["Messages"][0]["Body"] == "hello"
        found = run("get-queue-attributes", "--queue-url", url, "--attribute-names", "All")["Attributes"]
        assert found["ApproximateNumberOfMessagesNotVisible"] == "1"
        policy = json.dumps({"deadLetterTargetArn": found["QueueArn"], "maxReceiveCount": 2})
        run("create-queue", "--queue-name", "source", "--attributes", json.dumps({"RedrivePolicy": policy}))
        assert run("start-message-move-task", "--source-arn", found["QueueArn"])["TaskHandle"]
