"""Apps and stacks for the construct tests, with each set of feature flags that users have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import aws_cdk as cdk
import pytest
from aws_cdk import assertions

from cdk_vm_import import ImportedVmImage, Platform

if TYPE_CHECKING:
    from collections.abc import Callable

    from constructs import Construct

ROOT = Path(__file__).parents[2]
# What `cdk init` writes into cdk.json. The CLI of package-lock.json brings the current list.
INIT_FLAGS = ROOT / "node_modules/aws-cdk/lib/init-templates/.recommended-feature-flags.json"


@pytest.fixture(scope="session")
def init_flags() -> dict[str, Any]:
    """The feature flags of a project made by `cdk init`."""
    flags: dict[str, Any] = json.loads(INIT_FLAGS.read_text())
    return flags


# Every test that uses an app or a stack runs with the flags of `cdk init`, and as a slow test once
# with each other set. Create apps with `new_app` only.
@pytest.fixture(
    scope="session",
    params=[
        "cdk init",
        pytest.param("this repository", marks=pytest.mark.slow),
        pytest.param("no flags", marks=pytest.mark.slow),
    ],
)
def flags(request: pytest.FixtureRequest, init_flags: dict[str, Any]) -> dict[str, Any]:
    """The feature flags in the context of the apps."""
    sets: dict[str, dict[str, Any]] = {
        "no flags": {},
        "this repository": json.loads((ROOT / "cdk.json").read_text())["context"],
        "cdk init": init_flags,
    }
    return sets[request.param]


class NewApp(Protocol):
    def __call__(self, **arguments: Any) -> cdk.App: ...


@pytest.fixture(scope="session")
def new_app(flags: dict[str, Any]) -> NewApp:
    """Creates an app with the feature flags, and with the context that the test adds."""

    def call(**arguments: Any) -> cdk.App:
        context = flags | arguments.pop("context", {})
        return cdk.App(context=context, **arguments)

    return call


@pytest.fixture(scope="session")
def new_stack(new_app: NewApp) -> Callable[[], cdk.Stack]:
    """Creates a stack in an app of its own, always with the same name."""
    return lambda: cdk.Stack(new_app(), "Stack")


@pytest.fixture
def app(new_app: NewApp) -> cdk.App:
    return new_app()


@pytest.fixture
def stack(app: cdk.App) -> cdk.Stack:
    return cdk.Stack(app, "Stack")


class ImportImage(Protocol):
    def __call__(
        self, scope: Construct, construct_id: str = "Image", **arguments: Any
    ) -> ImportedVmImage: ...


@pytest.fixture(scope="session")
def import_image() -> ImportImage:
    """Imports an image with the arguments that matter to a test, and defaults for the others."""

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
    """Synthesizes a stack and returns its resources of a type, by logical id."""

    def call(stack: cdk.Stack, resource_type: str) -> dict[str, dict[str, Any]]:
        found = assertions.Template.from_stack(stack).find_resources(resource_type)
        return {logical_id: dict(resource) for logical_id, resource in found.items()}

    return call


class Predecessors(Protocol):
    def __call__(self, stack: cdk.Stack, logical_id: str) -> dict[str, list[str]]: ...


@pytest.fixture(scope="session")
def predecessors() -> Predecessors:
    """Returns the resources that CloudFormation creates before a resource: logical ids by type."""

    def references(value: Any) -> set[str]:
        match value:
            case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), *_]}:
                return {name}
            case dict():
                return set().union(*map(references, value.values()))
            case list():
                return set().union(*map(references, value))
        return set()

    def call(stack: cdk.Stack, logical_id: str) -> dict[str, list[str]]:
        resources = assertions.Template.from_stack(stack).to_json()["Resources"]
        found: set[str] = set()
        unseen = {logical_id}
        while unseen:
            resource = resources[unseen.pop()]
            named = references(resource.get("Properties", {})) | {*resource.get("DependsOn", [])}
            new = named & resources.keys() - found
            unseen |= new
            found |= new
        by_type: dict[str, list[str]] = {}
        for name in found:
            by_type.setdefault(resources[name]["Type"], []).append(name)
        return by_type

    return call
