"""The CloudFormation types that MiniStack lacks, over the same operations that clients call.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-imagebuilder-imagerecipe.html
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from ministack.services.cloudformation import provisioners

from local_aws.service_model import ServiceError

if TYPE_CHECKING:
    from local_aws.service_model import Service

_IMAGE_RECIPE = "AWS::ImageBuilder::ImageRecipe"
# a change of one of these makes a new recipe; by the registry's schema all but tags and
# AdditionalInstanceConfiguration
_CREATE_ONLY = (
    "Name", "Version", "Components", "Description", "ParentImage", "BlockDeviceMappings",
    "WorkingDirectory",
)  # fmt: skip


def register(image_builder: Service) -> None:
    """Teach MiniStack's CloudFormation the types.

    Args:
        image_builder: The service whose operations make the resources.
    """
    recipes = _ImageRecipes(image_builder)
    provisioners._RESOURCE_HANDLERS[_IMAGE_RECIPE] = {  # noqa: SLF001 - its registry
        "create": recipes.create,
        "update": recipes.update,
        "delete": recipes.delete,
    }
    provisioners._REPLACING_PROPERTIES[_IMAGE_RECIPE] = _CREATE_ONLY  # noqa: SLF001


class _ImageRecipes:
    def __init__(self, image_builder: Service) -> None:
        self._call = image_builder.call
        self._shape = image_builder.model.operation_model("CreateImageRecipe").input_shape

    def create(
        self, _logical_id: str, properties: dict[str, Any], _stack_name: str
    ) -> tuple[str, dict[str, str]]:
        renamed = {
            "semanticVersion" if name == "Version" else name: value
            for name, value in properties.items()
        }
        request = _request(self._shape, renamed)
        made = self._call("CreateImageRecipe", request | {"clientToken": str(uuid.uuid4())})
        return made["imageRecipeArn"], self._attributes(made["imageRecipeArn"])

    def update(
        self,
        arn: str,
        old: dict[str, Any],
        new: dict[str, Any],
        _stack_name: str,
    ) -> tuple[str, dict[str, str]]:
        tags, gone = new.get("Tags", {}), set(old.get("Tags", {})) - set(new.get("Tags", {}))
        if tags:
            self._call("TagResource", {"resourceArn": arn, "tags": tags})
        if gone:
            self._call("UntagResource", {"resourceArn": arn, "tagKeys": sorted(gone)})
        return arn, self._attributes(arn)

    def delete(self, arn: str, _properties: dict[str, Any]) -> None:
        try:
            self._call("DeleteImageRecipe", {"imageRecipeArn": arn})
        except ServiceError as error:
            if error.code != "ResourceNotFoundException":
                raise

    def _attributes(self, arn: str) -> dict[str, str]:
        found = self._call("GetImageRecipe", {"imageRecipeArn": arn})
        latest = found["latestVersionReferences"]
        return {
            "Arn": arn,
            "Name": found["imageRecipe"]["name"],
            "Version": found["imageRecipe"]["version"],
            "LatestVersion.Arn": latest["latestVersionArn"],
            "LatestVersion.Major": latest["latestMajorVersionArn"],
            "LatestVersion.Minor": latest["latestMinorVersionArn"],
            "LatestVersion.Patch": latest["latestPatchVersionArn"],
        }


def _request(shape: Any, value: Any) -> Any:  # noqa: ANN401 - JSON by a shape of the model
    """Properties of a template as the request: first letters small, scalars by their type."""
    match shape.type_name, value:
        case "structure", dict():
            small = {name[:1].lower() + name[1:]: item for name, item in value.items()}
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
