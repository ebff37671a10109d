"""Metrics of imports and of the provider, and saved queries of its log.

tests/handler/test_metrics.py compares both with what the handler writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_logs as logs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdk_vm_import import ImportedVmImage, VmImportProvider

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.construct.conftest import ImportImage, NewApp, ResourcesOf

ALARM = "AWS::CloudWatch::Alarm"
QUERY = "AWS::Logs::QueryDefinition"
ARN = "arn:aws:imagebuilder:eu-west-1:123456789012:image/rhel9/1.0.0/1"


def alarm(metric: cloudwatch.IMetric, scope: cdk.Stack) -> dict[str, Any]:
    """The properties of an alarm on a metric."""
    cloudwatch.Alarm(scope, "Alarm", metric=metric, threshold=1, evaluation_periods=1)
    (found,) = assertions.Template.from_stack(scope).find_resources(ALARM).values()
    return dict(found["Properties"])


def dimensions(properties: dict[str, Any]) -> dict[str, Any]:
    return {dimension["Name"]: dimension["Value"] for dimension in properties["Dimensions"]}


@pytest.mark.parametrize(
    ("metric", "name", "statistic"),
    [
        (ImportedVmImage.metric_duration, "Duration", "Maximum"),
        (ImportedVmImage.metric_failed, "Failed", "Sum"),
        (lambda image: image.metric("Failed"), "Failed", "Sum"),
    ],
    ids=["metric_duration", "metric_failed", "metric"],
)
def test_a_metric_of_an_image_has_the_dimensions_of_its_stack_and_its_resource(
    stack: cdk.Stack,
    import_image: ImportImage,
    metric: Callable[[ImportedVmImage], cloudwatch.Metric],
    name: str,
    statistic: str,
) -> None:
    properties = alarm(metric(import_image(stack)), stack)

    assert dimensions(properties) == {"Stack": "Stack", "Resource": "Image9D742C96"}
    assert properties["Namespace"] == "CdkVmImport"
    assert (properties["MetricName"], properties["Statistic"]) == (name, statistic)
    assert properties["Period"] == 300


def test_the_options_of_cdk_change_a_metric(stack: cdk.Stack, import_image: ImportImage) -> None:
    metric = import_image(stack).metric_duration(
        statistic=cloudwatch.Stats.percentile(90),
        period=cdk.Duration.hours(1),
        color=None,
    )

    properties = alarm(metric, stack)
    assert (properties["ExtendedStatistic"], properties["Period"]) == ("p90", 3600)
    assert import_image(stack, "Second").metric_failed(label="rhel9").label == "rhel9"


def test_an_alarm_can_be_in_another_stack(
    app: cdk.App, stack: cdk.Stack, import_image: ImportImage
) -> None:
    metric = import_image(stack).metric_failed()
    monitoring = cdk.Stack(app, "Monitoring")

    assert dimensions(alarm(metric, monitoring)) == {"Stack": "Stack", "Resource": "Image9D742C96"}
    assert assertions.Template.from_stack(stack).find_outputs("*").keys() == {
        "ImageImageArnCD42D5A5"
    }


def test_a_metric_has_the_name_that_the_stack_is_deployed_with(
    app: cdk.App, import_image: ImportImage
) -> None:
    stack = cdk.Stack(app, "Stack", stack_name="golden-images")

    properties = alarm(import_image(stack).metric_failed(), stack)

    assert dimensions(properties)["Stack"] == "golden-images"


def test_a_metric_has_the_name_of_the_nested_stack_that_imports_the_image(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    nested = cdk.NestedStack(stack, "Nested")
    metric = import_image(nested).metric_failed()

    cloudwatch.Alarm(nested, "Alarm", metric=metric, threshold=1, evaluation_periods=1)
    outside = alarm(metric, stack)

    (inside,) = assertions.Template.from_stack(nested).find_resources(ALARM).values()
    assert dimensions(inside["Properties"])["Stack"] == {"Ref": "AWS::StackName"}
    # The second part of the ARN of the nested stack.
    ((function, (index, parts)),) = dimensions(outside)["Stack"].items()
    assert (function, index, parts["Fn::Split"][0]) == ("Fn::Select", 1, "/")


def test_a_metric_follows_a_logical_id_that_is_overridden_later(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    image = import_image(stack)
    metric = image.metric_failed()
    resource = image.node.find_child("Resource").node.default_child
    assert isinstance(resource, cdk.CfnResource)
    resource.override_logical_id("Golden")

    assert dimensions(alarm(metric, stack))["Resource"] == "Golden"


@pytest.mark.parametrize(
    "image",
    [
        lambda stack: ImportedVmImage.from_image_arn(stack, "Image", ARN),
        lambda stack: ImportedVmImage.from_image_attributes(stack, "Image", image_arn=ARN),
        lambda stack: ImportedVmImage.from_image_name(stack, "Image", "rhel9"),
    ],
    ids=["from_image_arn", "from_image_attributes", "from_image_name"],
)
@pytest.mark.parametrize("metric", ["metric_duration", "metric_failed"])
def test_an_image_that_the_stack_does_not_import_has_no_metrics(
    stack: cdk.Stack, image: Callable[[cdk.Stack], Any], metric: str
) -> None:
    with pytest.raises(ValueError, match="Stack/Image: metrics are not available, because this"):
        getattr(image(stack), metric)()


OPTIONS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from(["period", "statistic", "label", "unit", "visible", "id", "region", "other"]),
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.just([]),
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(options=OPTIONS)
def test_options_of_wrong_types_raise_nothing_but_our_error(
    new_app: NewApp, import_image: ImportImage, options: dict[str, Any]
) -> None:
    image = import_image(cdk.Stack(new_app(), "Stack"))
    lines: list[str] = []
    try:
        image.metric_failed(**options)
    except ValueError as error:
        lines = str(error).splitlines()
    assert all(line.startswith("Stack/Image: ") for line in lines)


# --- the provider ---


def test_metric_errors_counts_the_errors_of_the_function(stack: cdk.Stack) -> None:
    properties = alarm(VmImportProvider(stack, "VmImportProvider").metric_errors(), stack)

    assert (properties["Namespace"], properties["MetricName"]) == ("AWS/Lambda", "Errors")
    assert dimensions(properties) == {"FunctionName": {"Ref": "VmImportProviderHandlerD6951CDD"}}
    assert (properties["Statistic"], properties["Period"]) == ("Sum", 300)


def test_metric_failed_executions_counts_the_events_without_a_response(stack: cdk.Stack) -> None:
    provider = VmImportProvider(stack, "VmImportProvider")

    properties = alarm(provider.metric_failed_executions(period=cdk.Duration.minutes(1)), stack)

    assert (properties["Namespace"], properties["MetricName"]) == ("AWS/States", "ExecutionsFailed")
    # The Ref of a state machine is its ARN.
    assert dimensions(properties) == {
        "StateMachineArn": {"Ref": "VmImportProviderEventStateMachine79B5AC06"}
    }
    assert (properties["Statistic"], properties["Period"]) == ("Sum", 60)


def test_the_log_group_of_the_provider_is_that_of_its_function(stack: cdk.Stack) -> None:
    provider = VmImportProvider(stack, "VmImportProvider")

    assert provider.log_group is provider.function.log_group
    assert isinstance(provider.log_group, logs.LogGroup)


# --- saved queries ---


def test_the_queries_are_saved_for_the_log_group_under_the_name_of_the_stack(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    import_image(stack).add_query_definition()
    VmImportProvider.get_or_create(stack).add_query_definitions()

    queries = [query["Properties"] for query in resources_of(stack, QUERY).values()]
    assert sorted(query["Name"] for query in queries) == [
        "Stack/VmImportProvider/Failed imports",
        "Stack/VmImportProvider/History of Image9D742C96",
        "Stack/VmImportProvider/Running imports",
    ]
    groups = [query["LogGroupNames"] for query in queries]
    assert groups == [[{"Ref": "VmImportProviderLogGroup884847F1"}]] * 3


def test_the_query_of_an_image_reads_the_log_of_its_own_provider(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    provider = VmImportProvider(stack, "Mine")
    import_image(stack, provider=provider).add_query_definition()

    (query,) = resources_of(stack, QUERY).values()
    log_group = cdk.Stack.of(stack).resolve(provider.log_group.log_group_name)
    assert query["Properties"]["LogGroupNames"] == [log_group]


def test_metrics_add_nothing_to_a_template(
    new_stack: Callable[[], cdk.Stack], import_image: ImportImage
) -> None:
    plain, measured = new_stack(), new_stack()
    import_image(plain)
    image = import_image(measured)
    image.metric_duration()
    image.metric_failed()
    provider = VmImportProvider.get_or_create(measured)
    provider.metric_errors()
    provider.metric_failed_executions()

    first, second = (assertions.Template.from_stack(stack).to_json() for stack in (plain, measured))
    assert first == second
    types = {resource["Type"] for resource in first["Resources"].values()}
    assert not any("CloudWatch" in name or "QueryDefinition" in name for name in types)
