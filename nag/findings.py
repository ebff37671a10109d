"""The findings of cdk-nag's packs and of checkov in a stack."""

from __future__ import annotations

import json
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aws_cdk as cdk
from cdk_nag import (
    AwsSolutionsChecks,
    HIPAASecurityChecks,
    NIST80053R4Checks,
    NIST80053R5Checks,
    PCIDSS321Checks,
)

from nag.templates import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PACKS: Final = {
    "AwsSolutions": AwsSolutionsChecks,
    "HIPAA.Security": HIPAASecurityChecks,
    "NIST.800.53.R4": NIST80053R4Checks,
    "NIST.800.53.R5": NIST80053R5Checks,
    "PCI.DSS.321": PCIDSS321Checks,
}
CHECKOV: Final = ROOT / ".checkov/bin/checkov"


@dataclass(frozen=True, order=True)
class Finding:
    """What a pack finds in a construct, or checkov in a resource.

    Attributes:
        pack: The pack, or checkov.
        rule: Id of the rule, and in brackets what it complains about.
        construct: Path of the construct in its stack, or logical id of the resource.
    """

    pack: str
    rule: str
    construct: str


def find(build: Callable[[cdk.App], cdk.Stack], packs: Mapping[str, type] = PACKS) -> list[Finding]:
    """Return the findings of packs in a stack.

    Args:
        build: Creates the stack in an app.
        packs: The packs by name.
    """
    with tempfile.TemporaryDirectory() as folder:
        app = cdk.App(outdir=folder)
        stack = build(app)
        cdk.Validations.of(app).add_plugins(*(pack(app) for pack in packs.values()))
        # Findings are errors of the synthesis.
        with suppress(RuntimeError):
            app.synth()
        (report,) = Path(folder).glob("*validation-report.json")
        plugins = json.loads(report.read_text())["pluginReports"]
    return sorted(
        Finding(plugin["pluginName"], violation["ruleName"], _within(stack, construct))
        for plugin in plugins
        if plugin["pluginName"] in packs
        for violation in plugin["violations"]
        for construct in violation["violatingConstructs"]
    )


def find_with_checkov(build: Callable[[cdk.App], cdk.Stack]) -> list[Finding]:
    """Return the findings of checkov in the template of a stack.

    Raises:
        FileNotFoundError: `make nag` has not installed checkov yet.
    """
    with tempfile.TemporaryDirectory() as folder:
        app = cdk.App(outdir=folder)
        template = Path(folder) / build(app).template_file
        app.synth()
        command = [str(CHECKOV), "--file", str(template), "--framework", "cloudformation"]
        options = ["--output", "json", "--quiet", "--compact", "--soft-fail", "--skip-download"]
        found = subprocess.run([*command, *options], capture_output=True, text=True, check=True)  # noqa: S603 - our own command
    report = json.loads(found.stdout)
    if report["summary"]["parsing_errors"] or not report["summary"]["resource_count"]:
        raise RuntimeError(f"checkov did not read the template: {found.stdout}")
    return sorted(
        Finding("checkov", check["check_id"], check["resource"].partition(".")[2])
        for check in report["results"]["failed_checks"]
    )


def _within(stack: cdk.Stack, construct: Mapping[str, str]) -> str:
    return construct["constructPath"].removeprefix(f"{stack.node.path}/")
