"""Inline policies of roles, within the limit of IAM."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import aws_cdk as cdk
import jsii
from aws_cdk import aws_iam as iam
from constructs import Construct, IConstruct, IValidation

# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
MAX_CHARACTERS: Final = 10_240

# The longest values of pseudo parameters, and of references to roles, buckets and keys.
_LONGEST: Final = {
    "AWS::AccountId": 12,
    "AWS::Partition": len("aws-us-gov"),
    "AWS::Region": len("ap-southeast-1"),
    "AWS::URLSuffix": len("amazonaws.com.cn"),
}
_LONGEST_NAME: Final = 64
_LONGEST_ARN: Final = len("arn:aws-us-gov:iam::123456789012:role/") + _LONGEST_NAME
_UUID: Final = 36
_STACK_ID: Final = len(
    f"arn:aws-us-gov:cloudformation:ap-southeast-1:123456789012:stack//{'x' * _UUID}"
)

Statements = Callable[[], Sequence[iam.PolicyStatement]]


def set_inline_policy(role: iam.Role, name: str, statements: Statements, *, advice: str) -> None:
    """Give a role an inline policy whose statements are complete only at synthesis.

    It is part of the role, not a resource of its own. So whatever depends on the role has the
    permissions, from its creation to its deletion.

    Args:
        role: The role. It has no other inline policy yet.
        name: Name of the policy.
        statements: Returns the statements.
        advice: What to do if the policy exceeds the limit of IAM.
    """
    # iam.Role.customize_roles can replace a role of the app by one that exists already. CDK then
    # reports the statements that the role needs.
    if role.node.try_find_child(f"PrecreatedRole{role.node.id}"):
        cdk.Aspects.of(role).add(cast("cdk.IAspect", _ReportedStatements(role, statements)))
    if cfn_role := cast("iam.CfnRole | None", role.node.default_child):
        policies = cast("cdk.IStableAnyProducer", _Policies(name, statements))
        cfn_role.policies = cdk.Lazy.any(policies)
    role.node.add_validation(cast("IValidation", _SizeValidation(role, statements, advice)))


def attach_policy(
    role: iam.IRole, scope: Construct, name: str, statements: Statements, *, advice: str
) -> iam.Policy | None:
    """Give a role that exists already a policy whose statements are complete only at synthesis.

    The policy is a resource of its own. Whatever needs the permissions must depend on it.

    Args:
        role: The role. It may belong to another stack or, if it is mutable, to no stack.
        scope: The construct to create the policy in.
        name: Id of the policy in the scope.
        statements: Returns the statements. They are never empty.
        advice: What to do if the policy exceeds the limit of IAM.

    Returns:
        The policy. None if the role accepts no policies, such as a role that was imported with
        `mutable=False`.
    """
    policy = iam.Policy(scope, name, statements=list(statements()))
    role.attach_inline_policy(policy)
    cfn_policy = cast("iam.CfnPolicy", policy.node.default_child)
    if not policy.stack.resolve(cfn_policy.roles):
        # CDK leaves out a policy that is attached to nothing.
        return None
    cfn_policy.policy_document = cdk.Lazy.any(cast("cdk.IStableAnyProducer", _Document(statements)))
    policy.node.add_validation(cast("IValidation", _SizeValidation(policy, statements, advice)))
    return policy


def size_of(document: Any, stack_name: str) -> int:  # noqa: ANN401, PLR0911 - any JSON
    """Return the number of characters that IAM counts: without whitespace.

    Args:
        document: A policy document as in a template. What CloudFormation inserts counts with the
            longest value that it can have.
        stack_name: Name of the stack.
    """
    match document:
        case {"Ref": "AWS::StackId"}:
            return 2 + _STACK_ID + len(stack_name)
        case {"Ref": str(name)}:
            return 2 + _LONGEST.get(name, _LONGEST_NAME)
        case {"Fn::Join": [str(separator), list(parts)]}:
            texts = sum(size_of(part, stack_name) - 2 for part in parts)
            return 2 + texts + len(separator) * (len(parts) - 1)
        case {"Fn::Sub": str(text)}:
            for name, longest in _LONGEST.items():
                text = text.replace(f"${{{name}}}", "x" * longest)
            return 2 + len(text)
        case {"Fn::Select": _}:
            return 2 + _UUID
        case dict() if len(document) == 1 and next(iter(document)).startswith("Fn::"):
            return 2 + _LONGEST_ARN
        case dict():
            return 1 + sum(
                len(json.dumps(key)) + 2 + size_of(value, stack_name)
                for key, value in document.items()
            )
        case list():
            return 1 + sum(size_of(value, stack_name) + 1 for value in document)
    return len(json.dumps(document))


@jsii.implements(cdk.IStableAnyProducer)
class _Document:
    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def produce(self) -> iam.PolicyDocument:
        return iam.PolicyDocument(statements=list(self._statements()))


@jsii.implements(cdk.IStableAnyProducer)
class _Policies:
    def __init__(self, name: str, statements: Statements) -> None:
        self._name = name
        self._statements = statements

    def produce(self) -> list[iam.CfnRole.PolicyProperty]:
        document = iam.PolicyDocument(statements=list(self._statements()))
        return [iam.CfnRole.PolicyProperty(policy_name=self._name, policy_document=document)]


@jsii.implements(cdk.IAspect)
class _ReportedStatements:
    """Adds the statements to CDK's report, when they are complete."""

    def __init__(self, role: iam.Role, statements: Statements) -> None:
        self._role = role
        self._statements = statements
        self._added = False

    def visit(self, node: IConstruct) -> None:
        if self._added or not isinstance(node, iam.Role):
            return
        self._added = True
        for statement in self._statements():
            self._role.add_to_principal_policy(statement)


@jsii.implements(IValidation)
class _SizeValidation:
    def __init__(self, policy: Construct, statements: Statements, advice: str) -> None:
        self._policy = policy
        self._statements = statements
        self._advice = advice

    def validate(self) -> list[str]:
        stack = cdk.Stack.of(self._policy)
        document = stack.resolve(iam.PolicyDocument(statements=list(self._statements())))
        size = size_of(document, stack.stack_name)
        if size <= MAX_CHARACTERS:
            return []
        problem = f"the policy of this role may have {size} characters, but IAM allows"
        return [f"{problem} {MAX_CHARACTERS}: {self._advice}"]
