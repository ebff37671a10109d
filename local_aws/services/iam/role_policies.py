"""Policies of roles and functions: how large they may be, and how long IAM takes to see a change.

MiniStack knows neither.
"""

from __future__ import annotations

import json
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from local_aws import seams
from local_aws.server.past import Past

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_aws.server.world import World

# All inline policies of a role, without white space.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
_LARGEST_OF_ROLE: Final = 10_240
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
_LARGEST_OF_FUNCTION: Final = 20_480


class QuotaError(Exception):
    """A policy is larger than AWS allows."""


def register(world: World) -> None:
    """Add limits and lag for the whole process."""
    changes = _Changes(world)
    seams.ROLE_TYPES.replace(
        lambda acts: acts | {act: changes.of(acts[act]) for act in ("create", "update", "delete")}
    )
    seams.IAM_ACTIONS.replace(lambda action: _as_response(changes.of(action)))
    seams.GATHER_ROLE_POLICIES.put(changes.seen)
    seams.ADD_PERMISSION.replace(_limited)


class _Changes:
    def __init__(self, world: World) -> None:
        self._world = world
        # By account.
        self._past: dict[str, Past[dict[str, list[Any]]]] = {}
        self._present = seams.GATHER_ROLE_POLICIES.present

    def of(self, act: Callable[..., Any]) -> Callable[..., Any]:
        """Do what changes roles, unless a role's policies become too large."""

        @wraps(act)
        def change(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401
            before = {name: dict(role["InlinePolicies"]) for name, role in seams.ROLES.items()}
            if lag := self._world.knobs.iam_lag_seconds:
                account = seams.get_account_id()
                seen = {name: self._present(name, account) for name in before}
                self._of_account(account).keep(seen, lag)
            result = act(*arguments, **more)
            for name, role in list(seams.ROLES.items()):
                if _size(role["InlinePolicies"]) > _LARGEST_OF_ROLE:
                    if name in before:
                        role["InlinePolicies"] = before[name]
                    else:
                        del seams.ROLES[name]
                    raise QuotaError(
                        f"Maximum policy size of {_LARGEST_OF_ROLE} bytes exceeded for role {name}"
                    )
            return result

        return change

    def seen(self, role_name: str, account_id: str) -> list[Any]:
        """Return the policies that a role has as IAM sees it, maybe as before a change."""
        past = self._of_account(account_id).shown()
        if past is None:
            return list(self._present(role_name, account_id))
        return past.get(role_name, [])

    def _of_account(self, account_id: str) -> Past[dict[str, list[Any]]]:
        return self._past.setdefault(account_id, Past(self._world.now))


def _size(policies: dict[str, str]) -> int:
    return sum(len("".join(str(document).split())) for document in policies.values())


def _as_response(change: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(change)
    def respond(request: dict[str, Any]) -> Any:  # noqa: ANN401
        try:
            return change(request)
        except QuotaError as error:
            return seams.iam_error(409, "LimitExceeded", str(error), ns="iam")

    return respond


def _limited(add_permission: Callable[..., Any]) -> Callable[..., Any]:
    """Add a permission to a function unless its policy becomes too large."""

    @wraps(add_permission)
    def limited(function_name: str, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        response = add_permission(function_name, *arguments, **more)
        function = seams.FUNCTIONS.get(function_name)
        if function is None:
            return response
        size = len(json.dumps(function["policy"], separators=(",", ":")))
        if size <= _LARGEST_OF_FUNCTION:
            return response
        function["policy"]["Statement"].pop()
        return seams.error_response_json(
            "PolicyLengthExceededException",
            f"The final policy size ({size}) is bigger than the limit ({_LARGEST_OF_FUNCTION}).",
            400,
        )

    return limited
