"""Each example is an app that synthesizes and imports what its docstring describes.

It has all feature flags of a project made by `cdk init`, which turn findings into errors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from contract import ImageProperty, ResourceType, TaskProperty
from local_aws.client.environment import CHECKOUT
from tests.construct.conftest import INIT_FLAGS
from tests.disks.real_disks import real_disk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EXAMPLES = CHECKOUT / "examples"
TASK = ResourceType.IMPORT_TASK
IMAGE = ResourceType.IMAGE
RECIPE = "AWS::ImageBuilder::ImageRecipe"
PIPELINE = "AWS::ImageBuilder::ImagePipeline"

Resources = dict[str, list[dict[str, Any]]]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "rhel9.vmdk"
    path.write_bytes(real_disk("VMDK"))
    return path


@pytest.fixture
def synthesize(tmp_path: Path) -> Callable[..., Resources]:
    """Runs an example and returns the properties of its resources, by type."""

    def synthesize(name: str, **context: str) -> Resources:
        folder = tmp_path / "cdk.out"
        # The CDK CLI passes these to an app.
        flags = json.loads(INIT_FLAGS.read_text())
        cdk = {"CDK_OUTDIR": str(folder), "CDK_CONTEXT_JSON": json.dumps(flags | context)}
        command = [sys.executable, str(EXAMPLES / f"{name}.py")]
        subprocess.run(command, env={**os.environ, **cdk}, check=True)
        resources: Resources = {}
        for template in folder.rglob("*.template.json"):
            for resource in json.loads(template.read_text())["Resources"].values():
                properties = resource.get("Properties", {})
                resources.setdefault(resource["Type"], []).append(properties)
        return resources

    return synthesize


def test_the_recipe_and_pipeline(synthesize: Callable[..., Resources]) -> None:
    resources = synthesize("recipe_and_pipeline", bucket="my-vm-disks", key="rhel9.vmdk")

    (task,) = resources[TASK]
    where = {"S3Bucket": "my-vm-disks", "S3Key": "rhel9.vmdk"}
    assert task[TaskProperty.DISK_CONTAINERS] == [{"Format": "VMDK", "UserBucket": where}]
    assert len(resources[IMAGE]) == len(resources[RECIPE]) == len(resources[PIPELINE]) == 1


def test_the_image_builder_constructs(synthesize: Callable[..., Resources]) -> None:
    resources = synthesize("image_builder_constructs", task="import-ami-0123456789abcdef0")

    (recipe,) = resources[RECIPE]
    assert recipe["ParentImage"]["Fn::GetAtt"][1] == "ImageArn"
    assert len(resources[IMAGE]) == len(resources[PIPELINE]) == 1


def test_the_image_in_another_stack(synthesize: Callable[..., Resources]) -> None:
    resources = synthesize("image_in_another_stack", bucket="my-vm-disks", key="rhel9.vmdk")

    (recipe,), (template,) = resources[RECIPE], resources["AWS::EC2::LaunchTemplate"]
    assert "image/rhel9-golden/x.x.x" in json.dumps(recipe["ParentImage"])
    (parameter,) = resources["AWS::SSM::Parameter"]
    ami = template["LaunchTemplateData"]["ImageId"]
    assert ami == f"resolve:ssm:{parameter['Name']}"


@pytest.mark.slow  # 400 images
def test_the_many_images(synthesize: Callable[..., Resources], tmp_path: Path) -> None:
    machines = {
        group: {f"{group.lower()}-{n}": f"{group}/{n}.vmdk" for n in range(200)}
        for group in ("Erp", "Web")
    }
    (tmp_path / "vms.json").write_text(json.dumps(machines))

    resources = synthesize("many_images", bucket="disks", machines=str(tmp_path / "vms.json"))

    assert len(resources[TASK]) == len(resources[IMAGE]) == 400
    assert {image[ImageProperty.NAME] for image in resources[IMAGE]} == {
        name for group in machines.values() for name in group
    }


def test_the_instance_and_events(synthesize: Callable[..., Resources]) -> None:
    resources = synthesize(
        "instance_and_events", task="import-ami-0123456789abcdef0", email="images@example.com"
    )

    (instance,), (rule,) = resources["AWS::EC2::Instance"], resources["AWS::Events::Rule"]
    assert instance["ImageId"]["Fn::GetAtt"][1] == "ImageId"
    assert rule["EventPattern"]["detail"] == {"state": {"status": ["FAILED"]}}
    assert len(rule["Targets"]) == 1
    assert len(resources[IMAGE]) == 1
    assert len(resources[ResourceType.WAIT]) == 2


def test_the_local_file_encrypted(synthesize: Callable[..., Resources], disk: Path) -> None:
    resources = synthesize("local_file_encrypted", disk=str(disk))

    (task,) = resources[TASK]
    (container,) = task[TaskProperty.DISK_CONTAINERS]
    assert container["Format"] == "VMDK"
    assert container["UserBucket"]["S3Key"].endswith(".vmdk")
    assert task[TaskProperty.ENCRYPTED] is True
    assert len(resources["AWS::KMS::Key"]) == 1


def test_the_two_disk_windows_server(synthesize: Callable[..., Resources]) -> None:
    resources = synthesize("two_disk_windows_server", bucket="my-vm-disks")

    (task,) = resources[TASK]
    assert [disk["DeviceName"] for disk in task[TaskProperty.DISK_CONTAINERS]] == [
        "/dev/sda1",
        "/dev/sdf",
    ]
    assert len(resources[ResourceType.WAIT]) == 5


def test_the_pipeline_stage(synthesize: Callable[..., Resources], disk: Path) -> None:
    connection = "arn:aws:codeconnections:us-east-1:123456789012:connection/1234"

    resources = synthesize(
        "pipeline_stage", repository="my-org/images", connection=connection, disk=str(disk)
    )

    assert len(resources["AWS::CodePipeline::Pipeline"]) == 1
    assert len(resources[TASK]) == len(resources[IMAGE]) == 1


def test_the_hardened_provider(synthesize: Callable[..., Resources]) -> None:
    resources = synthesize(
        "hardened_provider",
        task="import-ami-0123456789abcdef0",
        vpc="vpc-0123456789abcdef0",
        zone="us-east-1a",
        subnet="subnet-0123456789abcdef0",
    )

    (function,) = resources["AWS::Lambda::Function"]
    (queue,) = resources["AWS::SQS::Queue"]
    assert function["ReservedConcurrentExecutions"] == 10
    assert function["VpcConfig"]["SubnetIds"] == ["subnet-0123456789abcdef0"]
    assert function["TracingConfig"] == {"Mode": "Active"}
    assert function["DeadLetterConfig"]["TargetArn"]["Fn::GetAtt"][0].startswith("Undelivered")
    assert queue["KmsMasterKeyId"]
    assert len(resources[IMAGE]) == 1


def test_every_example_is_tested() -> None:
    tests = {name.removeprefix("test_the_") for name in globals()}

    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tests
