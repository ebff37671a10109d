"""Who may do what: our operations as IAM actions, on resources, under condition keys.

MiniStack authenticates the callers and evaluates their policies, when IAM is enforced; what an
operation asks of them is said here, by the Service Authorization Reference:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_imagebuilder.html
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import ministack.app
from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import get_account_id, get_region
from ministack.services import ec2, iam

from local_aws.service_model import ServiceError
from local_aws.world import CALLER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from local_aws.imagebuilder import ImageBuilder

SERVICE_LINKED_ROLE: Final = "AWSServiceRoleForImageBuilder"
_IMAGE_BUILDER: Final = "imagebuilder.amazonaws.com"
# what else an operation of Image Builder does as the caller
_DEPENDENT: Final = {
    "CreateImageRecipe": ("ec2:DescribeImages",),
    "ImportVmImage": ("ec2:DescribeImages", "ec2:DescribeImportImageTasks"),
}


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


class ImageBuilderChecks:
    """What the operations of Image Builder ask."""

    def __init__(self, image_builder: ImageBuilder) -> None:
        """Take the tags of resources from the service."""
        self._image_builder = image_builder

    def __call__(self, operation: str, request: dict[str, Any]) -> Iterator[Check]:
        """The questions of one request, which is by the model."""
        action = f"imagebuilder:{operation}"
        tags = request.get("tags", {})
        arn = _resource(operation, request, self._image_builder)
        resource_tags = self._image_builder.tags_of(arn)
        yield Check(
            action,
            arn,
            _tag_keys("aws:RequestTag", tags)
            | _tag_keys("aws:ResourceTag", resource_tags)
            | _named(tags or request.get("tagKeys", [])),
        )
        if tags and operation != "TagResource":
            made = self._image_builder.next_build(arn) if operation == "ImportVmImage" else arn
            yield Check(
                "imagebuilder:TagResource", made, _tag_keys("aws:RequestTag", tags) | _named(tags)
            )
        for dependent in _DEPENDENT.get(operation, ()):
            yield Check(dependent, keys={"ec2:Region": get_region()})
        if operation == "ImportVmImage" and SERVICE_LINKED_ROLE not in iam._roles:  # noqa: SLF001
            yield Check(
                "iam:CreateServiceLinkedRole",
                _service_linked_role_arn(),
                {"iam:AWSServiceName": _IMAGE_BUILDER},
            )


def _resource(operation: str, request: dict[str, Any], image_builder: ImageBuilder) -> str:
    """The resource that an operation of Image Builder is authorised on."""
    if operation.startswith(("Create", "Import")):
        return image_builder.arn_to_be(operation, request)
    if operation == "ListImageBuildVersions" and "imageVersionArn" in request:
        return f"{request['imageVersionArn']}/*"
    arns = (value for name, value in request.items() if name.endswith("Arn"))
    return next(arns, "*")


def ec2_checks(operation: str, request: dict[str, Any]) -> Iterator[Check]:
    """What the operations of EC2 that we serve ask."""
    region = {"ec2:Region": get_region()}
    regional = f"arn:aws:ec2:{get_region()}:{get_account_id()}"
    public = f"arn:aws:ec2:{get_region()}:"  # AMIs and snapshots: the account is left out
    match operation:
        case "ImportImage":
            tags = {
                tag.get("Key", ""): tag.get("Value", "")
                for specification in request.get("TagSpecifications", [])
                for tag in specification.get("Tags", [])
            }
            keys = region | _tag_keys("aws:RequestTag", tags) | _named(tags)
            task = f"{regional}:import-image-task/*"
            yield Check("ec2:ImportImage", f"{public}:image/*", keys)
            yield Check("ec2:ImportImage", task, keys)
            for container in request.get("DiskContainers", []):
                if snapshot_id := container.get("SnapshotId"):
                    yield Check("ec2:ImportImage", f"{public}:snapshot/{snapshot_id}", keys)
            if tags:
                yield Check("ec2:CreateTags", task, keys | {"ec2:CreateAction": "ImportImage"})
        case "CancelImportTask":
            task_id = request.get("ImportTaskId", "*")
            yield _on_tagged(operation, f"{regional}:import-image-task/{task_id}", task_id)
        case "DeregisterImage":
            yield _on_tagged(operation, f"{public}:image/{request['ImageId']}", request["ImageId"])
        case "CreateTags" | "DeleteTags":
            tags = {tag["Key"]: tag.get("Value", "") for tag in request.get("Tags", [])}
            asked = _tag_keys("aws:RequestTag", tags) | _named(tags)
            for resource_id in request["Resources"]:
                check = _on_tagged(operation, _ec2_arn(resource_id), resource_id)
                yield Check(check.action, check.resource, {**check.keys, **asked})
        case "DeleteSnapshot":
            yield delete_snapshot_check(request["SnapshotId"])
        case _:
            yield Check(f"ec2:{operation}", keys=region)


def delete_snapshot_check(snapshot_id: str) -> Check:
    """What deleting a snapshot asks, by itself or along with its AMI."""
    return _on_tagged(
        "DeleteSnapshot", f"arn:aws:ec2:{get_region()}::snapshot/{snapshot_id}", snapshot_id
    )


def pass_role_check(role_arn: str) -> Check:
    """What naming a role for VM Import asks."""
    return Check("iam:PassRole", role_arn, {"iam:PassedToService": "vmie.amazonaws.com"})


def make_service_linked_role(created: str) -> None:
    """Make Image Builder's service-linked role, if the account has none yet.

    https://docs.aws.amazon.com/imagebuilder/latest/userguide/image-builder-service-linked-role.html
    """
    if SERVICE_LINKED_ROLE in iam._roles:  # noqa: SLF001
        return
    # not by CreateServiceLinkedRole: MiniStack spells its name otherwise
    iam._roles[SERVICE_LINKED_ROLE] = {  # noqa: SLF001
        "RoleName": SERVICE_LINKED_ROLE,
        "Arn": _service_linked_role_arn(),
        "RoleId": iam._gen_id("AROA"),  # noqa: SLF001
        "CreateDate": created,
        "Path": f"/aws-service-role/{_IMAGE_BUILDER}/",
        "AssumeRolePolicyDocument": (
            '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": '
            f'{{"Service": "{_IMAGE_BUILDER}"}}, "Action": "sts:AssumeRole"}}]}}'
        ),
        "Description": "",
        "MaxSessionDuration": 3600,
        "AttachedPolicies": [],
        "InlinePolicies": {},
        "Tags": [],
    }


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


def _on_tagged(operation: str, arn: str, resource_id: str) -> Check:
    tags = {tag["Key"]: tag["Value"] for tag in ec2._tags.get(resource_id, [])}  # noqa: SLF001
    keys: dict[str, object] = {"ec2:Region": get_region(), "ec2:Owner": get_account_id()}
    keys |= _tag_keys("aws:ResourceTag", tags) | _tag_keys("ec2:ResourceTag", tags)
    return Check(f"ec2:{operation}", arn, keys)


def _ec2_arn(resource_id: str) -> str:
    """The ARN of what can be tagged, as far as an import makes it."""
    kind = {"ami": "image", "snap": "snapshot", "import-ami": "import-image-task"}.get(
        resource_id.rpartition("-")[0]
    )
    account = get_account_id() if kind == "import-image-task" else ""
    return f"arn:aws:ec2:{get_region()}:{account}:{kind}/{resource_id}" if kind else "*"


def _tag_keys(prefix: str, tags: Mapping[str, str]) -> dict[str, object]:
    return {f"{prefix}/{key}": value for key, value in tags.items()}


def _named(keys: Iterable[str]) -> dict[str, object]:
    # a request that names no tags has no aws:TagKeys
    return {"aws:TagKeys": list(keys)} if keys else {}


def _service_linked_role_arn() -> str:
    path = f"aws-service-role/{_IMAGE_BUILDER}/{SERVICE_LINKED_ROLE}"
    return f"arn:aws:iam::{get_account_id()}:role/{path}"
