"""Send random requests, built from botocore's model and sometimes invalid, to each operation.

Each response must conform to the model and not be a 500, and the server must log nothing.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import botocore.parsers
import botocore.session
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_aws import LocalAws
from local_aws.services.service_model import response_problems
from tests.local_aws.account import Account

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.model import OperationModel, Shape

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = "888888888888"
KINDS = ("Component", "DistributionConfiguration", "ImagePipeline", "InfrastructureConfiguration")
IMAGE_BUILDER = (
    "ImportVmImage", "GetImage", "ListImages", "ListImageBuildVersions", "DeleteImage",
    "CancelImageCreation", "TagResource", "UntagResource", "ListTagsForResource",
    "CreateImageRecipe", "GetImageRecipe", "ListImageRecipes", "DeleteImageRecipe",
    "ListComponentBuildVersions", *(f"List{kind}s" for kind in KINDS),
    *(f"{verb}{kind}" for kind in KINDS for verb in ("Create", "Get")),
    *(f"Update{kind}" for kind in KINDS[1:]), *(f"Delete{kind}" for kind in KINDS),
)  # fmt: skip
EC2 = (
    "ImportImage", "DescribeImportImageTasks", "CancelImportTask", "DeregisterImage",
    "DeleteSnapshot", "CreateTags", "DeleteTags", "DescribeImages", "DescribeSnapshots",
)  # fmt: skip
WRONG: list[Any] = [None, "", "x", "\u00e9 <&>", "x" * 2000, 0, -1, 1.5, True, [], ["x"], {}]
JUNK: st.SearchStrategy[Any] = st.sampled_from(WRONG)
MODELS = botocore.session.get_session()
FUZZ = settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@dataclass
class Fuzzed:
    """A server, its log, and existing resources that requests can name."""

    server: LocalAws
    log: Path
    real: dict[str, str]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    log = tmp_path_factory.mktemp("fuzz") / "log"
    command = [sys.executable, "-m", "local_aws", "up", "--port", "0", "--speed", "600"]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout
        server = LocalAws(int(process.stdout.readline().rpartition(":")[2]))
        yield Fuzzed(server, log, create_resources(Account(server, server.session(), ACCOUNT)))
        process.terminate()


def create_resources(aws: Account) -> dict[str, str]:
    """Create one resource of each type; return their names by the members that name them."""
    aws.iam.create_instance_profile(InstanceProfileName="builder")
    images: Any = aws.images
    component = images.create_component(
        name="hello", semanticVersion="1.0.0", platform="Linux", data="phases: []"
    )["componentBuildVersionArn"]
    task = aws.start()
    image = aws.import_image(task)
    recipe = images.create_image_recipe(name="recipe", semanticVersion="1.0.0", parentImage=image)[
        "imageRecipeArn"
    ]
    infrastructure = images.create_infrastructure_configuration(
        name="infra", instanceProfileName="builder"
    )["infrastructureConfigurationArn"]
    distribution = images.create_distribution_configuration(
        name="dist", distributions=[{"region": "us-east-1"}]
    )["distributionConfigurationArn"]
    pipeline = images.create_image_pipeline(
        name="pipeline", imageRecipeArn=recipe, infrastructureConfigurationArn=infrastructure
    )["imagePipelineArn"]
    return {
        "componentArn": component,
        "componentBuildVersionArn": component,
        "distributionConfigurationArn": distribution,
        "imageBuildVersionArn": image,
        "imagePipelineArn": pipeline,
        "imageRecipeArn": recipe,
        "imageVersionArn": image.rpartition("/")[0],
        "infrastructureConfigurationArn": infrastructure,
        "instanceProfileName": "builder",
        "logGroupName": "/aws/imagebuilder/golden",
        "name": "golden",
        "parentImage": image,
        "resourceArn": image,
        "semanticVersion": "1.0.0",
        "vmImportTaskId": task,
        "ImportTaskId": task,
    }


def values(shape: Any, real: dict[str, str], member: str = "") -> st.SearchStrategy[Any]:
    """Return values that the shape allows, and sometimes one that it does not."""
    good: st.SearchStrategy[Any]
    match shape.type_name:
        case "structure":
            members = {name: values(inner, real, name) for name, inner in shape.members.items()}
            required = {name: members.pop(name) for name in shape.required_members}
            good = st.fixed_dictionaries(required, optional=members)
        case "list":
            good = st.lists(values(shape.member, real, member), max_size=2)
        case "map":
            good = st.dictionaries(st.sampled_from(["a", "b", "aws:x"]), values(shape.value, real))
        case "boolean":
            good = st.booleans()
        case "integer" | "long" | "double" | "float":
            good = st.integers(0, 30)
        case _ if shape.metadata.get("enum"):
            good = st.sampled_from(shape.metadata["enum"])
        case _ if pattern := shape.metadata.get("pattern"):
            good = st.from_regex(pattern, fullmatch=True)
        case _:
            good = st.sampled_from(["x", "golden image", *sorted(set(real.values()))])
    if member in real and shape.type_name == "string":
        good = st.just(real[member]) | good
    return st.integers(0, 39).flatmap(lambda number: good if number else JUNK)


class Sender:
    """A connection to the server, which sends requests without changing them."""

    def __init__(self, server: LocalAws, service: str, operation: str) -> None:
        context = ssl.create_default_context(cafile=server.environment["AWS_CA_BUNDLE"])
        self.connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context)
        scope = f"Credential={ACCOUNT}/20260101/us-east-1/{service}/aws4_request"
        authorization = f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"
        self.headers = {"Authorization": authorization}
        self.service = MODELS.get_service_model(service)
        self.operation: OperationModel = self.service.operation_model(operation)
        protocol = self.service.metadata["protocol"]
        self.parser = botocore.parsers.create_parser(protocol)

    def send(self, method: str, path: str, body: bytes) -> str:
        """Send a request, check the response against the model, and return the code of an error."""
        self.connection.request(method, path, body, self.headers)
        received = self.connection.getresponse()
        content = received.read()
        response = {
            "status_code": received.status,
            "headers": {name.lower(): value for name, value in received.headers.items()},
            "body": content,
        }
        shape: Any = self.operation.output_shape
        parsed = dict(self.parser.parse(response, shape))
        assert received.status < 500, content
        metadata = parsed.pop("ResponseMetadata")
        assert metadata["RequestId"]
        if received.status >= 300:
            assert parsed["Error"]["Message"], content
            return str(parsed["Error"]["Code"])
        assert list(response_problems(shape, parsed) if shape else ()) == []
        return ""


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
def test_image_builder_responds_by_its_model_to_any_request(fuzzed: Fuzzed, name: str) -> None:
    sender = Sender(fuzzed.server, "imagebuilder", name)
    requests = values(sender.operation.input_shape, fuzzed.real)
    codes = set()

    @FUZZ
    @given(requests.filter(lambda request: isinstance(request, dict)))
    def fuzz(request: dict[str, Any]) -> None:
        method, path, body = rest_json(sender.operation, request)
        if "{" in path:
            return  # without the resource of the path, it is another path
        codes.add(sender.send(method, path, body))

    fuzz()
    known = {*sender.service.shape_names, "SerializationException", "UnsupportedOperation", ""}
    assert codes <= known
    assert "Traceback" not in fuzzed.log.read_text()


@pytest.mark.parametrize("name", EC2)
def test_ec2_responds_by_its_model_to_any_request(fuzzed: Fuzzed, name: str) -> None:
    sender = Sender(fuzzed.server, "ec2", name)

    @FUZZ
    @given(values(sender.operation.input_shape, fuzzed.real))
    def fuzz(request: Any) -> None:
        parameters = query_parameters(sender.operation.input_shape, request)
        body = urlencode({"Action": name, "Version": "2016-11-15", **parameters}).encode()
        sender.send("POST", "/", body)

    fuzz()
    assert "Traceback" not in fuzzed.log.read_text()


def test_each_operation_of_image_builder_that_is_served_is_fuzzed(fuzzed: Fuzzed) -> None:
    for operation in MODELS.get_service_model("imagebuilder").operation_names:
        is_unserved = unserved(fuzzed.server, operation)
        assert is_unserved == (operation not in IMAGE_BUILDER), operation


def unserved(server: LocalAws, operation: str) -> bool:
    """Return whether the response for an operation of Image Builder is a clear error."""
    sender = Sender(server, "imagebuilder", operation)
    http_ = sender.operation.http
    path = re.sub(r"\{\w+\+?\}", "x", http_["requestUri"])
    return sender.send(http_["method"], path, b"{}") == "UnsupportedOperation"
