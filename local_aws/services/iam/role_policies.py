"""Policies of roles and functions: how large they may be, and how long IAM takes to see a change.

MiniStack knows neither.
"""

from __future__ import annotations

import json
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from ministack.core import iam_evaluator
from ministack.core.responses import error_response_json, get_account_id
from ministack.services import iam, lambda_svc
from ministack.services.cloudformation import provisioners

from local_aws.server.past import Past

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_aws.server.world import World

# All inline policies of a role, without white space.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
_LARGEST_OF_ROLE: Final = 10_240
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
_LARGEST_OF_FUNCTION: Final = 20_480
_RESOURCE_TYPES: Final = ("AWS::IAM::Role", "AWS::IAM::Policy")
_ACTIONS: Final = ("PutRolePolicy", "DeleteRolePolicy", "AttachRolePolicy", "DetachRolePolicy")

_Policies = dict[tuple[str, str], list[Any]]


class QuotaError(Exception):
    """A policy is larger than AWS allows."""


def register(world: World) -> None:
    """Add limits and lag for the whole process."""
    changes = _Changes(world)
    for resource_type in _RESOURCE_TYPES:
        handlers = provisioners._RESOURCE_HANDLERS[resource_type]  # noqa: SLF001
        for name in ("create", "update", "delete"):
            handlers[name] = changes.of(handlers[name])
    for action in _ACTIONS:
        iam._IAM_HANDLERS[action] = _as_response(changes.of(iam._IAM_HANDLERS[action]))  # noqa: SLF001
    iam_evaluator._gather_role_policies = changes.seen  # noqa: SLF001
    lambda_svc._add_permission = _limited(lambda_svc._add_permission)  # noqa: SLF001


class _Changes:
    def __init__(self, world: World) -> None:
        self._world = world
        self._past: Past[_Policies] = Past(world.now)
        self._present = iam_evaluator._gather_role_policies  # noqa: SLF001

    def of(self, act: Callable[..., Any]) -> Callable[..., Any]:
        """Do what changes roles, unless a role's policies become too large."""

        @wraps(act)
        def change(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401
            before = {name: dict(role["InlinePolicies"]) for name, role in iam._roles.items()}  # noqa: SLF001
            if lag := self._world.knobs.iam_lag_seconds:
                account = get_account_id()
                seen = {(account, name): self._present(name, account) for name in before}
                self._past.keep(seen, lag)
            result = act(*arguments, **more)
            for name, role in list(iam._roles.items()):  # noqa: SLF001
                if _size(role["InlinePolicies"]) > _LARGEST_OF_ROLE:
                    if name in before:
                        role["InlinePolicies"] = before[name]
                    else:
                        del iam._roles[name]  # noqa: SLF001
                    raise QuotaError(
                        f"Maximum policy size of {_LARGEST_OF_ROLE} bytes exceeded for role {name}"
                    )
            return result

        return change

    def seen(self, role_name: str, account_id: str) -> list[Any]:
        """Return the policies that a role has as IAM sees it, maybe as before a change."""
        past = self._past.shown()
        if past is None:
            return list(self._present(role_name, account_id))
        return past.get((account_id, role_name), [])


def _size(policies: dict[str, str]) -> int:
    return sum(len("".join(str(document).split())) for document in policies.values())


def _as_response(change: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(change)
    def respond(request: dict[str, Any]) -> Any:  # noqa: ANN401
        try:
            return change(request)
        except QuotaError as error:
            return iam._error(409, "LimitExceeded", str(error), ns="iam")  # noqa: SLF001

    return respond


def _limited(add_permission: Callable[..., Any]) -> Callable[..., Any]:
    """Add a permission to a function unless its policy becomes too large."""

    @wraps(add_permission)
    def limited(function_name: str, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        response = add_permission(function_name, *arguments, **more)
        function = lambda_svc._functions.get(function_name)  # noqa: SLF001
        if function is None:
            return response
        size = len(json.dumps(function["policy"], separators=(",", ":")))
        if size <= _LARGEST_OF_FUNCTION:
            return response
        function["policy"]["Statement"].pop()
        return error_response_json(
            "PolicyLengthExceededException",
            f"The final policy size ({size}) is bigger than the limit ({_LARGEST_OF_FUNCTION}).",
            400,
        )

    return limited
