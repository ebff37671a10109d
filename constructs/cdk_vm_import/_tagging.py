"""The tags of images and tasks: their own, and those of the stack.

CloudFormation copies the tags of a stack to the resources of AWS, but not to custom resources.
"""

from typing import cast

import aws_cdk as cdk
import jsii
from constructs import Construct


def values(scope: Construct, tags: cdk.TagManager) -> dict[str, str]:
    """Return the tags of a resource at synthesis.

    Args:
        scope: The construct of the resource.
        tags: Its own tags, which take precedence over those of the stack.
    """
    return {**cdk.Stack.of(scope).tags.tag_values(), **tags.tag_values()}


def rendered(scope: Construct, tags: cdk.TagManager) -> cdk.IResolvable:
    """Return the tags of a resource as its property."""
    return cdk.Lazy.any(cast("cdk.IStableAnyProducer", _Tags(scope, tags)))


@jsii.implements(cdk.IStableAnyProducer)
class _Tags:
    def __init__(self, scope: Construct, tags: cdk.TagManager) -> None:
        self._scope, self._tags = scope, tags

    def produce(self) -> dict[str, str] | None:
        return values(self._scope, self._tags) or None
