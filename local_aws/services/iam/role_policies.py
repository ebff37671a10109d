"""Policies of roles, users and functions: how large they may be, and how late a change is seen.

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
# What IAM still knows of an account: by what is known, and the name of the role or user.
_PAST: Final[dict[str, Past[dict[tuple[str, str], Any]]]] = {}


class QuotaError(Exception):
    """A policy is larger than AWS allows."""


def register(world: World) -> None:
    """Add limits and lag for the whole process."""
    changes = _Changes(world)
    seams.IAM_TYPES.replace(
        lambda acts: acts | {act: changes.of(acts[act]) for act in ("create", "update", "delete")}
    )
    seams.IAM_ACTIONS.replace(lambda action: _as_response(changes.of(action)))
    seams.GATHER_ROLE_POLICIES.put(changes.policies_of_role)
    seams.GATHER_USER_POLICIES.put(changes.policies_of_user)
    seams.PERMISSIONS_BOUNDARY.put(changes.boundary)
    seams.ADD_PERMISSION.replace(_limited)


def role_seen_by_services(name: str) -> dict[str, Any] | None:
    """Return a role of this account as services see it, maybe as before a change."""
    past = _past(seams.get_account_id())
    found: dict[str, Any] | None
    found = seams.ROLES.get(name) if past is None else past.get(("role", name))
    return found


def _past(account_id: str) -> dict[tuple[str, str], Any] | None:
    """Return what IAM still knows of an account, or None if it sees the present."""
    return _PAST[account_id].shown() if account_id in _PAST else None


class _Changes:
    def __init__(self, world: World) -> None:
        self._world = world
        self._of_role = seams.GATHER_ROLE_POLICIES.present
        self._of_user = seams.GATHER_USER_POLICIES.present
        self._boundary = seams.PERMISSIONS_BOUNDARY.present

    def of(self, act: Callable[..., Any]) -> Callable[..., Any]:
        """Do what changes roles and users, unless a role's policies become too large."""

        @wraps(act)
        def change(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401
            before = {name: dict(role["InlinePolicies"]) for name, role in seams.ROLES.items()}
            if self._world.knobs.iam_lag_seconds:
                account = seams.get_account_id()
                past = _PAST.setdefault(account, Past(self._world.now, self._lag))
                past.keep(self._known(account))
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

    def _lag(self) -> float:
        return self._world.knobs.iam_lag_seconds

    def _known(self, account_id: str) -> dict[tuple[str, str], Any]:
        known: dict[tuple[str, str], Any] = {}
        for name, role in seams.ROLES.items():
            known["role", name] = dict(role)
            known["policies of role", name] = self._of_role(name, account_id)
            known["boundary of role", name] = self._boundary(seams.ROLES, name, account_id)
        for name in seams.USERS:
            known["policies of user", name] = self._of_user(name, account_id)
            known["boundary of user", name] = self._boundary(seams.USERS, name, account_id)
        return known

    def policies_of_role(self, name: str, account_id: str) -> list[Any]:
        """Return the policies that a role has, maybe as before a change."""
        past = _past(account_id)
        if past is None:
            return list(self._of_role(name, account_id))
        return list(past.get(("policies of role", name), []))

    def policies_of_user(self, name: str, account_id: str) -> list[Any]:
        """Return the policies that a user has, maybe as before a change."""
        past = _past(account_id)
        if past is None:
            return list(self._of_user(name, account_id))
        return list(past.get(("policies of user", name), []))

    def boundary(self, store: Any, name: str, account_id: str) -> list[Any]:  # noqa: ANN401
        """Return the permissions boundary that a role or user has, maybe as before a change."""
        past = _past(account_id)
        if past is None:
            return list(self._boundary(store, name, account_id))
        of = "role" if store is seams.ROLES else "user"
        return list(past.get((f"boundary of {of}", name), []))


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
