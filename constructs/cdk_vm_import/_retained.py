"""Which resources CloudFormation retains, for the handler: its events do not say."""

from collections.abc import Callable
from typing import cast

import aws_cdk as cdk
import jsii


def is_retained(resource: cdk.CfnResource) -> bool:
    """Return whether CloudFormation retains a resource, whoever decided that."""
    return resource.cfn_options.deletion_policy is not cdk.CfnDeletionPolicy.DELETE


def prop(resource: Callable[[], cdk.CfnResource]) -> cdk.IResolvable:
    """Return the property of a resource that says at synthesis whether it is retained.

    Args:
        resource: Returns the resource, which does not exist yet.
    """
    return cdk.Lazy.any(cast("cdk.IStableAnyProducer", _IsRetained(resource)))


@jsii.implements(cdk.IStableAnyProducer)
class _IsRetained:
    def __init__(self, resource: Callable[[], cdk.CfnResource]) -> None:
        self._resource = resource

    def produce(self) -> bool | None:
        return is_retained(self._resource()) or None
