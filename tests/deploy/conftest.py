from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from local_aws import LocalAws
from local_aws.client.cdk_cli import CdkCli
from local_aws.client.environment import CHECKOUT
from local_aws.client.prerequisites import DISK, Prerequisites

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_numbers = itertools.count()


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """A bootstrapped local AWS."""
    with LocalAws.start(speed=60, auth=True) as local:
        CdkCli(local, tmp_path_factory.mktemp("bootstrap")).bootstrap()
        yield local


@pytest.fixture(scope="session")
def account(local: LocalAws) -> Account:
    return Account(local)


@pytest.fixture
def stack(local: LocalAws, account: Account, tmp_path: Path) -> Stack:
    """A stack of a name of its own, not deployed yet."""
    return Stack(local, account, tmp_path)


class Account:
    """What a person sees in the account."""

    def __init__(self, local: LocalAws) -> None:
        self._prerequisites = Prerequisites(local)
        clients: Any = local.session().client
        endpoint = local.environment["AWS_ENDPOINT_URL"]
        self.images = clients("imagebuilder", endpoint_url=endpoint)
        self.cloudformation = clients("cloudformation", endpoint_url=endpoint)
        self.logs = clients("logs", endpoint_url=endpoint)

    def import_image(self, key: str = DISK) -> str:
        """Start an ImportImage task."""
        return self._prerequisites.import_image(key)

    def image(self, arn: str) -> dict[str, Any] | None:
        """An image as Image Builder describes it; None if there is none."""
        try:
            return dict(self.images.get_image(imageBuildVersionArn=arn)["image"])
        except self.images.exceptions.ResourceNotFoundException:
            return None

    def builds(self, image_name: str) -> list[str]:
        """All builds of all versions of an image."""
        versions = self.images.list_images(
            owner="Self", filters=[{"name": "name", "values": [image_name]}]
        )["imageVersionList"]
        return [
            build["arn"]
            for version in versions
            for build in self.images.list_image_build_versions(
                imageVersionArn="/".join(version["arn"].split("/")[:3])
            )["imageSummaryList"]
        ]


@dataclass
class Stack:
    """A stack of tests/deploy/app.py, through its life."""

    local: LocalAws
    account: Account
    folder: Path
    name: str = field(default_factory=lambda: f"Stack{next(_numbers)}")
    images: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def _cdk(self) -> CdkCli:
        app = CHECKOUT / "tests/deploy/app.py"
        return CdkCli(self.local, self.folder, app=f"{sys.executable} {app}")

    def image(self, **changes: Any) -> dict[str, Any]:
        """Arguments of an image that no other test has."""
        task = changes.get("vm_import_task_id") or self.account.import_image()
        name = f"{self.name.lower()}-{next(_numbers)}"
        arguments = {"image_name": name, "semantic_version": "1.0.0", "vm_import_task_id": task}
        return {**arguments, **changes}

    def deploy(self, images: dict[str, dict[str, Any]], **context: str) -> dict[str, str]:
        """Deploy it with these images; return the ARN of each."""
        self.images = images
        outputs = self._cdk.deploy(stack=self.name, images=json.dumps(images), **context)
        return {
            image_id: next(v for k, v in outputs.items() if k.startswith(f"{image_id}ImageArn"))
            for image_id in images
        }

    def destroy(self) -> None:
        """Destroy it."""
        self._cdk.destroy(stack=self.name, images=json.dumps(self.images))

    def resources(self) -> dict[str, list[str]]:
        """The physical ids of its resources, by type."""
        described = self.account.cloudformation.describe_stack_resources(StackName=self.name)
        resources: dict[str, list[str]] = {}
        for resource in described["StackResources"]:
            resources.setdefault(resource["ResourceType"], []).append(
                resource["PhysicalResourceId"]
            )
        return resources

    def status(self) -> str:
        """Its status in CloudFormation."""
        stacks = self.account.cloudformation.describe_stacks(StackName=self.name)["Stacks"]
        return str(stacks[0]["StackStatus"])

    def failures(self) -> list[str]:
        """The reasons of failed resources, as the stack events show them."""
        events = self.account.cloudformation.describe_stack_events(StackName=self.name)
        return [
            event.get("ResourceStatusReason", "")
            for event in events["StackEvents"]
            if event["ResourceStatus"].endswith("_FAILED")
        ]
