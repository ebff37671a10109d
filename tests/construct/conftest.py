from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import aws_cdk as cdk
import pytest
from aws_cdk import assertions

from cdk_vm_import import ImportedVmImage, Platform

if TYPE_CHECKING:
    from constructs import Construct


class ImportImage(Protocol):
    def __call__(
        self, scope: Construct, construct_id: str = "Image", **arguments: Any
    ) -> ImportedVmImage: ...


@pytest.fixture
def app() -> cdk.App:
    return cdk.App()


@pytest.fixture
def stack(app: cdk.App) -> cdk.Stack:
    return cdk.Stack(app, "Stack")


@pytest.fixture(scope="session")
def import_image() -> ImportImage:
    """Imports an image with the arguments that matter to a test, and some for the others."""

    def call(scope: Construct, construct_id: str = "Image", **arguments: Any) -> ImportedVmImage:
        required: dict[str, Any] = {
            "image_name": "rhel9-golden",
            "semantic_version": "1.0.0",
            "platform": Platform.LINUX,
            "vm_import_task_id": "import-ami-0123456789abcdef0",
        }
        return ImportedVmImage(scope, construct_id, **required | arguments)

    return call


class ResourcesOf(Protocol):
    def __call__(self, stack: cdk.Stack, resource_type: str) -> dict[str, dict[str, Any]]: ...


@pytest.fixture(scope="session")
def resources_of() -> ResourcesOf:
    """Synthesizes a stack and gives its resources of a type, by logical id."""

    def call(stack: cdk.Stack, resource_type: str) -> dict[str, dict[str, Any]]:
        found = assertions.Template.from_stack(stack).find_resources(resource_type)
        return {logical_id: dict(resource) for logical_id, resource in found.items()}

    return call
