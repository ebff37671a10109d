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
_SECONDS_OF_TOKEN: Final = 86_400


def register(world: World) -> None:
    """Replace MiniStack's ListExecutions for the whole process."""
    executions = Executions(world)
    seams.LIST_EXECUTIONS.put(executions.respond)
    world.operations.add(_OPERATION)


class Executions:
    """The executions of all state machines, as ListExecutions shows them."""

    def __init__(self, world: World) -> None:
        """Start with full buckets of calls."""
        self._world = world
        # By account and Region: how many calls are possible, and when that was so.
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}

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
        now, here = self._world.now(), (seams.get_account_id(), seams.get_region())
        left, filled = self._buckets.get(here, (_BUCKET, now))
        left = min(_BUCKET, left + (now - filled) * _REFILL)
        is_allowed = left >= 1 and not fault
        self._buckets[here] = (left - is_allowed, now)
        if not is_allowed:
            raise ServiceError("ThrottlingException", "Rate exceeded")

    def _list(self, request: dict[str, Any]) -> dict[str, Any]:
        member, parent = _parent(request)
        size = request.get("maxResults") or _PAGE_SIZE
        if not 0 < size <= _LARGEST_PAGE:
            raise ServiceError("ValidationException", f"maxResults is at most {_LARGEST_PAGE}")
        wanted = request.get("statusFilter")
        shown = [
            seen
            for execution in list(seams.EXECUTIONS.values())
            if execution.get(member) == parent
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
        if request.get("redriveFilter") == "REDRIVEN":
            shown = []  # MiniStack redrives no execution.
        now, asked = self._world.now(), request.get("nextToken")
        issued, _, asked_page = (asked or "").partition(" ")
        # Another token has no time, or no page.
        if asked is not None and (
            not issued.isdecimal() or now - int(issued[:20]) > _SECONDS_OF_TOKEN
        ):
            raise ServiceError("InvalidToken", "Invalid Token: 'Invalid token'")
        executions, token = page(shown, size, asked and asked_page, "InvalidToken")
        return {"executions": executions} | ({"nextToken": f"{now:.0f} {token}"} if token else {})

    def _seen(self, execution: dict[str, Any]) -> dict[str, Any] | None:
        """Return the execution as the list shows it, which may be as it was a while ago."""
        then = self._world.now() - self._world.knobs.read_lag_seconds
        names = ("executionArn", "stateMachineArn", "name", "status", "startDate", "mapRunArn")
        seen = {name: execution[name] for name in names if name in execution}
        seen["stopDate"] = execution.get("stopDate")
        if _seconds(seen["startDate"]) > then:
            return None
        if seen["stopDate"] and _seconds(seen["stopDate"]) > then:
            seen |= {"status": "RUNNING", "stopDate": None}
        return seen


def _parent(request: dict[str, Any]) -> tuple[str, str]:
    """Return the member of an execution that a request names, and its value.

    Raises:
        ServiceError: The request is not valid, or the parent does not exist.
    """
    given = [name for name in ("stateMachineArn", "mapRunArn") if request.get(name)]
    if len(given) != 1:
        raise ServiceError("ValidationException", "Specify either stateMachineArn or mapRunArn")
    member, arn = given[0], request[given[0]]
    if member == "mapRunArn":
        if arn not in seams.MAP_RUNS:
            raise ServiceError("ResourceNotFound", f"Map Run Does Not Exist: '{arn}'")
    elif request.get("statusFilter") == "PENDING_REDRIVE" or request.get("redriveFilter"):
        raise ServiceError("ValidationException", "The filter needs mapRunArn")
    elif arn not in seams.STATE_MACHINES:
        raise ServiceError("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{arn}'")
    return member, arn


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
