"""What the handler logs about imports is what the constructs' alarms, graphs and queries read.

An app creates the alarms and the queries. The handler receives the properties of the same template.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_cloudwatch as cloudwatch

from cdk_vm_import import ImportedVmImage, Platform, VmImportProvider
from contract import ImageProperty, ResourceType
from tests.support.account import IMPORT
from tests.support.cloudformation import CustomResource, new_stack_id
from tests.support.log_insights import fields_of, run
from tests.support.step_functions import STATE_MACHINE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.handler.conftest import Log
    from tests.support.account import Account
    from tests.support.aws import Aws

HOURS = 3600.0
CLIENT_ERROR = "ClientError: Unknown OS / Missing OS files."


@dataclass
class Deployment:
    """A stack with an image, its alarms and its queries, and its deployment in the test."""

    aws: Aws
    task_id: str
    timeout: float
    stack_id: str = field(default_factory=new_stack_id)

    def __post_init__(self) -> None:
        stack = cdk.Stack(cdk.App(), "images")
        image = ImportedVmImage(
            stack,
            "Golden",
            image_name="rhel9",
            semantic_version="1.0.0",
            platform=Platform.LINUX,
            vm_import_task_id=self.task_id,
            wait_for_available=self.timeout > 0,
            timeout=cdk.Duration.hours(self.timeout or 1),
        )
        for metric in (image.metric_failed(), image.metric_duration()):
            name = f"{metric.metric_name}Alarm"
            cloudwatch.Alarm(stack, name, metric=metric, threshold=1, evaluation_periods=1)
        image.add_query_definition()
        VmImportProvider.get_or_create(stack).add_query_definitions()
        self.template = assertions.Template.from_stack(stack).to_json()["Resources"]

    def of_type(self, resource_type: str) -> dict[str, dict[str, Any]]:
        """The properties of the resources of a type, by logical id."""
        return {
            name: resource["Properties"]
            for name, resource in self.template.items()
            if resource["Type"] == resource_type
        }

    def create(self, during: Callable[[CustomResource], None] | None = None) -> None:
        """Create the image and its links, in the order of the chain, until one fails.

        Args:
            during: Called when a resource waits. Default: nothing happens meanwhile.
        """
        created: dict[str, CustomResource] = {}
        for resource_type in (ResourceType.IMAGE, ResourceType.WAIT):
            for logical_id, properties in self.of_type(resource_type).items():
                resource = CustomResource(
                    self.aws, resource_type.value, logical_id, stack_id=self.stack_id
                )
                created[logical_id] = resource
                resource.properties = {
                    name: self._resolve(value, created) for name, value in properties.items()
                } | {ImageProperty.STATE_MACHINE_ARN: STATE_MACHINE}
                if not self._succeeds(resource, during):
                    return

    def _succeeds(
        self, resource: CustomResource, during: Callable[[CustomResource], None] | None
    ) -> bool:
        execution = resource.start(resource.create_event(resource.properties))
        self.aws.step(execution)
        if during:
            during(resource)
        self.aws.work(lambda: bool(resource.responses()))
        (response,) = resource.responses()
        return bool(response["Status"] == "SUCCESS")

    def _resolve(self, value: Any, created: dict[str, CustomResource]) -> Any:
        match value:
            case {"Fn::GetAtt": [str(name), str(attribute)]} if name in created:
                return created[name].responses()[-1]["Data"][attribute]
            case bool() | int():
                return str(value).lower()
        return value

    def alarms(self) -> set[tuple[str, str, tuple[tuple[str, str], ...]]]:
        """The namespace, the name and the dimensions of the metric of each alarm."""
        return {
            (
                alarm["Namespace"],
                alarm["MetricName"],
                tuple(sorted((d["Name"], d["Value"]) for d in alarm["Dimensions"])),
            )
            for alarm in self.of_type("AWS::CloudWatch::Alarm").values()
        }

    @property
    def logical_id(self) -> str:
        """That of the image."""
        (name,) = self.of_type(ResourceType.IMAGE)
        return name

    def query(self, name: str) -> str:
        """The text of a saved query."""
        (found,) = (
            query["QueryString"]
            for query in self.of_type("AWS::Logs::QueryDefinition").values()
            if name in query["Name"]
        )
        return str(found)


def values(log: Log) -> dict[tuple[str, str, tuple[tuple[str, str], ...]], list[float]]:
    """The metrics that CloudWatch extracts from the log, by namespace, name and dimensions.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    found: dict[Any, list[float]] = {}
    for line in log():
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
            for names in directive["Dimensions"]:
                dimensions = tuple(sorted((name, line[name]) for name in names))
                for metric in directive["Metrics"]:
                    key = (directive["Namespace"], metric["Name"], dimensions)
                    found.setdefault(key, []).append(line[metric["Name"]])
    return found


