"""Check permissions: actions on resources under condition keys.

MiniStack authenticates callers and evaluates their policies if IAM is enforced. Which permissions
an operation requires is in permissions.py of its service.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from local_aws import seams
from local_aws.server.world import CALLER
from local_aws.services.iam.role_policies import role_seen_by_services
from local_aws.services.service_model import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


@dataclass(frozen=True)
class Check:
    """One permission check.

    Attributes:
        action: Such as `imagebuilder:GetImage`.
        resource: An ARN, or `*` for an action without resource types.
        keys: Condition keys of the request and of the resource.
    """

    action: str
    resource: str = "*"
    keys: Mapping[str, object] = field(default_factory=dict)

    @property
    def refusal(self) -> str | None:
        """Return why IAM denies it; None if IAM allows it or is not enforced."""
        caller = CALLER.get()
        if not seams.iam_is_enforced() or caller is None:
            return None
        denied = seams.enforce(
            caller,
            self.action,
            self.action.partition(":")[0],
            seams.get_region(),
            resource_arn=self.resource,
            service_context=dict(self.keys),
        )
        if denied is None:
            return None
        explicit = getattr(denied, "decision", "") == "Deny"
        principal = getattr(denied, "principal_arn", "")
        reason: str = seams.identity_denial_message(self.action, principal, self.resource, explicit)
        return reason


def authorize(checks: Iterable[Check], code: str, preface: str = "") -> None:
    """End a request that its caller may not make.

    Args:
        checks: The permissions that the caller needs.
        code: The service's error code for a denial, such as `AccessDeniedException`.
        preface: The service's text before the reason.

    Raises:
        ServiceError: With that code and the HTTP status 403.
    """
    for check in checks:
        if reason := check.refusal:
            raise ServiceError(code, preface + reason, 403)


def role_may(
    role_name: str, action: str, resource: str, keys: Mapping[str, object] | None = None
) -> bool:
    """Return whether a role of this account may act: by its policies, its boundary and a key's."""
    policies = seams.GATHER_ROLE_POLICIES(role_name, seams.get_account_id())
    limits = seams.PERMISSIONS_BOUNDARY(seams.ROLES, role_name, seams.get_account_id())
    session = f"arn:aws:sts::{seams.get_account_id()}:assumed-role/{role_name}/{role_name}"
    context = _context(session, action, resource, keys or {})
    result = seams.evaluate(context, policies, *limits)
    # https://docs.aws.amazon.com/kms/latest/developerguide/key-policies.html
    if action.startswith("kms:") and (key := seams.find_key(resource)):
        account = seams.get_account_id()
        result = seams.combine_resource_policy(
            result, context, key["Policy"], account, required=True, limits=limits
        )
    return bool(result.decision == "Allow")


def service_may_assume(
    service: str, role_name: str, keys: Mapping[str, object] | None = None
) -> bool:
    """Return whether a service can assume a role of this account, as IAM sees the role.

    Args:
        service: The principal, such as `lambda.amazonaws.com`.
        role_name: The name of the role, which need not exist.
        keys: Condition keys of the request.
    """
    role = role_seen_by_services(role_name)
    return role is not None and service_may(
        service, "sts:AssumeRole", role["AssumeRolePolicyDocument"], keys
    )


def service_may(
    service: str, action: str, policy: str, keys: Mapping[str, object] | None = None
) -> bool:
    """Return whether a resource policy, such as a role's trust policy, allows a service to act.

    Args:
        service: The principal, such as `lambda.amazonaws.com`.
        action: The action, such as `sts:AssumeRole`.
        policy: The policy document.
        keys: Condition keys of the request.
    """
    context = _context(service, action, "*", keys or {})
    result = seams.evaluate_resource_policy(policy, context, service=service)
    return bool(result.decision == "Allow")


def _context(principal: str, action: str, resource: str, keys: Mapping[str, object]) -> Any:  # noqa: ANN401
    return seams.EvalContext(
        principal_arn=principal,
        principal_type="AssumedRole" if principal.startswith("arn:") else "Service",
        principal_account=seams.get_account_id(),
        action=action,
        resource_arn=resource,
        region=seams.get_region(),
        # MiniStack reads the keys in lower case.
        service_context={key.lower(): value for key, value in keys.items()},
    )


def authorize_ourselves(operations: set[tuple[str, str]]) -> None:
    """Let MiniStack authenticate, but not authorize, the callers of our operations.

    Args:
        operations: Service and name of the operations that check permissions themselves.
    """

    def unless_ours(original: Callable[..., str | None]) -> Callable[..., str | None]:
        def extract_iam_action(*arguments: Any) -> str | None:  # noqa: ANN401
            action = original(*arguments)
            service, _, operation = (action or "").partition(":")
            return None if (service, operation) in operations else action

        return extract_iam_action

    seams.EXTRACT_IAM_ACTION.replace(unless_ours)


def tag_keys(prefix: str, tags: Mapping[str, str]) -> dict[str, object]:
    """Return the condition keys of tags, such as `aws:RequestTag/stage`."""
    return {f"{prefix}/{key}": value for key, value in tags.items()}


def tag_key_names(keys: Iterable[str]) -> dict[str, object]:
    """Return the condition key `aws:TagKeys`, which a request without tags does not have."""
    return {"aws:TagKeys": list(keys)} if keys else {}
