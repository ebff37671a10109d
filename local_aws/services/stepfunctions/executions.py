"""ListExecutions: its order, its pages, its rate, and that it is eventually consistent.

https://docs.aws.amazon.com/step-functions/latest/apireference/API_ListExecutions.html
MiniStack has pages of 1,000, and neither a rate nor a lag.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from local_aws import seams
from local_aws.services.paging import page
from local_aws.services.service_model import ServiceError

if TYPE_CHECKING:
    from local_aws.server.world import World

_OPERATION: Final = ("stepfunctions", "ListExecutions")
_PAGE_SIZE: Final = 100
_LARGEST_PAGE: Final = 1000
# In us-east-1, us-west-2 and eu-west-1; half of it elsewhere.
# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
_BUCKET: Final = 200
_REFILL: Final = 5


def register(world: World) -> None:
    """Replace MiniStack's ListExecutions for the whole process."""
    executions = Executions(world)
    seams.LIST_EXECUTIONS.put(executions.respond)
    world.operations.add(_OPERATION)


class Executions:
    """The executions of all state machines, as ListExecutions shows them."""

    def __init__(self, world: World) -> None:
        """Start with a full bucket of calls."""
        self._world = world
        self._tokens = float(_BUCKET)
        self._filled = world.now()

    def respond(self, request: dict[str, Any]) -> Any:  # noqa: ANN401 - MiniStack's response
        """ListExecutions."""
        try:
            self._check_rate()
            return seams.json_response(self._list(request))
        except ServiceError as error:
            return seams.error_response_json(error.code, error.message, 400)

    def _check_rate(self) -> None:
        fault = self._world.take_fault(*_OPERATION)
        if fault and fault.error:
            raise ServiceError(**fault.error)
        now = self._world.now()
        self._tokens = min(_BUCKET, self._tokens + (now - self._filled) * _REFILL)
        self._filled = now
        if fault or self._tokens < 1:
            raise ServiceError("ThrottlingException", "Rate exceeded")
        self._tokens -= 1

    def _list(self, request: dict[str, Any]) -> dict[str, Any]:
        state_machine = request.get("stateMachineArn")
        if state_machine not in seams.STATE_MACHINES:
            raise ServiceError(
                "StateMachineDoesNotExist", f"State Machine Does Not Exist: '{state_machine}'"
            )
        size = request.get("maxResults") or _PAGE_SIZE
        if not 0 < size <= _LARGEST_PAGE:
            raise ServiceError("ValidationException", f"maxResults is at most {_LARGEST_PAGE}")
        wanted = request.get("statusFilter")
        shown = [
            seen
            for execution in list(seams.EXECUTIONS.values())
            if execution["stateMachineArn"] == state_machine
            and (seen := self._seen(execution))
            and wanted in {None, seen["status"]}
        ]
        # Running executions by their start, the others by their end; a page shows the latest first.
        shown.sort(
            key=lambda execution: (
                execution["stopDate"] or execution["startDate"],
                execution["executionArn"],
            ),
        )
        executions, token = page(shown, size, request.get("nextToken"), "InvalidToken")
        return {"executions": executions} | ({"nextToken": token} if token else {})

    def _seen(self, execution: dict[str, Any]) -> dict[str, Any] | None:
        """Return the execution as the list shows it, which may be as it was a while ago."""
        then = self._world.now() - self._world.knobs.read_lag_seconds
        names = ("executionArn", "stateMachineArn", "name", "status", "startDate")
        seen = {name: execution[name] for name in names} | {"stopDate": execution.get("stopDate")}
        if _seconds(seen["startDate"]) > then:
            return None
        if seen["stopDate"] and _seconds(seen["stopDate"]) > then:
            seen |= {"status": "RUNNING", "stopDate": None}
        return seen


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
