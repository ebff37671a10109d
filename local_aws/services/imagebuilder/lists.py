"""Filter and page the lists of Image Builder.

Each operation's documentation in the model names its filters.
"""

from __future__ import annotations

from typing import Any, Final

from local_aws.services.paging import page
from local_aws.services.service_model import ServiceError

_IMAGE_FILTERS: Final = ("name", "osVersion", "platform", "type", "version")
_FILTERS: Final[dict[str, tuple[str, ...]]] = {
    "ListComponents": (
        "description", "name", "platform", "productCodes", "status", "supportedOsVersion", "type",
        "version",
    ),
    "ListDistributionConfigurations": ("name",),
    "ListImageBuildVersions": _IMAGE_FILTERS,
    "ListImagePipelines": (
        "description", "distributionConfigurationArn", "imageRecipeArn",
        "infrastructureConfigurationArn", "name", "status",
    ),
    "ListImageRecipes": ("name", "parentImage", "platform"),
    "ListImages": _IMAGE_FILTERS,
    "ListInfrastructureConfigurations": ("name",),
}  # fmt: skip
# The members that filters with another name compare.
_MEMBERS: Final = {"supportedOsVersion": "supportedOsVersions"}
_PAGE_SIZE: Final = 25


def listed(
    operation: str, result: str, items: list[dict[str, Any]], request: dict[str, Any]
) -> dict[str, Any]:
    """Return the response of a list operation.

    Args:
        operation: Its name.
        result: The member of the response that contains the list.
        items: Everything that the operation could list.
        request: The request, with filters and the place of the page.

    Raises:
        ServiceError: A filter or the token is not valid.
    """
    if request.get("byName"):
        raise ServiceError(
            "InvalidRequestException", "local_aws does not serve byName: leave it out"
        )
    if request.get("owner", "Self") != "Self":
        items = []
    for wanted in request.get("filters", []):
        name = wanted.get("name", "")
        if name not in _FILTERS[operation]:
            raise ServiceError("InvalidRequestException", f"The filter '{name}' is not valid.")
        member, values = _MEMBERS.get(name, name), set(wanted.get("values", []))
        items = [item for item in items if _values(item, member) & values]
    shown, token = page(
        items,
        request.get("maxResults", _PAGE_SIZE),
        request.get("nextToken"),
        "InvalidPaginationTokenException",
    )
    return {result: shown} | ({"nextToken": token} if token else {})


def _values(item: dict[str, Any], member: str) -> set[str]:
    value = item.get(member, "")
    return set(value) if isinstance(value, list) else {value}
