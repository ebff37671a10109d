"""What docs/operations.md shows and says is so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cdk_vm_import import ImportedVmImage, VmImportProvider
from contract import METRIC_NAMESPACE, Dimension, Metric

PAGE = (Path(__file__).parents[1] / "docs/operations.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The properties of the resources of the stack that the snippets create, by type."""
    folder = tmp_path_factory.mktemp("operations")
    app = folder / "app.py"
    app.write_text("".join([*SNIPPETS, "app.synth()\n"]))
    environment = {**os.environ, "CDK_OUTDIR": str(folder / "cdk.out")}
    subprocess.run([sys.executable, app], check=True, env=environment, cwd=folder)
    template = json.loads((folder / "cdk.out/GoldenImages.template.json").read_text())
    found: dict[str, list[dict[str, Any]]] = {}
    for resource in template["Resources"].values():
        found.setdefault(resource["Type"], []).append(resource.get("Properties", {}))
    return found


def test_each_alarm_of_the_snippets_is_ok_without_values(
    resources: dict[str, list[dict[str, Any]]],
) -> None:
    failed, unanswered = resources["AWS::CloudWatch::Alarm"]

    assert [alarm["TreatMissingData"] for alarm in (failed, unanswered)] == ["notBreaching"] * 2
    assert (failed["Namespace"], failed["MetricName"]) == (METRIC_NAMESPACE, Metric.FAILED)
    assert len(failed["AlarmActions"]) == 1
    assert unanswered["MetricName"] == "ExecutionsFailed"


def test_the_snippets_create_a_dashboard_three_queries_and_a_rule(
    resources: dict[str, list[dict[str, Any]]],
) -> None:
    assert len(resources["AWS::CloudWatch::Dashboard"]) == 1
    assert len(resources["AWS::Logs::QueryDefinition"]) == 3
    (rule,) = resources["AWS::Events::Rule"]
    assert rule["EventPattern"]["source"] == ["aws.imagebuilder"]


def test_the_names_of_the_page_are_those_of_the_library() -> None:
    methods = re.findall(r"`(image|provider)\.(\w+)\(", PAGE)

    assert len(methods) > 4
    classes = {"image": ImportedVmImage, "provider": VmImportProvider}
    assert [name for owner, name in methods if not hasattr(classes[owner], name)] == []
    assert all(f"`{name}`" in PAGE for name in [METRIC_NAMESPACE, *Metric, *Dimension])


def test_the_page_and_the_helpers_say_that_events_are_sent_on_a_best_effort_basis() -> None:
    assert "on a best effort basis" in PAGE
    assert "best effort basis" in str(ImportedVmImage.on_state_change.__doc__)
    for method in (ImportedVmImage.on_available, ImportedVmImage.on_failed):
        assert "See `on_state_change`" in str(method.__doc__)
