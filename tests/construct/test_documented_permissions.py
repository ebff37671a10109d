"""docs/permissions.md lists each statement of our policies with its actions, and no others.

SECURITY.md lists the actions that CloudFormation's execution role needs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs

from cdk_vm_import import VmDisk, VmImportProvider, VmImportTask
from tests.support.execution_policy import OPERATIONS, execution_policies

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.construct.conftest import ImportImage

Actions = dict[str, set[str]]

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs/permissions.md"
SECURITY: Final = ROOT / "SECURITY.md"
# Each section, and the start of the logical id of the role or the key.
SECTIONS: Final = {
    "The function": "VmImportProviderRole",
    "The state machine": "VmImportProviderEventStateMachineRole",
    "VmImportRole": "VmImportTaskRole",
    "The key of the provider": "Key",
}


def documented(section: str) -> Actions:
    """The actions of each statement in a section of the page."""
    (text,) = re.findall(
        rf"^## {section}\n(.*?)(?=^## )", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", text, re.MULTILINE)
    return {sid: {*re.findall(r"`(\S+)`", actions)} for sid, actions in rows}


@pytest.fixture
def resources(stack: cdk.Stack, import_image: ImportImage) -> dict[str, Any]:
    """The resources of a stack that has all statements."""
    key = kms.Key(stack, "Key")
    VmImportProvider(
        stack,
        "VmImportProvider",
        vpc=ec2.Vpc(stack, "Vpc", restrict_default_security_group=False),
        encryption_key=key,
        dead_letter_queue=sqs.Queue(stack, "Queue", encryption_master_key=key),
        reserved_concurrent_executions=1,
        tracing=lambda_.Tracing.ACTIVE,
        log_executions=True,
    )
    known = s3.Bucket.from_bucket_attributes(
        stack, "Known", bucket_name="known", encryption_key=kms.Key(stack, "OfDisks")
    )
    unknown = s3.Bucket.from_bucket_name(stack, "Unknown", "unknown")
    license_configuration = "license-configuration:lic-0123456789abcdef0123456789abcdef"
    VmImportTask(
        stack,
        "Import",
        disks=[VmDisk.from_bucket(bucket, "a.vmdk") for bucket in (known, unknown)],
        encryption_key=key,
        license_configurations=[
            f"arn:aws:license-manager:us-east-1:123456789012:{license_configuration}"
        ],
    )
    import_image(stack)
    found: dict[str, Any] = assertions.Template.from_stack(stack).to_json()["Resources"]
    return found


def granted(resources: dict[str, Any], prefix: str) -> Actions:
    """The actions of each of our statements, which have a Sid, in the policies of a resource."""
    (properties,) = (
        resource["Properties"]
        for name, resource in resources.items()
        if re.fullmatch(rf"{prefix}[0-9A-F]{{8}}", name)
    )
    documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
    found: Actions = {}
    for document in documents or [properties["KeyPolicy"]]:
        for statement in document["Statement"]:
            if "Sid" in statement:
                actions = statement["Action"]
                found[statement["Sid"]] = {actions} if isinstance(actions, str) else {*actions}
    return found


@pytest.mark.parametrize(("section", "prefix"), SECTIONS.items(), ids=SECTIONS)
def test_the_page_lists_each_statement_with_its_actions(
    resources: dict[str, Any], section: str, prefix: str
) -> None:
    assert documented(section) == granted(resources, prefix)


def test_the_page_has_a_section_for_each_policy_of_ours(resources: dict[str, Any]) -> None:
    roles = {name[:-8] for name, each in resources.items() if each["Type"] == "AWS::IAM::Role"}

    assert {name for name in roles if not name.startswith("Vpc")} == {*SECTIONS.values()} - {"Key"}
    assert not [name for name, each in resources.items() if each["Type"] == "AWS::IAM::Policy"]


def test_security_md_lists_what_the_execution_role_needs(
    new_stack: Callable[[], cdk.Stack], import_image: ImportImage
) -> None:
    plain = new_stack()
    import_image(plain, timeout=cdk.Duration.hours(12))

    needed, _ = execution_tables()
    assert needed == execution_policies(assertions.Template.from_stack(plain).to_json())


def test_security_md_lists_what_settings_of_the_provider_need_in_addition(
    resources: dict[str, Any],
) -> None:
    needed, with_settings = execution_tables()
    found = execution_policies({"Resources": resources})

    assert with_settings == {name: found[name] - needed[name] for name in OPERATIONS}


def execution_tables() -> list[Actions]:
    """The actions of each operation, in each table of SECURITY.md."""
    header = f"| action | {' | '.join(OPERATIONS)} | for |"
    tables = SECURITY.read_text().split(header)[1:]
    found = []
    for table in tables:
        rows = re.findall(r"^\| `(\S+)` \|(.*)\|(.*)\|(.*)\|.*\|$", table, re.MULTILINE)
        found.append(
            {
                operation: {action for action, *marks in rows if marks[index].strip()}
                for index, operation in enumerate(OPERATIONS)
            }
        )
    return found
