"""Queries of CloudWatch Logs Insights for the log of a provider.

The handler logs each change of an import, and its outcome, as a line of JSON. CloudWatch finds the
fields of such lines: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_AnalyzeLogData-discoverable-fields.html
"""

from typing import Final

from aws_cdk import aws_logs as logs
from constructs import Construct

from cdk_vm_import._handler import contract

_STACK, _RESOURCE = contract.Dimension
_MESSAGE, _STATE = contract.LogField.MESSAGE, contract.LogField.STATE
_PROGRESS, _OUTCOME = contract.LogField.PROGRESS, contract.LogField.OUTCOME
_RESPONSE: Final = contract.LogField.RESPONSE
_IMPORT: Final = f"{_STACK}, {_RESOURCE}, {_OUTCOME}"
_LATEST: Final = (
    f"latest({_PROGRESS}) as percent, latest({_MESSAGE}) as last_message, "
    "max(@timestamp) as last_change"
)
_ENDS: Final = (*contract.ImportOutcome, "SUCCESS", "FAILED")
_FAILURES: Final = (contract.ImportOutcome.FAILED, contract.ImportOutcome.TIMEOUT)

RUNNING_IMPORTS: Final = "\n| ".join(
    [
        # An import ends with its outcome. One that CloudFormation cancels or deletes has none, so
        # it ends with the next response about its resource.
        f"fields @timestamp, coalesce({_OUTCOME}, {_RESPONSE}, {_STATE}) as status",
        f"filter ispresent({_STATE}) or ispresent({_RESPONSE})",
        f"stats latest(status) as current, {_LATEST} by {_STACK}, {_RESOURCE}",
        "filter " + " and ".join(f"current != '{end}'" for end in _ENDS),
        "sort last_change desc",
    ]
)
PAST_IMPORTS: Final = "\n| ".join(
    [
        f"fields @timestamp, {_IMPORT}, {contract.Metric.DURATION}, {_MESSAGE}",
        f"filter ispresent({_OUTCOME})",
        "sort @timestamp desc",
    ]
)
FAILED_IMPORTS: Final = "\n| ".join(
    [
        f"fields @timestamp, {_IMPORT}, {_MESSAGE}",
        "filter " + " or ".join(f"{_OUTCOME} = '{end}'" for end in _FAILURES),
        "sort @timestamp desc",
    ]
)


def history(logical_id: str) -> str:
    """Return the query for all changes of an image's imports.

    Args:
        logical_id: The logical id of the image, as in the metrics.
    """
    return "\n| ".join(
        [
            f"fields @timestamp, {_STATE}, {_PROGRESS}, {_OUTCOME}, {_MESSAGE}",
            f"filter {_RESOURCE} = '{logical_id}'",
            "sort @timestamp asc",
        ]
    )


def save(
    scope: Construct, construct_id: str, *, name: str, query: str, log_group: logs.ILogGroup
) -> logs.CfnQueryDefinition:
    """Save a query, so that the console of CloudWatch Logs offers it.

    Args:
        scope: The construct to create the query in.
        construct_id: The id of the query in the scope.
        name: Name of the query. The console shows the parts before each slash as folders.
        query: The query.
        log_group: The log group of the provider.
    """
    # QueryDefinition of CDK cannot filter the result of `stats`.
    return logs.CfnQueryDefinition(
        scope,
        construct_id,
        name=name,
        query_string=query,
        log_group_names=[log_group.log_group_name],
    )
