"""Pipelines of EC2 Image Builder, and components and configurations, of which they consist.

All of them work the same way: Create and Update store a request, and Get shows it.
https://docs.aws.amazon.com/imagebuilder/latest/APIReference/
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from local_aws import seams
from local_aws.services.imagebuilder.arns import latest_versions, names, newest
from local_aws.services.imagebuilder.lists import listed
from local_aws.services.service_model import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_aws.server.world import World
    from local_aws.services.service_model import Operation

# The names in ARNs, by the names in operations.
KINDS: Final = {
    "Component": "component",
    "DistributionConfiguration": "distribution-configuration",
    "ImagePipeline": "image-pipeline",
    "InfrastructureConfiguration": "infrastructure-configuration",
}
_NOT_SHOWN: Final = {"clientToken", "dryRun", "semanticVersion", "tags", "uri"}
_DISTRIBUTION_MINUTES: Final = 720
_PIPELINE_DEFAULTS: Final = {
    "status": "ENABLED",
    "imageTestsConfiguration": {"imageTestsEnabled": True, "timeoutMinutes": 720},
}
# The member of each list, and the members of its items.
_SUMMARIES: Final = {
    "Component": (
        "componentVersionList",
        (
            "arn", "name", "version", "description", "platform", "supportedOsVersions", "type",
            "owner", "dateCreated",
        ),
    ),
    "DistributionConfiguration": (
        "distributionConfigurationSummaryList",
        ("arn", "name", "description", "dateCreated", "dateUpdated", "tags"),
    ),
    "ImagePipeline": ("imagePipelineList", ()),
    "InfrastructureConfiguration": (
        "infrastructureConfigurationSummaryList",
        (
            "arn", "name", "description", "dateCreated", "dateUpdated", "resourceTags", "tags",
            "instanceTypes", "instanceProfileName", "placement",
        ),
    ),
}  # fmt: skip
# https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_CreateImageRecipe.html
_LARGEST_NODE: Final = 2**30 - 1
_COMPONENT_BUILD: Final = (
    "arn", "name", "version", "platform", "supportedOsVersions", "state", "type", "owner",
    "description", "changeDescription", "dateCreated", "tags",
)  # fmt: skip


@dataclass
class Part:
    """A pipeline, component or configuration: what Get shows, without the tags."""

    kind: str
    shown: dict[str, Any]
    tags: dict[str, str]


class Pipelines:
    """Pipelines and their parts in all accounts and Regions of a server.

    Args:
        world: The state shared with the other services.
        arn_to_be: Returns the ARN that a request creates.
        recipe_of: Returns the recipe that an ARN, which may have x in its version, matches.
        is_in_a_recipe: Returns whether a recipe uses a component.
    """

    def __init__(
        self,
        world: World,
        arn_to_be: Callable[[str, dict[str, Any]], str],
        recipe_of: Callable[[str], dict[str, Any] | None],
        is_in_a_recipe: Callable[[str], bool],
    ) -> None:
        """Start without resources."""
        self._world = world
        self._arn_to_be = arn_to_be
        self._recipe_of = recipe_of
        self._in_a_recipe = is_in_a_recipe
        self.parts: dict[str, Part] = seams.AccountRegionScopedDict()
        self.operations: dict[str, Operation] = {}
        for kind in KINDS:
            self.operations[f"Create{kind}"] = partial(self._create, kind)
            self.operations[f"Get{kind}"] = partial(self._get, kind)
            self.operations[f"Delete{kind}"] = partial(self._delete, kind)
            self.operations[f"List{kind}s"] = partial(self._list, kind)
            if kind != "Component":
                self.operations[f"Update{kind}"] = partial(self._update, kind)
        self.operations["ListComponentBuildVersions"] = self._list_component_builds

    def uses(self, arn: str) -> bool:
        """Return whether a pipeline uses a recipe or a configuration."""
        return any(
            part.kind == "ImagePipeline" and arn != own and arn in part.shown.values()
            for own, part in self.parts.items()
        )

    def component_build(self, version_arn: str, request: dict[str, Any]) -> str:
        """Return the ARN of the next build of a component, or of the latest if it is the same."""
        latest = newest((arn, arn) for arn in self.parts if arn.rpartition("/")[0] == version_arn)
        if latest is None:
            return f"{version_arn}/1"
        is_same = self.parts[latest].shown.get("data") == request.get("data")
        return latest if is_same else f"{version_arn}/{int(latest.rpartition('/')[2]) + 1}"

    def _create(self, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        arn = self._arn_to_be(f"Create{kind}", request)
        self._check(kind, request)
        if arn in self.parts:
            raise ServiceError(
                "ResourceAlreadyExistsException",
                f"The following resource '{kind}' already exists: '{arn}'.",
            )
        if request.get("dryRun"):
            raise ServiceError("DryRunOperationException", "The request would have succeeded.")
        shown = _shown(request) | {"arn": arn, "dateCreated": self._world.clock.timestamp()}
        if kind == "Component":
            shown |= {
                "version": arn.split("/")[2],
                "type": "BUILD",
                "owner": seams.get_account_id(),
                "encrypted": True,
                "state": {"status": "ACTIVE"},
            }
        if kind == "DistributionConfiguration":
            shown["timeoutMinutes"] = _DISTRIBUTION_MINUTES
        if kind == "ImagePipeline":
            shown = self._pipeline(shown | {"dateUpdated": shown["dateCreated"]})
        self.parts[arn] = Part(kind, shown, dict(request.get("tags", {})))
        return {_arn_member(kind): arn, **_latest(kind, arn)}

    def _get(self, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        wanted = request[_arn_member(kind)]
        part = newest((arn, part) for arn, part in self.parts.items() if names(wanted, arn))
        if part is None:
            raise not_found(wanted)
        shown = {**part.shown, "tags": part.tags}
        return {kind[0].lower() + kind[1:]: shown, **_latest(kind, part.shown["arn"])}

    def _list(self, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        result, members = _SUMMARIES[kind]
        summaries = []
        for part in self._of_kind(kind):
            shown = _with_members(part, members)
            if kind == "Component":
                shown |= {"arn": shown["arn"].rpartition("/")[0], "status": "ACTIVE"}
            if kind == "DistributionConfiguration":
                shown["regions"] = [to["region"] for to in part.shown["distributions"]]
            summaries.append(shown)
        return listed(f"List{kind}s", result, summaries, request)

    def _list_component_builds(self, request: dict[str, Any]) -> dict[str, Any]:
        version = request.get("componentVersionArn")
        builds = [
            _with_members(part, _COMPONENT_BUILD)
            for part in self._of_kind("Component")
            if version in (None, part.shown["arn"].rpartition("/")[0])
        ]
        return listed("ListComponentBuildVersions", "componentSummaryList", builds, request)

    def _of_kind(self, kind: str) -> list[Part]:
        return [part for part in self.parts.values() if part.kind == kind]

    def _update(self, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        arn = request.pop(_arn_member(kind))
        part = self._part(arn)
        self._check(kind, request)
        kept = ("arn", "name", "dateCreated", "timeoutMinutes", "status")
        part.shown = (
            {name: part.shown[name] for name in kept if name in part.shown}
            | _shown(request)
            | {"dateUpdated": self._world.clock.timestamp()}
        )
        if kind == "ImagePipeline":
            part.shown = self._pipeline(part.shown)
        return {_arn_member(kind): arn}

    def _pipeline(self, shown: dict[str, Any]) -> dict[str, Any]:
        """Add what the request leaves out: the defaults, and the platform of the recipe."""
        recipe = self._recipe_of(shown.get("imageRecipeArn", ""))
        platform = {"platform": recipe["platform"]} if recipe else {}
        return _PIPELINE_DEFAULTS | shown | platform

    def _delete(self, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        arn = request[_arn_member(kind)]
        self._part(arn)
        if self.uses(arn) or self._in_a_recipe(arn):
            raise has_dependants(arn)
        del self.parts[arn]
        return {_arn_member(kind): arn}

    def _part(self, arn: str) -> Part:
        if part := self.parts.get(arn):
            return part
        raise not_found(arn)

    def _check(self, kind: str, request: dict[str, Any]) -> None:
        match kind:
            case "Component":
                _one_of(request, "data", "uri")
                check_version(request["semanticVersion"], "InvalidVersionNumberException")
            case "InfrastructureConfiguration":
                profile = request["instanceProfileName"]
                if profile not in seams.INSTANCE_PROFILES:
                    raise ServiceError(
                        "InvalidParameterValueException",
                        "The value supplied for parameter 'instanceProfileName' is not valid. "
                        "The provided instance profile does not exist.",
                    )
            case "ImagePipeline":
                _one_of(request, "imageRecipeArn", "containerRecipeArn")
                for name in ("infrastructureConfigurationArn", "distributionConfigurationArn"):
                    if name in request and request[name] not in self.parts:
                        refuse_missing(self._world, name, request[name])
                for name in ("imageRecipeArn", "containerRecipeArn"):
                    if name in request and self._recipe_of(request[name]) is None:
                        refuse_missing(self._world, name, request[name])


def _arn_member(kind: str) -> str:
    """Return the member of requests and responses that contains the ARN."""
    if kind == "Component":
        return "componentBuildVersionArn"
    return f"{kind[0].lower()}{kind[1:]}Arn"


def _latest(kind: str, arn: str) -> dict[str, Any]:
    if kind != "Component":
        return {}
    return {"latestVersionReferences": latest_versions(arn.rpartition("/")[0])}


def _shown(request: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if name not in _NOT_SHOWN}


def _with_members(part: Part, members: tuple[str, ...]) -> dict[str, Any]:
    """Return some members of what Get shows, or all of them."""
    shown = {**part.shown, "tags": part.tags}
    return {name: shown[name] for name in members or shown if name in shown}


def _one_of(request: dict[str, Any], *names: str) -> None:
    if sum(name in request for name in names) != 1:
        raise ServiceError(
            "InvalidParameterCombinationException",
            f"Exactly one of {' and '.join(names)} must be given.",
        )


def not_found(arn: str) -> ServiceError:
    """Return the error for a resource that does not exist."""
    return ServiceError(
        "ResourceNotFoundException", f"The resource with ARN '{arn}' does not exist."
    )


def has_dependants(arn: str) -> ServiceError:
    """Return the error for a resource that cannot be deleted because others use it."""
    return ServiceError(
        "ResourceDependencyException",
        f"Resource dependency error: The resource ARN '{arn}' has other resources depended on it.",
    )


def check_version(version: str, code: str) -> None:
    """Check the nodes of a semantic version.

    Raises:
        ServiceError: With this code, if a node is too large.
    """
    # Python converts numbers of up to 4,300 digits only.
    nodes = [node.lstrip("0x")[:20] or "0" for node in version.split(".")]
    if any(int(node) > _LARGEST_NODE for node in nodes):
        raise ServiceError(
            code,
            "The value supplied for parameter 'semanticVersion' is not valid: "
            f"a node is at most {_LARGEST_NODE}.",
        )


def refuse_missing(world: World, name: str, value: str) -> None:
    """End a request whose parameter names a resource that does not exist, as the knob says."""
    if world.knobs.missing_reference == "accept":
        return
    if world.knobs.missing_reference == "not_found":
        raise not_found(value)
    raise ServiceError(
        "InvalidParameterValueException",
        f"The value supplied for parameter '{name}' is not valid: the resource with ARN '{value}' "
        "does not exist.",
    )
