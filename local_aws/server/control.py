"""The control interface: faults, knobs, the clock and the record of calls, over HTTP.

POST   /_local_aws/faults   one fault (world.Fault)
DELETE /_local_aws/faults   no faults any more
GET    /_local_aws/knobs    the settings (knobs.Knobs)
PUT    /_local_aws/knobs    change some of them
POST   /_local_aws/imports  fail a disk import (world.ImportFailure)
GET    /_local_aws/clock    AWS time, in seconds since the epoch
POST   /_local_aws/clock    {"advance_seconds": n}: move AWS time forward
GET    /_local_aws/calls    the calls of our operations so far, oldest first
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
    """Answer a request to the control interface: HTTP status and JSON."""
    with world.lock:
        world.clock.settle()
        try:
            answer = _respond(world, f"{method} {path.removeprefix(PREFIX)}", body)
        except (ValueError, TypeError, KeyError) as error:
            return 400, json.dumps({"error": str(error)}).encode()
    return (404 if answer is None else 200), json.dumps(answer, default=str).encode()


def _respond(world: World, request: str, body: bytes) -> Any:  # noqa: ANN401 - JSON
    fields = json.loads(body) if body else {}
    answer: Any = None
    match request:
        case "POST faults":
            world.faults.append(_fault(world, fields))
            answer = fields
        case "DELETE faults":
            world.faults.clear()
            world.import_failures.clear()
            answer = {}
        case "GET knobs":
            answer = world.knobs.as_dict()
        case "PUT knobs":
            world.knobs = world.knobs.changed(fields)
            answer = world.knobs.as_dict()
        case "POST imports":
            world.import_failures.append(ImportFailure(**fields))
            answer = fields
        case "GET clock":
            answer = {"now": world.clock.now()}
        case "POST clock":
            world.clock.advance(_advance(fields))
            answer = {"now": world.clock.now()}
        case "GET calls":
            answer = world.calls
    return answer


def _advance(fields: dict[str, Any]) -> float:
    seconds = float(fields["advance_seconds"])
    if not seconds >= 0:
        raise ValueError(f"advance_seconds {seconds} is not valid: use 0 or more seconds")
    return seconds


def _fault(world: World, fields: dict[str, Any]) -> Fault:
    fault = Fault(**fields)
    if (fault.service, fault.operation) not in world.operations:
        raise ValueError(f"local_aws does not serve {fault.service}:{fault.operation}")
    if fault.duplicate != (fault.operation == "CustomResourceEvent"):
        raise ValueError("duplicate is for CustomResourceEvent, which knows nothing else")
    if fault.kill not in (None, "before", "after"):
        raise ValueError(f"kill is before or after, not {fault.kill!r}")
    if fault.error is not None:
        ServiceError(**fault.error)  # or it would only be found out when it is due
    return fault