# How long the deployment waits, in hours; 0: not at all.
TIMEOUTS = pytest.mark.parametrize("timeout", [0, 1, 3], ids=["no wait", "one hour", "chain"])


@TIMEOUTS
def test_an_alarm_sees_an_import_that_succeeds(
    aws: Aws, account: Account, log: Log, timeout: float
) -> None:
    if timeout > 1:
        account.knobs(import_seconds=1.5 * HOURS)
    deployment = Deployment(aws, account.import_task(), timeout)

    deployment.create()
    account.advance(IMPORT)

    found = values(log)
    assert found.keys() == deployment.alarms()
    duration, failed = (found[key] for key in sorted(found))
    assert failed == [0]
    assert len(duration) == 1
    assert 60 < duration[0] < 2 * HOURS


@TIMEOUTS
def test_an_alarm_sees_an_import_that_fails(
    aws: Aws, account: Account, log: Log, timeout: float
) -> None:
    account.knobs(import_seconds=3 * HOURS if timeout > 1 else 900.0)
    task_id = account.import_task()
    account.fail_import(CLIENT_ERROR, task_id=task_id, at_progress=58)
    deployment = Deployment(aws, task_id, timeout)

    deployment.create()
    account.advance(IMPORT)

    found = values(log)
    assert found.keys() == deployment.alarms()
    assert [found[key] for key in sorted(found) if key[1] == "Failed"] == [[1]]


@pytest.mark.parametrize("timeout", [0, 0.5, 2], ids=["no wait", "half an hour", "chain"])
def test_an_alarm_sees_an_import_that_does_not_end_in_time(
    aws: Aws, account: Account, log: Log, timeout: float
) -> None:
    account.knobs(import_seconds=100 * HOURS)
    deployment = Deployment(aws, account.import_task(), timeout)

    deployment.create()
    account.advance(13 * HOURS)

    found = values(log)
    assert found.keys() == deployment.alarms()
    assert [found[key] for key in sorted(found) if key[1] == "Failed"] == [[1]]


def test_an_alarm_sees_an_image_that_is_deleted_by_hand_while_a_link_waits(
    aws: Aws, account: Account, log: Log
) -> None:
    account.knobs(import_seconds=3 * HOURS)
    deployment = Deployment(aws, account.import_task(), 4)

    def delete(waiting: CustomResource) -> None:
        if waiting.resource_type == ResourceType.WAIT:
            (arn,) = aws.images
            account.cancel(arn)
            account.delete(arn)

    deployment.create(delete)

    found = values(log)
    assert found.keys() <= deployment.alarms()
    assert [found[key] for key in sorted(found) if key[1] == "Failed"] == [[1]]


def test_an_alarm_sees_an_image_that_is_gone_before_a_link_polls_it(
    aws: Aws, account: Account, log: Log
) -> None:
    account.knobs(import_seconds=3 * HOURS)
    deployment = Deployment(aws, account.import_task(), 4)

    def delete_before_the_link(waiting: CustomResource) -> None:
        if waiting.resource_type == ResourceType.IMAGE:
            aws.work(lambda: bool(waiting.responses()))
            (arn,) = aws.images
            account.cancel(arn)
            account.delete(arn)

    deployment.create(delete_before_the_link)

    # How long the import took is not known, so there is no Duration.
    (failed,) = (alarm for alarm in deployment.alarms() if "Failed" in alarm)
    assert values(log) == {failed: [1]}
    (row,) = run(deployment.query("Failed imports"), log())
    assert row["Resource"] == deployment.logical_id


def test_an_import_that_ends_between_two_hours_of_a_chain_is_counted_once(
    aws: Aws, account: Account, log: Log
) -> None:
    account.knobs(import_seconds=1.5 * HOURS)
    deployment = Deployment(aws, account.import_task(), 4)

    def end_before_the_link(waiting: CustomResource) -> None:
        if waiting.resource_type == ResourceType.IMAGE:
            aws.work(lambda: bool(waiting.responses()))
            account.advance(HOURS)

    deployment.create(end_before_the_link)

    found = values(log)
    assert found.keys() == deployment.alarms()
    assert [found[key] for key in sorted(found) if key[1] == "Failed"] == [[0]]
    assert run(deployment.query("Running imports"), log()) == []


