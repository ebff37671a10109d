"""The permissions that each operation of Image Builder requires.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_imagebuilder.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from local_aws import seams
from local_aws.services.iam.authorization import Check, tag_key_names, tag_keys
from local_aws.services.imagebuilder.service_linked_role import (
    SERVICE,
    SERVICE_LINKED_ROLE,
    service_linked_role_arn,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_aws.server.world import World
    from local_aws.services.imagebuilder.image_builder import ImageBuilder

# Other actions that an operation of Image Builder performs with the permissions of its caller.
_DEPENDENT: Final = {
    "CreateImageRecipe": ("ec2:DescribeImages",),
    "ImportVmImage": ("ec2:DescribeImages", "ec2:DescribeImportImageTasks"),
}
_OF_AN_IMAGE: Final = (
    "CancelImageCreation", "DeleteImage", "GetImage", "ListTagsForResource", "TagResource",
    "UntagResource",
)  # fmt: skip
_BUILD: Final = re.compile(r":image/[^/]+/\d+\.\d+\.\d+/\d+$")


class ImageBuilderChecks:
    """The permission checks of the operations of Image Builder."""

    def __init__(self, world: World, image_builder: ImageBuilder) -> None:
        """Read the tags of resources from the service."""
        self._world = world
        self._image_builder = image_builder

    def __call__(self, operation: str, request: dict[str, Any]) -> Iterator[Check]:
        """Yield the checks for a request, which the model allows."""
        action = f"imagebuilder:{operation}"
        tags = request.get("tags", {})
        arn = _resource(operation, request, self._image_builder)
        if self._is_not_found_first(operation, arn):
            return
        resource_tags = self._image_builder.tags_of(arn)
        yield Check(
            action,
            arn,
            tag_keys("aws:RequestTag", tags)
            | tag_keys("aws:ResourceTag", resource_tags)
            | tag_key_names(tags or request.get("tagKeys", [])),
        )
        if tags and operation != "TagResource":
            created = self._image_builder.next_build(arn) if operation == "ImportVmImage" else arn
            keys = tag_keys("aws:RequestTag", tags) | tag_key_names(tags)
            yield Check("imagebuilder:TagResource", created, keys)
        for dependent in _DEPENDENT.get(operation, ()):
            yield Check(dependent, keys={"ec2:Region": seams.get_region()})
        for read, named in _named(operation, request):
            yield Check(
                read, named, tag_keys("aws:ResourceTag", self._image_builder.tags_of(named))
            )
        if operation == "ImportVmImage" and SERVICE_LINKED_ROLE not in seams.ROLES:
            yield Check(
                "iam:CreateServiceLinkedRole",
                service_linked_role_arn(),
                {"iam:AWSServiceName": SERVICE},
            )

    def _is_not_found_first(self, operation: str, arn: str) -> bool:
        """Return whether the operation itself refuses the request, before any permission."""
        return (
            self._world.knobs.checked_first == "existence"
            and operation in _OF_AN_IMAGE
            and _BUILD.search(arn) is not None
            and not self._image_builder.has_image(arn)
        )


def _named(operation: str, request: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the resources that a recipe or a pipeline names, with the actions that read them."""
    if operation == "CreateImageRecipe":
        if request["parentImage"].startswith("arn:"):
            yield "imagebuilder:GetImage", request["parentImage"]
        for component in request.get("components", []):
            yield "imagebuilder:GetComponent", component["componentArn"]
    if operation == "CreateImagePipeline":
        for kind in ("ImageRecipe", "InfrastructureConfiguration", "DistributionConfiguration"):
            if named := request.get(f"{kind[0].lower()}{kind[1:]}Arn"):
                yield f"imagebuilder:Get{kind}", named


def _resource(operation: str, request: dict[str, Any], image_builder: ImageBuilder) -> str:
    """Return the ARN of the resource on which an operation is authorized."""
    if operation.startswith(("Create", "Import")):
        return image_builder.arn_to_be(operation, request)
    if operation == "ListImageBuildVersions" and "imageVersionArn" in request:
        return f"{request['imageVersionArn']}/*"
    arns = (value for name, value in request.items() if name.endswith("Arn"))
    return next(arns, "*")
