from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_cloudwatch as cloudwatch
from cdk_nag import AwsSolutionsChecks

from cdk_vm_import import VmImportDashboard, VmImportProvider

if TYPE_CHECKING:
    from pathlib import Path

    from tests.construct.conftest import ImportImage, NewApp, ResourcesOf

DASHBOARD = "AWS::CloudWatch::Dashboard"


def dashboard(stack: cdk.Stack) -> dict[str, Any]:
    """The body of the dashboard, with references as `${logical id}`."""
    (found,) = assertions.Template.from_stack(stack).find_resources(DASHBOARD).values()
    body = found["Properties"]["DashboardBody"]
    parts = body["Fn::Join"][1] if isinstance(body, dict) else [body]
    text = "".join(p if isinstance(p, str) else f"${{{p['Ref']}}}" for p in parts)
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def widgets(stack: cdk.Stack) -> dict[str, dict[str, Any]]:
    """The properties of the widgets, by title."""
    found = [widget["properties"] for widget in dashboard(stack)["widgets"]]
    return {properties["title"]: properties for properties in found}


def test_the_dashboard_shows_running_imports_past_imports_and_errors(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack)
    VmImportDashboard(stack, "Imports")

    assert list(widgets(stack)) == [
        "Running imports",
        "Duration",
        "Failed imports",
        "Past imports",
        "Errors of the provider",
    ]
    assert dashboard(stack)["start"] == "-P1D"


@pytest.mark.parametrize("title", ["Running imports", "Past imports"])
def test_the_tables_query_the_log_of_the_provider(stack: cdk.Stack, title: str) -> None:
    VmImportDashboard(stack, "Imports")

    query = widgets(stack)[title]["query"]
    assert query.startswith("SOURCE '${VmImportProviderLogGroup884847F1}' | fields @timestamp, ")
    assert widgets(stack)[title]["view"] == "table"


@pytest.mark.parametrize(
    ("title", "metric", "statistic"),
    [("Duration", "Duration", "Maximum"), ("Failed imports", "Failed", "Sum")],
)
def test_the_graphs_find_the_metrics_of_all_images_by_the_name_of_the_stack(
    app: cdk.App, title: str, metric: str, statistic: str
) -> None:
    stack = cdk.Stack(app, "Stack", stack_name="golden-images")
    VmImportDashboard(stack, "Imports")

    ((source,),) = widgets(stack)[title]["metrics"]
    assert source == {
        "expression": "SEARCH('{CdkVmImport,Stack,Resource} "
        f'MetricName="{metric}" Stack="golden-images"\', \'{statistic}\', 300)',
        "label": "${PROP('Dim.Resource')}",
    }


def test_the_dashboard_has_the_same_size_for_one_image_and_for_many(
    new_app: NewApp, import_image: ImportImage
) -> None:
    one, many = (cdk.Stack(new_app(), "Stack") for _ in range(2))
    for stack, count in ((one, 1), (many, 100)):
        VmImportDashboard(stack, "Imports")
        for number in range(count):
            import_image(stack, f"Image{number}", semantic_version=f"1.0.{number}")

    assert dashboard(many) == dashboard(one)


def test_the_errors_are_those_of_the_function_and_of_the_state_machine(stack: cdk.Stack) -> None:
    VmImportDashboard(stack, "Imports")

    function, executions = widgets(stack)["Errors of the provider"]["metrics"]
    assert function[:4] == [
        "AWS/Lambda",
        "Errors",
        "FunctionName",
        "${VmImportProviderHandlerD6951CDD}",
    ]
    assert executions[:4] == [
        "AWS/States",
        "ExecutionsFailed",
        "StateMachineArn",
        "${VmImportProviderEventStateMachine79B5AC06}",
    ]


def test_a_dashboard_of_another_provider_shows_its_log(stack: cdk.Stack) -> None:
    provider = VmImportProvider(stack, "Mine")
    VmImportDashboard(stack, "Imports", provider=provider, dashboard_name="imports")

    log_group = stack.resolve(provider.log_group.log_group_name)["Ref"]
    assert f"SOURCE '${{{log_group}}}'" in widgets(stack)["Running imports"]["query"]
    assert stack.node.try_find_child("VmImportProvider") is None


