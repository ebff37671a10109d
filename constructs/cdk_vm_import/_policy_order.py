"""The order of an import task and of the policies that its import needs."""

from collections.abc import Iterable
from typing import cast
from weakref import WeakKeyDictionary

import aws_cdk as cdk
import jsii
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import IConstruct

# The policies of each stack, with the roles that each names, as in the template.
_policies: WeakKeyDictionary[cdk.Stack, list[tuple[cdk.CfnResource, list[object]]]] = (
    WeakKeyDictionary()
)


def wait_for_policies(
    resource: cdk.CustomResource, role: iam.IRole, buckets: Iterable[s3.IBucket]
) -> None:
    """Let a resource wait for the policies of a role and of buckets in the same stack.

    The resource refers to the role and the buckets, but their policies may be resources of their
    own, which CloudFormation may create later than the resource and delete earlier. The app may add
    them after the resource, so an Aspect finds them at synthesis.

    Args:
        resource: The resource.
        role: The role.
        buckets: The buckets.
    """
    order = _PolicyOrder(resource, role, list(buckets))
    cdk.Aspects.of(resource).add(cast("cdk.IAspect", order), priority=cdk.AspectPriority.READONLY)


@jsii.implements(cdk.IAspect)
class _PolicyOrder:
    def __init__(
        self, resource: cdk.CustomResource, role: iam.IRole, buckets: list[s3.IBucket]
    ) -> None:
        self._resource = resource
        self._role = role
        self._buckets = buckets

    def visit(self, node: IConstruct) -> None:
        if not isinstance(node, cdk.CustomResource):
            return
        stack = cdk.Stack.of(self._resource)
        for bucket in self._buckets:
            if bucket.policy and bucket.policy.stack is stack:
                self._resource.node.add_dependency(bucket.policy)
        name = stack.resolve(self._role.role_name)
        for policy, roles in _policies_of(stack):
            if name in roles:
                self._resource.node.add_dependency(policy)


def _policies_of(stack: cdk.Stack) -> list[tuple[cdk.CfnResource, list[object]]]:
    if stack not in _policies:
        found: list[tuple[cdk.CfnResource, list[object]]] = []
        for child in stack.node.find_all():
            if isinstance(child, iam.CfnPolicy | iam.CfnManagedPolicy):
                found.append((child, stack.resolve(child.roles) or []))
            elif isinstance(child, iam.CfnRolePolicy):
                found.append((child, [stack.resolve(child.role_name)]))
        _policies[stack] = found
    return _policies[stack]
