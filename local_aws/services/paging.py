"""Return lists in pages with opaque tokens."""

from __future__ import annotations

import base64
import re
from typing import Any, Final, TypeVar

from local_aws.services.service_model import ServiceError

T = TypeVar("T")
# A token is not JSON in base64: botocore would take that for a token of its own.
_TOKEN: Final = re.compile(r"(\d{1,9}) left")
_MOST_RESULTS: Final = 1000


def page(
    items: list[T], size: int, token: str | None, token_error: str
) -> tuple[list[T], str | None]:
    """Return one page, newest items first, and the token of the next page if there is one.

    A token contains how many items follow. So no item is lost or repeated if others are created,
    or if those of earlier pages are deleted.

    Args:
        items: All items, oldest first.
        size: The number of items in a page.
        token: The token of the page. None is the first page.
        token_error: The code of the error for an invalid token.

    Raises:
        ServiceError: The token is not valid.
    """
    left = len(items)
    if token is not None:
        try:
            match = _TOKEN.fullmatch(base64.urlsafe_b64decode(token.encode()).decode())
        except ValueError:
            match = None
        if match is None:
            raise ServiceError(token_error, f"The token '{token}' is not valid")
        left = min(left, int(match[1]))
    following = max(left - size, 0)
    shown = items[following:left][::-1]
    if not following:
        return shown, None
    return shown, base64.urlsafe_b64encode(f"{following} left".encode()).decode()


def ec2_page(name: str, items: list[dict[str, Any]], request: dict[str, Any]) -> dict[str, Any]:
    """Return the response of an operation of EC2 that describes resources.

    Args:
        name: The member of the response that contains the resources.
        items: All resources that match the request, oldest first.
        request: The request, which may have MaxResults and NextToken.

    Raises:
        ServiceError: MaxResults or NextToken is not valid.
    """
    size = request.get("MaxResults", _MOST_RESULTS)
    if size < 1:
        raise ServiceError(
            "InvalidParameterValue", f"Value ( {size} ) for parameter maxResults is invalid."
        )
    shown, token = page(
        items, min(size, _MOST_RESULTS), request.get("NextToken"), "InvalidNextToken"
    )
    return {name: shown} | ({"NextToken": token} if token else {})