def test_a_dashboard_does_not_create_a_provider_in_a_stack_that_has_another(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack, provider=VmImportProvider(stack, "Mine"))

    with pytest.raises(ValueError, match=r"^Stack/Imports: the stack has .* 'Stack/Mine': name"):
        VmImportDashboard(stack, "Imports")
    assert stack.node.try_find_child("VmImportProvider") is None

    VmImportDashboard(stack, "Imports", provider=VmImportProvider.get_or_create(stack))


def test_a_dashboard_shows_the_shared_provider_of_a_stack_that_has_another_too(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    import_image(stack, "First", provider=VmImportProvider(stack, "Mine"))
    import_image(stack, "Second", semantic_version="2.0.0")
    VmImportDashboard(stack, "Imports")

    assert len(resources_of(stack, "AWS::Lambda::Function")) == 2


def test_a_provider_after_the_dashboard_that_needed_one_is_an_error(stack: cdk.Stack) -> None:
    VmImportDashboard(stack, "Imports")

    with pytest.raises(ValueError, match="an image, a task or a dashboard needed it before"):
        VmImportProvider(stack, "VmImportProvider")


def test_a_dashboard_uses_the_provider_that_the_images_share(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    VmImportDashboard(stack, "Imports")
    import_image(stack)

    assert len(resources_of(stack, "AWS::Lambda::Function")) == 1


def test_a_dashboard_can_have_a_name_that_is_a_token(
    stack: cdk.Stack, resources_of: ResourcesOf
) -> None:
    name = cdk.CfnParameter(stack, "Name").value_as_string
    VmImportDashboard(stack, "Imports", dashboard_name=name)

    (found,) = resources_of(stack, DASHBOARD).values()
    assert found["Properties"]["DashboardName"] == {"Ref": "Name"}


@pytest.mark.parametrize("name", ["", "a b", "a" * 256, "a/b", 5, []])
def test_a_name_that_cloudwatch_refuses_is_an_error(stack: cdk.Stack, name: Any) -> None:
    with pytest.raises(ValueError, match=r"^Stack/Imports: dashboard_name .* is not valid: use 1"):
        VmImportDashboard(stack, "Imports", dashboard_name=name)


def test_a_provider_of_another_stack_is_an_error(app: cdk.App, stack: cdk.Stack) -> None:
    provider = VmImportProvider(cdk.Stack(app, "Other"), "Provider")

    with pytest.raises(ValueError, match="provider Other/Provider belongs to another stack"):
        VmImportDashboard(stack, "Imports", provider=provider)


def test_users_can_add_widgets(stack: cdk.Stack) -> None:
    imports = VmImportDashboard(stack, "Imports")
    imports.dashboard.add_widgets(cloudwatch.SingleValueWidget(title="Mine", metrics=[]))

    assert "Mine" in widgets(stack)


def test_cdk_nag_finds_nothing_more_with_a_dashboard_and_with_saved_queries(
    new_app: NewApp, import_image: ImportImage, tmp_path: Path
) -> None:
    def findings(folder: Path, *, is_watched: bool) -> list[str]:
        app = new_app(outdir=str(folder))
        stack = cdk.Stack(app, "Stack")
        image = import_image(stack)
        if is_watched:
            VmImportDashboard(stack, "Imports")
            image.add_query_definition()
            VmImportProvider.get_or_create(stack).add_query_definitions()
        cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
        with suppress(RuntimeError):  # the findings of the provider
            app.synth()
        (report,) = folder.glob("*validation-report.json")
        return [
            violation["ruleName"]
            for plugin in json.loads(report.read_text())["pluginReports"]
            for violation in plugin["violations"]
        ]

    plain = findings(tmp_path / "plain", is_watched=False)
    assert plain
    assert findings(tmp_path / "watched", is_watched=True) == plain
