"""Who may do what: our operations as IAM actions, on resources, under condition keys.

MiniStack authenticates the callers and evaluates their policies, when IAM is enforced; what an
operation asks of them is said here, by the Service Authorization Reference:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_imagebuilder.html
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ministack.app
from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import get_account_id, get_region

from local_aws.server.world import CALLER
from local_aws.services.service_model import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


@dataclass(frozen=True)
class Check:
    """One question to IAM.

    Attributes:
        action: Such as `imagebuilder:GetImage`.
        resource: An ARN, or `*` for an action that knows no resources.
        keys: Condition keys of the request and of the resource.
    """

    action: str
    resource: str = "*"
    keys: Mapping[str, object] = field(default_factory=dict)

    @property
    def refusal(self) -> str | None:
        """Why the caller may not; None if it may, or if IAM is not enforced."""
        caller = CALLER.get()
        if not ministack.app.AUTH or caller is None:
            return None
        denied = iam_evaluator.enforce(
            caller,
            self.action,
            self.action.partition(":")[0],
            get_region(),
            resource_arn=self.resource,
            service_context=dict(self.keys),
        )
        if denied is None:
            return None
        explicit = getattr(denied, "decision", "") == "Deny"
        principal = getattr(denied, "principal_arn", "")
        reason: str = iam_actions.identity_denial_message(
            self.action, principal, self.resource, explicit
        )
        return reason


def authorize(checks: Iterable[Check], code: str, preface: str = "") -> None:
    """End a request that its caller may not make.

    Args:
        checks: What is asked of the caller, all of it.
        code: The service's word for a denial, such as `AccessDeniedException`.
        preface: What the service says before the reason.

    Raises:
        ServiceError: With that code and the HTTP status 403.
    """
    for check in checks:
        if reason := check.refusal:
            raise ServiceError(code, preface + reason, 403)


def role_may(
    role_name: str, action: str, resource: str, keys: Mapping[str, object] | None = None
) -> bool:
    """Whether the policies of a role of this account allow an action."""
    policies = iam_evaluator._gather_role_policies(role_name, get_account_id())  # noqa: SLF001
    session = f"arn:aws:sts::{get_account_id()}:assumed-role/{role_name}/{role_name}"
    context = _context(session, action, resource, keys or {})
    return bool(iam_evaluator.evaluate(context, policies).decision == "Allow")


def service_may(
    service: str, action: str, policy: str, keys: Mapping[str, object] | None = None
) -> bool:
    """Whether a policy of a resource, such as the trust policy of a role, allows a service to act.

    Args:
        service: Its principal, such as `lambda.amazonaws.com`.
        action: The action, such as `sts:AssumeRole`.
        policy: The document.
        keys: Condition keys of the request.
    """
    context = _context(service, action, "*", keys or {})
    result = iam_evaluator.evaluate_resource_policy(policy, context, service=service)
    return bool(result.decision == "Allow")


def _context(principal: str, action: str, resource: str, keys: Mapping[str, object]) -> Any:  # noqa: ANN401
    return iam_evaluator.EvalContext(
        principal_arn=principal,
        principal_type="AssumedRole" if principal.startswith("arn:") else "Service",
        principal_account=get_account_id(),
        action=action,
        resource_arn=resource,
        region=get_region(),
        # lower, as MiniStack looks them up
        service_context={key.lower(): value for key, value in keys.items()},
    )


def leave_to_us(operations: set[tuple[str, str]]) -> None:
    """Have MiniStack authenticate, but not authorise, the callers of operations of ours.

    Args:
        operations: Service and operation, of those that ask IAM by themselves.
    """
    original: Callable[..., str | None] = iam_actions.extract_iam_action

    def extract_iam_action(*arguments: Any) -> str | None:  # noqa: ANN401
        action = original(*arguments)
        service, _, operation = (action or "").partition(":")
        return None if (service, operation) in operations else action

    iam_actions.extract_iam_action = extract_iam_action


def tag_keys(prefix: str, tags: Mapping[str, str]) -> dict[str, object]:
    """Return the condition keys of tags, such as `aws:RequestTag/stage`."""
    return {f"{prefix}/{key}": value for key, value in tags.items()}


def tag_key_names(keys: Iterable[str]) -> dict[str, object]:
    """Return the condition key `aws:TagKeys`, which a request without tags does not have."""
    return {"aws:TagKeys": list(keys)} if keys else {}
