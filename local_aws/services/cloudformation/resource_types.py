"""The resource types of Image Builder, which call the same operations as clients.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_ImageBuilder.html
"""

from __future__ import annotations

import uuid
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from local_aws import seams
from local_aws.services.service_model import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_aws.services.service_model import Service

# A change of one of these properties replaces the resource, by the types' schemas in the registry.
_CREATE_ONLY: Final = {
    "ImageRecipe": (
        "Name", "Version", "Components", "Description", "ParentImage", "BlockDeviceMappings",
        "WorkingDirectory",
    ),
    "Component": (
        "Name", "Version", "ChangeDescription", "Description", "Platform", "Data", "Uri",
        "KmsKeyId", "SupportedOsVersions",
    ),
    "DistributionConfiguration": ("Name",),
    "ImagePipeline": ("Name",),
    "InfrastructureConfiguration": ("Name",),
}  # fmt: skip
# Properties with another name in the API.
_RENAMED: Final = {
    "Version": "semanticVersion",
    "LaunchPermissionConfiguration": "launchPermission",
}


def register(image_builder: Service) -> None:
    """Add the types to MiniStack's CloudFormation.

    Args:
        image_builder: The service whose operations create the resources.
    """
    for kind, create_only in _CREATE_ONLY.items():
        resources, name = _Resources(image_builder, kind), f"AWS::ImageBuilder::{kind}"
        acts = {
            "create": resources.create,
            "update": resources.update,
            "delete": resources.delete,
        }
        seams.IMAGE_BUILDER_TYPES.put(acts, name)
        seams.IMAGE_BUILDER_REPLACEMENTS.put(create_only, name)
    seams.INSTANCE_PROFILE_TYPE.replace(
        lambda acts: acts | {act: _by_name(acts[act]) for act in ("create", "update", "delete")}
    )


def _by_name(act: Callable[..., Any]) -> Callable[..., Any]:
    """Let Ref of an instance profile return its name, as documented, and not its ARN."""

    @wraps(act)
    def by_name(first: str, *others: Any, **more: Any) -> Any:  # noqa: ANN401
        known = seams.INSTANCE_PROFILES.get(first, {})
        result = act(known.get("Arn", first), *others, **more)
        return (result[0].rpartition("/")[2], result[1]) if result else result

    return by_name


class _Resources:
    """The resources of one type, created by Create…, and so on with Get…, Update… and Delete…."""

    def __init__(self, image_builder: Service, kind: str) -> None:
        self._service = image_builder
        self._kind = kind
        self._small = kind[:1].lower() + kind[1:]
        self._arn = "componentBuildVersionArn" if kind == "Component" else f"{self._small}Arn"

    def create(
        self, _logical_id: str, properties: dict[str, Any], _stack_name: str
    ) -> tuple[str, dict[str, str]]:
        arn = self._write("Create", properties)
        return arn, self._attributes(arn)

    def update(
        self, arn: str, old: dict[str, Any], new: dict[str, Any], _stack_name: str
    ) -> tuple[str, dict[str, str]]:
        if f"Update{self._kind}" in self._service.operations:
            untagged = {name: v for name, v in new.items() if name not in ("Name", "Tags")}
            self._write("Update", untagged, {self._arn: arn})
        tags, gone = new.get("Tags", {}), set(old.get("Tags", {})) - set(new.get("Tags", {}))
        if tags:
            self._call("TagResource", {"resourceArn": arn, "tags": tags})
        if gone:
            self._call("UntagResource", {"resourceArn": arn, "tagKeys": sorted(gone)})
        return arn, self._attributes(arn)

    def delete(self, arn: str, _properties: dict[str, Any]) -> None:
        try:
            self._call(f"Delete{self._kind}", {self._arn: arn})
        except ServiceError as error:
            if error.code != "ResourceNotFoundException":
                raise

    def _write(
        self, verb: str, properties: dict[str, Any], more: dict[str, str] | None = None
    ) -> str:
        shape = self._service.model.operation_model(f"{verb}{self._kind}").input_shape
        token = {"clientToken": str(uuid.uuid4())}
        response = self._call(
            f"{verb}{self._kind}", _request(shape, properties) | token | (more or {})
        )
        return str(response[self._arn])

    def _call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        return self._service.call(operation, request)

    def _attributes(self, arn: str) -> dict[str, str]:
        found = self._call(f"Get{self._kind}", {self._arn: arn})
        shown, latest = found[self._small], found.get("latestVersionReferences", {})
        attributes = {"Arn": arn, "Name": shown["name"]}
        if self._kind == "ImageRecipe":
            attributes["Version"] = shown["version"]
        if self._kind == "Component":
            attributes |= {"Type": shown["type"], "Encrypted": str(shown["encrypted"]).lower()}
        for key, name in (
            ("latestVersionArn", "Arn"),
            ("latestMajorVersionArn", "Major"),
            ("latestMinorVersionArn", "Minor"),
            ("latestPatchVersionArn", "Patch"),
        ):
            if key in latest:
                attributes[f"LatestVersion.{name}"] = latest[key]
        return attributes


def _request(shape: Any, value: Any) -> Any:  # noqa: ANN401 - JSON by a shape of the model
    """Return properties as members of a request: first letters in lower case, scalars typed."""
    match shape.type_name, value:
        case "structure", dict():
            small = {
                _RENAMED.get(name, name[:1].lower() + name[1:]): item
                for name, item in value.items()
            }
            return {
                name: _request(shape.members[name], item) if name in shape.members else item
                for name, item in small.items()
            }
        case "list", list():
            return [_request(shape.member, item) for item in value]
        case "boolean", "true" | "false":
            return value == "true"
        case "integer", str() if value.isdigit():
            return int(value)
    return value