# --- the queries ---


@TIMEOUTS
def test_the_queries_read_fields_that_the_handler_writes(
    aws: Aws, account: Account, log: Log, timeout: float
) -> None:
    deployment = Deployment(aws, account.import_task(), timeout)

    deployment.create()
    account.advance(IMPORT)

    written = {name for line in log() for name in line}
    for name in ("Running imports", "Failed imports", "History of"):
        fields = fields_of(deployment.query(name))
        assert len(fields) > 3
        assert fields <= written


@TIMEOUTS
def test_the_query_for_running_imports_shows_an_import_from_its_first_poll_to_its_end(
    aws: Aws, account: Account, log: Log, timeout: float
) -> None:
    if timeout > 1:
        account.knobs(import_seconds=1.5 * HOURS)
    deployment = Deployment(aws, account.import_task(), timeout)
    shown: list[list[dict[str, Any]]] = []

    deployment.create(lambda _: shown.append(run(deployment.query("Running imports"), log())))
    account.advance(IMPORT)

    # Once for the image, and once while each link waits, though the links log in their own names.
    running = [rows for rows in shown if rows]
    assert len(running) == (0 if timeout == 0 else max(1, timeout - 1))
    for (row,) in running:
        assert (row["Stack"], row["Resource"]) == ("images", deployment.logical_id)
        assert row["current"] == "PENDING"
        assert row["percent"] in range(101)
        assert "EC2's import is at" in row["last_message"]
    assert run(deployment.query("Running imports"), log()) == []


def test_the_query_for_running_imports_shows_one_that_nobody_waits_for(
    aws: Aws, account: Account, log: Log
) -> None:
    deployment = Deployment(aws, account.import_task(), 0)

    deployment.create()
    account.advance(60)

    (row,) = run(deployment.query("Running imports"), log())
    assert row["Resource"] == deployment.logical_id


@pytest.mark.parametrize("end", ["deletes", "denied"])
def test_an_import_without_an_outcome_is_not_running_after_the_response_about_its_resource(
    aws: Aws, account: Account, log: Log, end: str
) -> None:
    deployment = Deployment(aws, account.import_task(), 1)
    shown: list[list[dict[str, Any]]] = []

    def end_it(waiting: CustomResource) -> None:
        account.advance(300)
        shown.append(run(deployment.query("Running imports"), log()))
        if end == "denied":
            aws.deny_for(400, "DescribeImportImageTasks")
            return
        # Another resource fails, and CloudFormation deletes what it has created.
        (waiting.physical_id,) = aws.images
        waiting.delete()

    deployment.create(end_it)

    assert [len(rows) for rows in shown] == [1]
    assert run(deployment.query("Running imports"), log()) == []


@pytest.mark.parametrize(
    ("ends", "timeout", "outcome", "message"),
    [
        ("completed", 1, None, ""),
        ("failed", 1, "failed", "Unknown OS"),
        ("never", 2, "timeout", "is not AVAILABLE after"),
    ],
    ids=["available", "failed", "timeout"],
)
def test_the_query_for_failed_imports_shows_failures_and_timeouts_with_their_reason(
    aws: Aws,
    account: Account,
    log: Log,
    ends: str,
    timeout: float,
    outcome: str | None,
    message: str,
) -> None:
    task_id = account.import_task()
    if ends == "failed":
        account.fail_import(CLIENT_ERROR, task_id=task_id, at_progress=58)
    if ends == "never":
        account.knobs(import_seconds=100 * HOURS)
    deployment = Deployment(aws, task_id, timeout)

    deployment.create()

    rows = run(deployment.query("Failed imports"), log())
    assert [row["outcome"] for row in rows] == ([outcome] if outcome else [])
    assert all(row["Resource"] == deployment.logical_id for row in rows)
    assert all(message in row["message"] for row in rows)


def test_the_history_of_an_image_begins_with_its_import_and_ends_with_its_outcome(
    aws: Aws, account: Account, log: Log
) -> None:
    account.knobs(import_seconds=1.5 * HOURS)
    deployment = Deployment(aws, account.import_task(), 3)

    deployment.create()

    rows = [row for row in run(deployment.query("History of"), log()) if "state" in row]
    assert (rows[0]["state"], rows[-1]["outcome"]) == ("PENDING", "available")
    # The second hour is the link's.
    assert [row["progress"] for row in rows if "progress" in row][-1] > 50
