"""Return lists in pages with opaque tokens."""

from __future__ import annotations

import base64
from typing import TypeVar

from local_aws.services.service_model import ServiceError

T = TypeVar("T")


def page(
    items: list[T], size: int, token: str | None, token_error: str
) -> tuple[list[T], str | None]:
    """Return one page, and the token of the next page if there is one.

    Raises:
        ServiceError: With the code `token_error`, if the token is not valid.
    """
    start = 0
    if token is not None:
        try:
            start = int(base64.urlsafe_b64decode(token.encode()).decode())
        except ValueError:
            raise ServiceError(token_error, f"The token '{token}' is not valid") from None
    end = start + size
    following = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(items) else None
    return items[start:end], following
