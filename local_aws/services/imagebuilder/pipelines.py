"""Pipelines of EC2 Image Builder, and components and configurations, of which they consist.

All of them work the same way: Create and Update store a request, and Get shows it.
https://docs.aws.amazon.com/imagebuilder/latest/APIReference/
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ministack.core.responses import AccountRegionScopedDict, get_account_id
from ministack.services import iam

from local_aws.services.imagebuilder.arns import latest_versions, names, newest
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
        recipe_exists: Returns whether an ARN, which may have x in its version, matches a recipe.
        is_in_a_recipe: Returns whether a recipe uses a component.
    """

    def __init__(
        self,
        world: World,
        arn_to_be: Callable[[str, dict[str, Any]], str],
        recipe_exists: Callable[[str], bool],
        is_in_a_recipe: Callable[[str], bool],
    ) -> None:
        """Start without resources."""
        self._world = world
        self._arn_to_be = arn_to_be
        self._recipe_exists = recipe_exists
        self._in_a_recipe = is_in_a_recipe
        self.parts: dict[str, Part] = AccountRegionScopedDict()
        self.operations: dict[str, Operation] = {}
        for kind in KINDS:
            self.operations[f"Create{kind}"] = partial(self._create, kind)
            self.operations[f"Get{kind}"] = partial(self._get, kind)
            self.operations[f"Delete{kind}"] = partial(self._delete, kind)
            if kind != "Component":
                self.operations[f"Update{kind}"] = partial(self._update, kind)

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
                "owner": get_account_id(),
                "encrypted": True,
                "state": {"status": "ACTIVE"},
            }
        if kind == "DistributionConfiguration":
            shown["timeoutMinutes"] = _DISTRIBUTION_MINUTES
        if kind == "ImagePipeline":
            shown.setdefault("status", "ENABLED")
        self.parts[arn] = Part(kind, shown, dict(request.get("tags", {})))
        return {_arn_member(kind): arn, **_latest(kind, arn)}

    def _get(self, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        wanted = request[_arn_member(kind)]
        part = newest((arn, part) for arn, part in self.parts.items() if names(wanted, arn))
        if part is None:
            raise not_found(wanted)
        shown = part.shown | ({"tags": part.tags} if part.tags else {})
        return {kind[0].lower() + kind[1:]: shown, **_latest(kind, part.shown["arn"])}

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
        return {_arn_member(kind): arn}

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
            case "InfrastructureConfiguration":
                profile = request["instanceProfileName"]
                if profile not in iam._instance_profiles:  # noqa: SLF001
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
                    if name in request and not self._recipe_exists(request[name]):
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
