"""A dashboard of the imports of a stack."""

import re
from collections.abc import Iterator

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from cdk_vm_import import _log_queries, _validation
from cdk_vm_import._handler import contract
from cdk_vm_import._signature import shows_arguments
from cdk_vm_import.vm_import_provider import SHARED_ID, VmImportProvider

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutDashboard.html
_DASHBOARD_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}", re.ASCII)
_FULL_WIDTH = 24
_HALF_WIDTH = 12
_PERIOD = cdk.Duration.minutes(5)


@shows_arguments()
class VmImportDashboard(Construct):
    """A CloudWatch dashboard of the images that a stack imports.

    It shows the running imports, with state, progress and the last message; the duration and the
    failures of past imports; their outcomes; and the errors of the provider. It finds the images by
    the name of the stack, so it needs no change when the stack gets more of them. CloudWatch finds
    at most 500 metrics for a graph, and no metric without a value in the last two weeks.

    The tables are queries of the provider's log. CloudWatch bills the data that they scan, each
    time that the dashboard is opened or refreshed. See
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html

    Example:
        ```python
        VmImportDashboard(self, "Imports")
        ```
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        provider: VmImportProvider | None = None,
        dashboard_name: str | None = None,
    ) -> None:
        """Create the dashboard. At first it shows the last day.

        Args:
            scope: The construct to create this one in.
            construct_id: The id of this construct in the scope.
            provider: Provider whose log and errors are shown. It must belong to the same stack.
                Required if the stack has only providers with ids of their own. Default: the shared
                provider of the stack, see `VmImportProvider.get_or_create`.
            dashboard_name: Name of the dashboard, 1 to 255 letters, digits, hyphens or underscores.
                It may be an unresolved token. Default: CloudFormation generates it.

        Raises:
            ValueError: Arguments are not valid. The message lists all problems.
        """
        _validation.place(scope, construct_id)
        _validation.check(
            scope,
            construct_id,
            [
                *_validation.provider(provider, VmImportProvider, cdk.Stack.of(scope)),
                *(_shared_provider(cdk.Stack.of(scope)) if provider is None else []),
                *_dashboard_name(dashboard_name),
            ],
        )
        super().__init__(scope, construct_id)
        provider = provider or VmImportProvider.get_or_create(self)
        self._dashboard = cloudwatch.Dashboard(
            self,
            "Resource",
            dashboard_name=dashboard_name,
            default_interval=cdk.Duration.days(1),
            widgets=[
                [_table("Running imports", _log_queries.RUNNING_IMPORTS, provider)],
                [
                    self._graph("Duration", contract.Metric.DURATION, cloudwatch.Stats.MAXIMUM),
                    self._graph("Failed imports", contract.Metric.FAILED, cloudwatch.Stats.SUM),
                ],
                [_table("Past imports", _log_queries.PAST_IMPORTS, provider)],
                [
                    cloudwatch.GraphWidget(
                        title="Errors of the provider",
                        width=_FULL_WIDTH,
                        left=[
                            provider.metric_errors(label="errors of the function"),
                            provider.metric_failed_executions(label="events without a response"),
                        ],
                    )
                ],
            ],
        )

    @property
    def dashboard(self) -> cloudwatch.Dashboard:
        """The dashboard, for example to add widgets."""
        return self._dashboard

    def _graph(self, title: str, metric: contract.Metric, statistic: str) -> cloudwatch.GraphWidget:
        """Return a graph with a line for each image of the stack."""
        stack, resource = contract.Dimension
        schema = f"{contract.METRIC_NAMESPACE},{stack},{resource}"
        name = cdk.Stack.of(self).stack_name
        seconds = _PERIOD.to_seconds()
        return cloudwatch.GraphWidget(
            title=title,
            width=_HALF_WIDTH,
            left=[
                cloudwatch.SearchExpression(
                    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/search-expression-syntax.html
                    expression=f'SEARCH(\'{{{schema}}} MetricName="{metric}" '
                    f"{stack}=\"{name}\"', '{statistic}', {seconds:g})",
                    label=f"${{PROP('Dim.{resource}')}}",
                    period=_PERIOD,
                )
            ],
        )


def _table(title: str, query: str, provider: VmImportProvider) -> cloudwatch.LogQueryWidget:
    return cloudwatch.LogQueryWidget(
        title=title,
        width=_FULL_WIDTH,
        log_group_names=[provider.log_group.log_group_name],
        query_string=query,
    )


def _shared_provider(stack: cdk.Stack) -> Iterator[str]:
    """Check that the images of the stack use the provider whose log would be shown."""
    if stack.node.try_find_child(SHARED_ID):
        return
    others = [
        node.node.path
        for node in stack.node.find_all()
        if isinstance(node, VmImportProvider) and cdk.Stack.of(node) is stack
    ]
    if others:
        yield (
            f"the stack has no shared provider, but {_validation.shown(', '.join(others))}: name "
            "the provider to show, such as provider=mine. To show the shared provider, which "
            "images create later, use provider=VmImportProvider.get_or_create(stack)."
        )


def _dashboard_name(value: object) -> Iterator[str]:
    if value is None:
        return
    if not isinstance(value, str) or not (
        cdk.Token.is_unresolved(value) or _DASHBOARD_NAME.fullmatch(value)
    ):
        yield (
            f"dashboard_name {_validation.shown(value)} is not valid: use 1 to 255 letters, "
            "digits, hyphens or underscores."
        )
