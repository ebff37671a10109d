"""What goes wrong between a function and the URL that CloudFormation waits at."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ministack import app as ministack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from local_aws.world import Fault, World

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]


def fault(world: World, scope: Message) -> Fault | None:
    """The fault that befalls a request, if it is a PUT to a ResponseURL."""
    is_answer = scope["path"].startswith("/_ministack/cfn-response/")
    return world.take_fault("cloudformation", "ResponseURL") if is_answer else None


async def befall(fault: Fault, scope: Message, receive: Receive, send: Send) -> None:
    """Delay the answer, refuse it as S3 would, or take it and say that it went wrong."""
    await asyncio.sleep(fault.delay)
    if fault.error:
        await _refuse(send, fault.error["status"], fault.error["code"])
    elif fault.lose_answer:
        await ministack.app(scope, receive, _nowhere)
        await _refuse(send, 500, "InternalError")
    else:
        await ministack.app(scope, receive, send)


async def _refuse(send: Send, status: int, code: str) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    body = f"<Error><Code>{code}</Code></Error>".encode()
    await send({"type": "http.response.body", "body": body})


async def _nowhere(_message: Message) -> None:
    pass
