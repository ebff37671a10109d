"""A delivery of an event to the handler in a process of its own, as in Lambda."""

from __future__ import annotations

from typing import Any

from tests.handler.cloudformation import Context


def deliver(event: dict[str, Any]) -> None:
    import index  # noqa: PLC0415 - in the new process alone

    index.handler(event, Context())
