"""The actions that CloudFormation's execution role needs for the resources of a template.

The actions are the API operations that the handlers of the resource types call to write. They are
written down here a second time, so that the simulated AWS is not the only one that says so.
https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# By operation, resource type, and the property that needs the actions: none for the type itself.
# "Custom" are all custom resources. An update changes everything that another release may change.
OPERATIONS: Final[dict[str, dict[str, dict[str | None, str]]]] = {
    "deploy": {
        "AWS::IAM::Role": {None: "iam:CreateRole", "Policies": "iam:PutRolePolicy"},
        "AWS::Lambda::EventInvokeConfig": {None: "lambda:PutFunctionEventInvokeConfig"},
        "AWS::Lambda::Function": {
            None: "lambda:CreateFunction",
            "Code": "s3:GetObject",
            "KmsKeyArn": "kms:CreateGrant kms:Encrypt",
            "ReservedConcurrentExecutions": "lambda:PutFunctionConcurrency",
            "Role": "iam:PassRole",
        },
        "AWS::Logs::LogGroup": {
            None: "logs:CreateLogGroup",
            "RetentionInDays": "logs:PutRetentionPolicy",
        },
        "AWS::StepFunctions::StateMachine": {
            None: "states:CreateStateMachine",
            "EncryptionConfiguration": "kms:DescribeKey kms:GenerateDataKey",
            "RoleArn": "iam:PassRole",
        },
        "Custom": {"ServiceToken": "lambda:InvokeFunction"},
    },
    "update": {
        "AWS::IAM::Role": {"Policies": "iam:DeleteRolePolicy iam:PutRolePolicy"},
        "AWS::Lambda::EventInvokeConfig": {None: "lambda:UpdateFunctionEventInvokeConfig"},
        "AWS::Lambda::Function": {
            None: "lambda:UpdateFunctionConfiguration",
            "Code": "lambda:UpdateFunctionCode s3:GetObject",
            "Role": "iam:PassRole",
        },
        "AWS::Logs::LogGroup": {"RetentionInDays": "logs:PutRetentionPolicy"},
        "AWS::StepFunctions::StateMachine": {
            None: "states:UpdateStateMachine",
            "EncryptionConfiguration": "kms:DescribeKey kms:GenerateDataKey",
            "RoleArn": "iam:PassRole",
        },
        "Custom": {"ServiceToken": "lambda:InvokeFunction"},
    },
    "destroy": {
        "AWS::IAM::Role": {None: "iam:DeleteRole", "Policies": "iam:DeleteRolePolicy"},
        "AWS::Lambda::EventInvokeConfig": {None: "lambda:DeleteFunctionEventInvokeConfig"},
        "AWS::Lambda::Function": {None: "lambda:DeleteFunction"},
        "AWS::Logs::LogGroup": {None: "logs:DeleteLogGroup"},
        "AWS::StepFunctions::StateMachine": {None: "states:DeleteStateMachine"},
        "Custom": {"ServiceToken": "lambda:InvokeFunction"},
    },
}


def execution_policies(template: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return the actions that each operation needs for the resources of ours in a template."""
    return {
        operation: {
            action
            for resource in template["Resources"].values()
            for name, actions in types.get(_type(resource), {}).items()
            if name is None or name in resource["Properties"]
            for action in actions.split()
        }
        for operation, types in OPERATIONS.items()
    }


def _type(resource: Mapping[str, Any]) -> str:
    resource_type = str(resource["Type"])
    return "Custom" if resource_type.startswith("Custom::") else resource_type
