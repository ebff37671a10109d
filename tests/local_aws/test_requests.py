"""Requests and responses follow botocore's model and protocol."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen
from xml.etree import ElementTree as ET

import pytest

from local_aws.server.clock import Clock
from local_aws.server.world import World
from local_aws.services.service_model import RestJsonService
from tests.local_aws.account import Account, refused

if TYPE_CHECKING:
    from email.message import Message

    from local_aws import LocalAws


def send(
    server: LocalAws, service: str, method: str, path: str, body: bytes | None = None
) -> tuple[int, Message, bytes]:
    """Send a request without an AWS client, and return status, headers and body."""
    scope = f"Credential=test/20260101/us-east-1/{service}/aws4_request"
    request = Request(
        f"https://127.0.0.1:{server.port}{path}",
        data=body,
        method=method,
        headers={"Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"},
    )
    context = ssl.create_default_context(cafile=server.environment["AWS_CA_BUNDLE"])
    try:
        with urlopen(request, context=context) as response:  # noqa: S310 - our own server
            return response.status, response.headers, response.read()
    except HTTPError as error:
        return error.code, error.headers, error.read()


def put(server: LocalAws, **fields: Any) -> tuple[int, str, str]:
    status, headers, body = send(
        server, "imagebuilder", "PUT", "/ImportVmImage", json.dumps(fields).encode()
    )
    return status, headers.get("x-amzn-errortype", ""), json.loads(body).get("message", "")


GOOD: dict[str, Any] = {
    "name": "golden",
    "semanticVersion": "1.0.0",
    "platform": "Linux",
    "vmImportTaskId": "import-ami-0",
    "clientToken": "t",
}


@pytest.mark.parametrize("member", GOOD)
def test_a_request_without_a_required_member_is_refused(server: LocalAws, member: str) -> None:
    fields = {name: value for name, value in GOOD.items() if name != member}
    status, code, message = put(server, **fields)
    assert (status, code) == (400, "ClientException")
    assert f"'{member}'" in message


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("name", 5),
        ("name", ["golden"]),
        ("tags", ["a"]),
        ("tags", {"a": 1}),
        ("loggingConfiguration", "group"),
        ("loggingConfiguration", {"logGroupName": 1}),
        ("platform", True),
        ("semanticVersion", "1.0.0\n"),
        ("osVersion", ""),
    ],
    ids=str,
)
def test_a_member_of_another_type_is_refused(server: LocalAws, member: str, value: object) -> None:
    status, code, message = put(server, **{**GOOD, member: value})
    assert (status, code) == (400, "ClientException")
    assert f"'{member}" in message


def test_unknown_members_are_ignored(server: LocalAws) -> None:
    status, code, message = put(server, **GOOD, colour="red", description=None)
    assert (status, code) == (400, "ClientException")
    assert "vmImportTaskId" in message


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff"])
def test_a_body_that_is_not_a_json_object_is_refused(server: LocalAws, body: bytes) -> None:
    status, headers, _ = send(server, "imagebuilder", "PUT", "/ImportVmImage", body)
    assert (status, headers["x-amzn-errortype"]) == (400, "SerializationException")


def test_an_arn_in_a_path_can_be_encoded_or_plain(server: LocalAws, aws: Account) -> None:
    arn = f"arn:aws:imagebuilder:us-east-1:{aws.account_id}:image/golden/1.0.0/1"
    for path in (f"/tags/{quote(arn, safe='')}", f"/tags/{arn}"):
        status, headers, body = send(server, "imagebuilder", "GET", path)
        assert (status, headers["x-amzn-errortype"]) == (404, "ResourceNotFoundException")
        assert arn in json.loads(body)["message"]


def test_an_operation_that_is_not_served_is_named_in_a_clear_error(aws: Account) -> None:
    refusal = refused(aws.images.list_workflows)
    message = "local_aws does not serve imagebuilder:ListWorkflows"
    assert refusal == ("UnsupportedOperation", 400, message)


def test_an_unknown_path_is_named_in_a_clear_error(server: LocalAws) -> None:
    status, headers, body = send(server, "imagebuilder", "GET", "/Nothing")
    assert (status, headers["x-amzn-errortype"]) == (400, "UnsupportedOperation")
    assert b"GET /Nothing" in body


def test_every_response_has_the_same_request_id_in_header_and_body(aws: Account) -> None:
    listed = aws.images.list_images()
    assert listed["requestId"] == listed["ResponseMetadata"]["RequestId"]
    described = aws.ec2.describe_import_image_tasks()["ResponseMetadata"]
    assert described["HTTPHeaders"]["x-amzn-requestid"] == described["RequestId"]


def query(server: LocalAws, **parameters: str) -> tuple[int, str, str]:
    body = urlencode({"Version": "2016-11-15", **parameters}).encode()
    status, headers, result = send(server, "ec2", "POST", "/", body)
    root = ET.fromstring(result)  # noqa: S314 - our own server
    assert root.findtext("RequestID") == headers["x-amzn-requestid"]
    code, message = root.findtext("Errors/Error/Code"), root.findtext("Errors/Error/Message")
    return status, code or "", message or ""


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"Action": "ImportImage", "Colour": "red"}, "UnknownParameter"),
        ({"Action": "ImportImage", "BootMode": "x"}, "InvalidParameterValue"),
        ({"Action": "DescribeImportImageTasks", "MaxResults": "x"}, "InvalidParameterValue"),
        ({"Action": "CancelImportTask"}, "MissingParameter"),
        ({"Action": "DeregisterImage"}, "MissingParameter"),
        ({"Action": "ImportImage"}, "MissingParameter"),
    ],
    ids=str,
)
def test_an_invalid_query_is_refused_in_the_xml_of_ec2(
    server: LocalAws, parameters: dict[str, str], code: str
) -> None:
    assert query(server, **parameters)[:2] == (400, code)


def test_errors_in_xml_are_escaped(server: LocalAws) -> None:
    status, code, message = query(server, Action="CancelImportTask", ImportTaskId="<import & co>")
    assert (status, code) == (400, "InvalidConversionTaskId.Malformed")
    assert "<import & co>" in message


def test_other_operations_of_ec2_are_those_of_ministack(aws: Account) -> None:
    assert aws.ec2.describe_vpcs()["Vpcs"]


def test_a_response_that_violates_the_model_is_an_internal_error() -> None:
    world = World(Clock())
    wrong: Any = {"image": {"name": "golden", "platform": "BeOS"}}
    service = RestJsonService("imagebuilder", {"GetImage": lambda _: wrong}, world, print, [])
    arn = "arn:aws:imagebuilder:us-east-1:123456789012:image/golden/1.0.0/1"
    asked = service.handle_request("GET", "/GetImage", {}, b"", {"imageBuildVersionArn": [arn]})
    status, headers, body = asyncio.run(asked)
    assert (status, headers["X-Amzn-Errortype"]) == (500, "InternalFailure")
    assert b"violates the model at image.platform: it must be one of" in body
