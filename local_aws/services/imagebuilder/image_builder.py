"""EC2 Image Builder: imported images, image recipes, and the tags of all its resources.

The behaviour follows https://docs.aws.amazon.com/imagebuilder/latest/APIReference/ and botocore's
model of the service, which has more detail. What neither documents is a knob
(local_aws/server/knobs.py). Components and pipelines are in pipelines.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from local_aws import seams
from local_aws.services.imagebuilder.arns import latest_versions, make_arn, names, newest, slug
from local_aws.services.imagebuilder.lists import listed
from local_aws.services.imagebuilder.pipelines import (
    KINDS,
    Pipelines,
    check_version,
    has_dependants,
    not_found,
    refuse_missing,
)
from local_aws.services.imagebuilder.service_linked_role import create_service_linked_role
from local_aws.services.service_model import ServiceError

if TYPE_CHECKING:
    from local_aws.server.world import World
    from local_aws.services.ec2.vm_import import ImportTask, VmImport
    from local_aws.services.imagebuilder.pipelines import Part
    from local_aws.services.service_model import Operation

_TERMINAL: Final = ("AVAILABLE", "CANCELLED", "FAILED", "DEPRECATED", "DISABLED")
_MOST_TAGS: Final = 50
_NAME: Final = re.compile(r"[-_A-Za-z0-9][-_A-Za-z0-9 ]{1,126}[-_A-Za-z0-9]")


@dataclass
class Image:
    """One build of an image version: its ImportVmImage request and its state."""

    arn: str
    request: dict[str, Any]
    created: str
    tags: dict[str, str]
    status: str = "PENDING"
    reason: str = ""
    cancelling: bool = False
    amis: list[dict[str, Any]] = field(default_factory=list)

    @property
    def version_arn(self) -> str:
        """Return the ARN without the build number."""
        return self.arn.rpartition("/")[0]

    def summary(self) -> dict[str, Any]:
        """Return the image as GetImage and ListImageBuildVersions show it."""
        return {
            "arn": self.arn,
            "type": "AMI",
            "name": self.request["name"],
            "version": "/".join(self.arn.split("/")[2:]),
            "platform": self.request["platform"],
            "state": {"status": self.status} | ({"reason": self.reason} if self.reason else {}),
            "dateCreated": self.created,
            "outputResources": {"amis": self.amis},
            "buildType": "IMPORT",
            "imageSource": "IMPORTED",
            **{
                name: self.request[name]
                for name in ("osVersion", "loggingConfiguration")
                if name in self.request
            },
            "tags": self.tags,
        }


@dataclass
class Recipe:
    """An image recipe: what GetImageRecipe shows, without the tags."""

    arn: str
    shown: dict[str, Any]
    tags: dict[str, str]


class ImageBuilder:
    """Image Builder in all accounts and Regions of a server.

    Args:
        world: The state shared with the other services.
        vm_import: The service with the tasks that images are imported from.
    """

    def __init__(self, world: World, vm_import: VmImport) -> None:
        """Start without resources."""
        self._world = world
        self._vm_import = vm_import
        self._images: dict[str, Image] = seams.AccountRegionScopedDict()
        self._recipes: dict[str, Recipe] = seams.AccountRegionScopedDict()
        self._last_builds: dict[str, int] = seams.AccountRegionScopedDict()
        self._tokens: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any], float]]
        self._tokens = seams.AccountRegionScopedDict()
        self.operations: dict[str, Operation] = {
            "ImportVmImage": partial(self._once, "ImportVmImage", self.import_vm_image),
            "GetImage": self.get_image,
            "ListImages": self.list_images,
            "ListImageBuildVersions": self.list_image_build_versions,
            "DeleteImage": self.delete_image,
            "CancelImageCreation": partial(
                self._once, "CancelImageCreation", self.cancel_image_creation
            ),
            "TagResource": self.tag_resource,
            "UntagResource": self.untag_resource,
            "ListTagsForResource": self.list_tags_for_resource,
            "CreateImageRecipe": partial(self._once, "CreateImageRecipe", self.create_image_recipe),
            "GetImageRecipe": self.get_image_recipe,
            "ListImageRecipes": self.list_image_recipes,
            "DeleteImageRecipe": self.delete_image_recipe,
        }
        self._pipelines = Pipelines(world, self.arn_to_be, self._recipe_of, self._is_in_a_recipe)
        for name, operation in self._pipelines.operations.items():
            makes = name.startswith(("Create", "Update"))
            self.operations[name] = partial(self._once, name, operation) if makes else operation

    @property
    def resources(self) -> list[Any]:
        """Everything that operations create and change."""
        return [self._images, self._recipes, self._last_builds, self._pipelines.parts]

    def reset(self) -> None:
        """Delete everything."""
        for store in (*self.resources, self._tokens):
            store.clear()

    def _once(self, operation: str, create: Operation, request: dict[str, Any]) -> dict[str, Any]:
        """Perform the request of a client token once, and repeat its response from then on."""
        key = (operation, request.pop("clientToken"))
        knobs, now = self._world.knobs, self._world.clock.now()
        first, response, expiry = self._tokens.get(key, ({}, {}, 0.0))
        if expiry > now and not self._imports_again(response):
            if first != request and knobs.idempotency_mismatch == "refuse":
                raise ServiceError(
                    "IdempotentParameterMismatchException",
                    "The client token was used before with other parameters.",
                )
            return response
        response = {"clientToken": key[1], **create(request)}
        self._tokens[key] = (request, response, now + knobs.idempotency_seconds)
        return response

    def _imports_again(self, response: dict[str, Any]) -> bool:
        if (
            "imageArn" not in response
            or self._world.knobs.idempotency_of_unusable_image == "replay"
        ):
            return False
        image = self._images.get(response["imageArn"])
        return image is None or image.status in ("FAILED", "CANCELLED")

    def arn_to_be(self, operation: str, request: dict[str, Any]) -> str:
        """Return the ARN that a request creates; for an image, without the build number."""
        kinds = {"ImportVmImage": "image", "CreateImageRecipe": "image-recipe"}
        kind = kinds.get(operation) or KINDS[operation.removeprefix("Create")]
        series = make_arn(f"{kind}/{slug(request['name'])}")
        if "semanticVersion" not in request:
            return series
        version = self._next_version(series, request["semanticVersion"])
        arn = f"{series}/{version}"
        return self._pipelines.component_build(arn, request) if kind == "component" else arn

    def next_build(self, version_arn: str) -> str:
        """Return the ARN of the next build of an image version."""
        last = self._last_builds.get(version_arn, 0)
        if self._world.knobs.build_numbers == "reuse":
            builds = [arn for arn, i in self._images.items() if i.version_arn == version_arn]
            last = max((int(arn.rpartition("/")[2]) for arn in builds), default=0)
        return f"{version_arn}/{last + 1}"

    def tags_of(self, arn: str) -> dict[str, str]:
        """Return the tags of a resource, or no tags if it does not exist."""
        resource = self._taggable(arn)
        return resource.tags if resource else {}

    def has_image(self, arn: str) -> bool:
        """Return whether a build of an image exists."""
        return arn in self._images

    def _taggable(self, arn: str) -> Image | Recipe | Part | None:
        parts = self._pipelines.parts
        return self._images.get(arn) or self._recipes.get(arn) or parts.get(arn)

    # --- images ---

    def import_vm_image(self, request: dict[str, Any]) -> dict[str, Any]:
        """ImportVmImage: another client token creates another build, and is never an error."""
        self._check_import(request)
        task = self._vm_import.task(request["vmImportTaskId"])
        if task is None and self._world.knobs.unknown_task == "refuse":
            why = f"the VM import task {request['vmImportTaskId']} does not exist"
            raise self._invalid("vmImportTaskId", why)
        if task and task.has_failed and self._world.knobs.failed_task == "refuse":
            why = f"the VM import task {task.task_id} is {task.status}"
            raise self._invalid("vmImportTaskId", why)
        version = self.arn_to_be("ImportVmImage", request)
        arn = self.next_build(version)
        self._last_builds[version] = int(arn.rpartition("/")[2])
        create_service_linked_role(self._world.clock.timestamp())
        image = Image(
            arn,
            request,
            self._world.clock.timestamp(),
            dict(request.get("tags", {})),
        )
        self._images[image.arn] = image

        def notice_end() -> None:
            delay = self._world.knobs.image_watch_seconds
            self._world.call_in(delay, lambda: self._finish(image, task))

        task.when_ended(notice_end) if task else notice_end()
        return {"imageArn": image.arn}

    def _check_import(self, request: dict[str, Any]) -> None:
        """Check what ImportVmImage requires beyond the shapes of its model."""
        if not _NAME.fullmatch(request["name"]):
            raise self._invalid("name", f"it must match {_NAME.pattern}")
        check_version(request["semanticVersion"], self._code_of_invalid)
        group = request.get("loggingConfiguration", {}).get("logGroupName", "/aws/imagebuilder/")
        if not group.startswith("/aws/imagebuilder/"):
            why = "it must start with /aws/imagebuilder/"
            raise self._invalid("loggingConfiguration.logGroupName", why)

    @property
    def _code_of_invalid(self) -> str:
        code = self._world.knobs.invalid_value_error
        return "ClientException" if code == "declared" else code

    def _invalid(self, name: str, why: str) -> ServiceError:
        return ServiceError(
            self._code_of_invalid,
            f"The value supplied for parameter '{name}' is not valid: {why}.",
        )

    def _finish(self, image: Image, task: ImportTask | None) -> None:
        if image.status != "PENDING" or image.cancelling:
            return
        if task is None:
            image.status, image.reason = "FAILED", "The VM import task does not exist."
        elif task.has_failed:
            image.status = "FAILED"
            if self._world.knobs.failed_task != "fail_without_reason":
                image.reason = task.message[:1024]
        else:
            image.status = "AVAILABLE"
            if not self._world.knobs.image_shows_ami:
                return
            image.amis = [
                {
                    "region": seams.get_region(),
                    "image": task.image_id,
                    "name": task.ami_name,
                    "accountId": seams.get_account_id(),
                }
            ]
            if description := image.request.get("description"):
                image.amis[0]["description"] = description
            if self._world.knobs.tag_imported_ami:
                tag = {"Key": "CreatedBy", "Value": "EC2 Image Builder"}
                seams.EC2_TAGS.setdefault(task.image_id, []).append(tag)

    def get_image(self, request: dict[str, Any]) -> dict[str, Any]:
        """GetImage: a version or wildcard ARN finds the newest build that is AVAILABLE."""
        arn = request["imageBuildVersionArn"]
        found = self._images.get(arn)
        if found is None:
            found = newest(
                (image.arn, image)
                for image in self._images.values()
                if image.status == "AVAILABLE" and names(arn, image.version_arn)
            )
        if found is None:
            raise not_found(arn)
        return {
            "image": found.summary(),
            "latestVersionReferences": latest_versions(found.version_arn),
        }

    def list_images(self, request: dict[str, Any]) -> dict[str, Any]:
        """ListImages: one entry for each image version."""
        versions: dict[str, dict[str, Any]] = {}
        shown = ("name", "type", "platform", "osVersion", "dateCreated", "buildType", "imageSource")
        for image in self._images.values():
            summary = image.summary()
            versions[image.version_arn] = {
                "arn": image.version_arn,
                "version": image.request["semanticVersion"],
                "owner": seams.get_account_id(),
                **{name: summary[name] for name in shown if name in summary},
            }
        return listed("ListImages", "imageVersionList", list(versions.values()), request)

    def list_image_build_versions(self, request: dict[str, Any]) -> dict[str, Any]:
        """ListImageBuildVersions."""
        version = request.get("imageVersionArn")
        unknown = self._world.knobs.unknown_image_version
        if version and version not in self._last_builds and unknown != "empty":
            if unknown == "not_found":
                raise not_found(version)
            raise ServiceError("InvalidParameterValueException", f"{version} is not valid")
        builds = [
            {**image.summary(), "owner": seams.get_account_id()}
            for image in self._images.values()
            if version in (None, image.version_arn)
        ]
        return listed("ListImageBuildVersions", "imageSummaryList", builds, request)

    def delete_image(self, request: dict[str, Any]) -> dict[str, Any]:
        """DeleteImage: deletes only the image resource, not its AMI and snapshots."""
        arn = request["imageBuildVersionArn"]
        image = self._image(arn)
        parents = [recipe.shown["parentImage"] for recipe in self._recipes.values()]
        wanted = self._world.knobs.dependants_block_delete and arn in parents
        if image.status not in _TERMINAL or wanted:
            raise has_dependants(arn)
        del self._images[arn]
        return {"imageBuildVersionArn": arn}

    def cancel_image_creation(self, request: dict[str, Any]) -> dict[str, Any]:
        """CancelImageCreation: starts to cancel; the image becomes CANCELLED later."""
        arn, knobs = request["imageBuildVersionArn"], self._world.knobs
        image = self._image(arn)
        if image.status in _TERMINAL:
            raise ServiceError(
                knobs.cancel_terminal_error,
                f"The image {arn} is {image.status} and cannot be cancelled.",
            )
        if knobs.cancel_import == "refuse":
            raise ServiceError(
                "InvalidRequestException", f"The image {arn} is an import and cannot be cancelled."
            )

        def cancel() -> None:
            image.status = "CANCELLED"

        if not image.cancelling:
            image.cancelling = True
            self._world.call_in(knobs.cancel_seconds, cancel)
        return {"imageBuildVersionArn": arn}

    def _image(self, arn: str) -> Image:
        if image := self._images.get(arn):
            return image
        raise not_found(arn)

    # --- tags ---

    def _tags(self, arn: str) -> dict[str, str]:
        if resource := self._taggable(arn):
            return resource.tags
        raise not_found(arn)

    def tag_resource(self, request: dict[str, Any]) -> dict[str, Any]:
        """TagResource."""
        tags = self._tags(request["resourceArn"])
        if len(tags | request["tags"]) > _MOST_TAGS:
            raise ServiceError(
                "InvalidParameterException", f"A resource has at most {_MOST_TAGS} tags."
            )
        tags |= request["tags"]
        return {}

    def untag_resource(self, request: dict[str, Any]) -> dict[str, Any]:
        """UntagResource."""
        tags = self._tags(request["resourceArn"])
        for key in request["tagKeys"]:
            tags.pop(key, None)
        return {}

    def list_tags_for_resource(self, request: dict[str, Any]) -> dict[str, Any]:
        """ListTagsForResource."""
        return {"tags": self._tags(request["resourceArn"])}

    # --- recipes ---

    def create_image_recipe(self, request: dict[str, Any]) -> dict[str, Any]:
        """CreateImageRecipe: the parent may be an image that is still PENDING."""
        check_version(request["semanticVersion"], "InvalidVersionNumberException")
        parent = self._parent(request["parentImage"])
        for component in request.get("components", []):
            wanted = component["componentArn"]
            of_others = wanted.split(":")[4] != seams.get_account_id()
            if not of_others and not any(names(wanted, arn) for arn in self._pipelines.parts):
                refuse_missing(self._world, "componentArn", wanted)
        arn = self.arn_to_be("CreateImageRecipe", request)
        if arn in self._recipes:
            raise ServiceError(
                "ResourceAlreadyExistsException",
                f"The following resource 'ImageRecipe' already exists: '{arn}'.",
            )
        if request.get("dryRun"):
            raise ServiceError("DryRunOperationException", "The request would have succeeded.")
        kept = set(request) - {"dryRun", "semanticVersion", "tags"}
        shown = {name: request[name] for name in kept} | {
            "arn": arn,
            "type": "AMI",
            "version": arn.rpartition("/")[2],
            "platform": parent.request["platform"] if parent else "Linux",
            "owner": seams.get_account_id(),
            "dateCreated": self._world.clock.timestamp(),
        }
        self._recipes[arn] = Recipe(arn, shown, dict(request.get("tags", {})))
        return {"imageRecipeArn": arn, "latestVersionReferences": latest_versions(arn)}

    def _parent(self, parent: str) -> Image | None:
        """Return the image that a parentImage names, or None if it is not of this account."""
        if not parent.startswith("arn:") or f":{seams.get_account_id()}:" not in parent:
            return None
        found = self._images.get(parent) or newest(
            (image.arn, image)
            for image in self._images.values()
            if names(parent, image.version_arn)
        )
        if found is None:
            refuse_missing(self._world, "parentImage", parent)
        return found

    def _next_version(self, series: str, wanted: str) -> str:
        """Return a version in which the next free numbers replace each x at its end."""
        fixed = "" if wanted.startswith("x") else wanted.partition(".x")[0]
        if fixed == wanted:
            return wanted
        known = [
            tuple(map(int, arn.split("/")[2].split(".")))
            for arn in (*self._recipes, *self._pipelines.parts)
            if arn.startswith(f"{series}/{fixed}")
        ]
        first = [int(node) for node in fixed.split(".") if node]
        nodes = list(max(known)) if known else first + [0] * (3 - len(first))
        nodes[2] += 1 if known else 0
        return ".".join(map(str, nodes))

    def get_image_recipe(self, request: dict[str, Any]) -> dict[str, Any]:
        """GetImageRecipe: an ARN with x in the version finds the newest one."""
        arn = request["imageRecipeArn"]
        found = newest(
            (known, recipe) for known, recipe in self._recipes.items() if names(arn, known)
        )
        if found is None:
            raise not_found(arn)
        shown = {**found.shown, "tags": found.tags}
        return {"imageRecipe": shown, "latestVersionReferences": latest_versions(found.arn)}

    def list_image_recipes(self, request: dict[str, Any]) -> dict[str, Any]:
        """ListImageRecipes."""
        shown = ("arn", "name", "platform", "owner", "parentImage", "dateCreated")
        recipes = [
            {name: recipe.shown[name] for name in shown} | {"tags": recipe.tags}
            for recipe in self._recipes.values()
        ]
        return listed("ListImageRecipes", "imageRecipeSummaryList", recipes, request)

    def delete_image_recipe(self, request: dict[str, Any]) -> dict[str, Any]:
        """DeleteImageRecipe."""
        arn = request["imageRecipeArn"]
        if arn not in self._recipes:
            raise not_found(arn)
        if self._pipelines.uses(arn):
            raise has_dependants(arn)
        del self._recipes[arn]
        return {"imageRecipeArn": arn}

    def _recipe_of(self, arn: str) -> dict[str, Any] | None:
        """Return what GetImageRecipe shows of the newest recipe that an ARN matches."""
        found = newest(
            (known, recipe) for known, recipe in self._recipes.items() if names(arn, known)
        )
        return found.shown if found else None

    def _is_in_a_recipe(self, component_arn: str) -> bool:
        return any(
            names(component["componentArn"], component_arn)
            for recipe in self._recipes.values()
            for component in recipe.shown.get("components", [])
        )
