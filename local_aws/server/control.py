"""Serve the control API: faults, knobs, the clock and the recorded calls, over HTTP.

POST   /_local_aws/faults   add a fault (faults.Fault)
DELETE /_local_aws/faults   remove all faults
GET    /_local_aws/knobs    all knobs (knobs.Knobs)
PUT    /_local_aws/knobs    change some knobs
POST   /_local_aws/imports  fail a disk import (faults.ImportFailure)
GET    /_local_aws/clock    AWS time, in seconds since the epoch
POST   /_local_aws/clock    {"advance_seconds": n}: move AWS time forward
GET    /_local_aws/calls    the recorded calls of our operations, oldest first
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from local_aws.server.faults import Fault, ImportFailure
from local_aws.services.service_model import ServiceError

if TYPE_CHECKING:
    from local_aws.server.world import World

PREFIX: Final = "/_local_aws/"


def respond(world: World, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Return HTTP status and JSON body of the response to a request."""
    with world.lock:
        world.clock.settle()
        try:
            content = _respond(world, f"{method} {path.removeprefix(PREFIX)}", body)
        except (ValueError, TypeError, KeyError) as error:
            return 400, json.dumps({"error": str(error)}).encode()
    return (404 if content is None else 200), json.dumps(content, default=str).encode()


def _respond(world: World, request: str, body: bytes) -> Any:  # noqa: ANN401 - JSON
    fields = json.loads(body) if body else {}
    content: Any = None
    match request:
        case "POST faults":
            world.faults.append(_fault(world, fields))
            content = fields
        case "DELETE faults":
            world.faults.clear()
            world.import_failures.clear()
            content = {}
        case "GET knobs":
            content = world.knobs.as_dict()
        case "PUT knobs":
            world.knobs = world.knobs.changed(fields)
            content = world.knobs.as_dict()
        case "POST imports":
            world.import_failures.append(ImportFailure(**fields))
            content = fields
        case "GET clock":
            content = {"now": world.clock.now()}
        case "POST clock":
            world.clock.advance(_advance(fields))
            content = {"now": world.clock.now()}
        case "GET calls":
            content = world.calls
    return content


def _advance(fields: dict[str, Any]) -> float:
    seconds = float(fields["advance_seconds"])
    if not seconds >= 0:
        raise ValueError(f"advance_seconds {seconds} is not valid: use 0 or more seconds")
    return seconds


def _fault(world: World, fields: dict[str, Any]) -> Fault:
    fault = Fault(**fields)
    if (fault.service, fault.operation) not in world.operations:
        raise ValueError(
            f"local_aws does not serve {fault.service}:{fault.operation}: "
            f"use one of {', '.join(':'.join(served) for served in sorted(world.operations))}"
        )
    if fault.duplicate != (fault.operation == "CustomResourceEvent"):
        raise ValueError("the fault duplicate is for CustomResourceEvent, which has no other fault")
    if fault.kill not in (None, "before", "after"):
        raise ValueError(f"kill {fault.kill!r} is not valid: use before or after")
    if fault.error is not None:
        ServiceError(**fault.error)  # raises now if it is not valid, and not when it is due
    return fault
