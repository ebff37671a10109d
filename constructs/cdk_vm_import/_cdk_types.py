"""Types of arguments that are constructs of CDK.

For mypy, CDK's classes have CDK's interfaces. For pyright some do not: `kms.Key` is no `kms.IKey`,
because an argument of a method has another name. These types are the same for both.
"""

from typing import Any, Protocol

from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

AnyKey = kms.IKey | kms.Key
AnyRole = iam.IRole | iam.Role


class AnyRuleTarget(Protocol):
    """A target of CDK, `events.IRuleTarget`, whatever the names of its arguments are."""

    def bind(self, rule: Any, id: str | None = None, /) -> events.RuleTargetConfig:  # noqa: A002, ANN401 - as in CDK
        """Return what the rule sends events to."""
