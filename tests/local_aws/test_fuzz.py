"""Whatever is sent to an operation, made from botocore's model and slightly wrong, is answered."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import botocore.session
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from botocore.model import OperationModel, Shape

    from local_aws import LocalAws

IMAGE_BUILDER = (
    "ImportVmImage", "GetImage", "ListImages", "ListImageBuildVersions", "DeleteImage",
    "CancelImageCreation", "TagResource", "UntagResource", "ListTagsForResource",
    "CreateImageRecipe", "GetImageRecipe", "DeleteImageRecipe",
)  # fmt: skip
EC2 = (
    "ImportImage", "DescribeImportImageTasks", "CancelImportTask", "DeregisterImage",
    "DeleteSnapshot",
)  # fmt: skip
WRONG: list[Any] = [None, "", "x", "\u00e9 <&>", "x" * 2000, 0, -1, 1.5, True, [], ["x"], {}]
JUNK: st.SearchStrategy[Any] = st.sampled_from(WRONG)
MODELS = botocore.session.get_session()
FUZZ = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def values(shape: Any) -> st.SearchStrategy[Any]:
    """Values that the shape allows, and now and then one that it does not."""
    good: st.SearchStrategy[Any]
    match shape.type_name:
        case "structure":
            members = {name: values(member) for name, member in shape.members.items()}
            required = {name: members.pop(name) for name in shape.required_members}
            good = st.fixed_dictionaries(required, optional=members)
        case "list":
            good = st.lists(values(shape.member), max_size=2)
        case "map":
            good = st.dictionaries(st.sampled_from(["a", "b", "aws:x"]), values(shape.value))
        case "boolean":
            good = st.booleans()
        case "integer" | "long" | "double" | "float":
            good = st.integers(0, 30)
        case _ if shape.metadata.get("enum"):
            good = st.sampled_from(shape.metadata["enum"])
        case _ if shape.metadata.get("pattern"):
            good = st.from_regex(shape.metadata["pattern"], fullmatch=True)
        case _:
            good = st.sampled_from(["x", "golden image", "import-ami-0123456789abcdef0"])
    return st.integers(0, 19).flatmap(lambda number: good if number else JUNK)


class Sender:
    """One connection to the server, over which requests go as they are."""

    def __init__(self, server: LocalAws, service: str) -> None:
        context = ssl.create_default_context(cafile=server.environment["AWS_CA_BUNDLE"])
        self.connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context)
        scope = f"Credential=888888888888/20260101/us-east-1/{service}/aws4_request"
        authorization = f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"
        self.headers = {"Authorization": authorization}

    def send(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        self.connection.request(method, path, body, self.headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()


def rest_json(operation: OperationModel, request: dict[str, Any]) -> tuple[str, str, bytes]:
    path, query, body = operation.http["requestUri"], [], {}
    members: dict[str, Shape] = operation.input_shape.members if operation.input_shape else {}
    for name, value in request.items():
        match members[name].serialization.get("location"):
            case "uri":
                path = path.replace(f"{{{name}}}", quote(str(value) or "-", safe=""))
            case "querystring":
                items = value if isinstance(value, list) else [value]
                query += [(name, str(item)) for item in items]
            case _:
                body[name] = value
    return operation.http["method"], f"{path}?{urlencode(query)}", json.dumps(body).encode()


def query_parameters(shape: Any, value: Any, prefix: str = "") -> dict[str, str]:
    if shape.type_name == "structure" and isinstance(value, dict):
        found: dict[str, str] = {}
        for name, member in value.items():
            location = shape.members[name].serialization.get("name", name)
            key = f"{prefix}.{location}".lstrip(".")
            found |= query_parameters(shape.members[name], member, key)
        return found
    if shape.type_name == "list" and isinstance(value, list):
        found = {}
        for number, item in enumerate(value, 1):
            found |= query_parameters(shape.member, item, f"{prefix}.{number}")
        return found
    return {prefix or "Junk": str(value)}


@pytest.mark.parametrize("name", IMAGE_BUILDER)
def test_image_builder_answers_by_its_model_whatever_it_is_asked(
    server: LocalAws, name: str
) -> None:
    operation = MODELS.get_service_model("imagebuilder").operation_model(name)
    sender = Sender(server, "imagebuilder")

    @FUZZ
    @given(values(operation.input_shape).filter(lambda request: isinstance(request, dict)))
    def fuzz(request: dict[str, Any]) -> None:
        method, path, body = rest_json(operation, request)
        if "{" in path:
            return  # the resource of the path is missing: that is another path
        status, answer = sender.send(method, path, body)
        assert status < 500, answer
        json.loads(answer)

    fuzz()


@pytest.mark.parametrize("name", EC2)
def test_ec2_answers_by_its_model_whatever_it_is_asked(server: LocalAws, name: str) -> None:
    operation = MODELS.get_service_model("ec2").operation_model(name)
    sender = Sender(server, "ec2")

    @FUZZ
    @given(values(operation.input_shape))
    def fuzz(request: Any) -> None:
        parameters = query_parameters(operation.input_shape, request)
        body = urlencode({"Action": name, "Version": "2016-11-15", **parameters}).encode()
        status, answer = sender.send("POST", "/", body)
        assert status < 500, answer
        assert answer.startswith(b"<?xml")

    fuzz()
