"""The service-linked role of Image Builder.

https://docs.aws.amazon.com/imagebuilder/latest/userguide/image-builder-service-linked-role.html
"""

from __future__ import annotations

from typing import Final

from local_aws import seams

SERVICE_LINKED_ROLE: Final = "AWSServiceRoleForImageBuilder"
SERVICE: Final = "imagebuilder.amazonaws.com"


def create_service_linked_role(created: str) -> None:
    """Create Image Builder's service-linked role if the account does not have it.

    https://docs.aws.amazon.com/imagebuilder/latest/userguide/image-builder-service-linked-role.html
    """
    if SERVICE_LINKED_ROLE in seams.ROLES:
        return
    # Not by CreateServiceLinkedRole, because MiniStack gives the role another name.
    seams.ROLES[SERVICE_LINKED_ROLE] = {
        "RoleName": SERVICE_LINKED_ROLE,
        "Arn": service_linked_role_arn(),
        "RoleId": seams.new_iam_id("AROA"),
        "CreateDate": created,
        "Path": f"/aws-service-role/{SERVICE}/",
        "AssumeRolePolicyDocument": (
            '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": '
            f'{{"Service": "{SERVICE}"}}, "Action": "sts:AssumeRole"}}]}}'
        ),
        "Description": "",
        "MaxSessionDuration": 3600,
        "AttachedPolicies": [],
        "InlinePolicies": {},
        "Tags": [],
    }


def service_linked_role_arn() -> str:
    """Return the ARN of the role in the current account."""
    path = f"aws-service-role/{SERVICE}/{SERVICE_LINKED_ROLE}"
    return f"arn:aws:iam::{seams.get_account_id()}:role/{path}"
