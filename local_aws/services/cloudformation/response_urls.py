"""Response URLs of custom resources: their dates, and faults in the PUT of a response."""

from __future__ import annotations

import asyncio
import time
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from local_aws import seams

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from local_aws.server.faults import Fault
    from local_aws.server.world import World

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]


def register(world: World) -> None:
    """Add the date to each URL, as S3's signatures do, for the whole process.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
    """
    seams.RESPONSE_URL.replace(partial(_dated, world))


def fault(world: World, scope: Message) -> Fault | None:
    """Return the fault for a request, if it is a PUT to a ResponseURL."""
    is_response = scope["path"].startswith("/_ministack/cfn-response/")
    return world.take_fault("cloudformation", "ResponseURL") if is_response else None


async def deliver_with_fault(fault: Fault, scope: Message, receive: Receive, send: Send) -> None:
    """Delay a response, refuse it as S3 does, or accept it and return an error."""
    await asyncio.sleep(fault.delay)
    if fault.error:
        await _refuse(send, fault.error["status"], fault.error["code"])
    elif fault.lose_answer:
        await seams.ministack(scope, receive, _nowhere)
        await _refuse(send, 500, "InternalError")
    else:
        await seams.ministack(scope, receive, send)


def _dated(world: World, response_url: Callable[[str], str]) -> Callable[[str], str]:
    @wraps(response_url)
    def dated(token: str) -> str:
        signed = world.now() - world.knobs.response_url_age_seconds
        date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(signed))
        return f"{response_url(token)}?X-Amz-Date={date}"

    return dated


async def _refuse(send: Send, status: int, code: str) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    body = f"<Error><Code>{code}</Code></Error>".encode()
    await send({"type": "http.response.body", "body": body})


async def _nowhere(_message: Message) -> None:
    pass
