"""docs/permissions.md lists what cdk-nag and checkov find, and how to acknowledge each finding."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pytest

from nag.__main__ import table
from nag.findings import PACKS, Finding, find, find_with_checkov
from nag.templates import ROOT, TEMPLATES, hardened

if TYPE_CHECKING:
    from collections.abc import Callable

    import aws_cdk as cdk

    Build = Callable[[cdk.App], cdk.Stack]

PAGE: Final = (ROOT / "docs/permissions.md").read_text()
WITH_TASK: Final = TEMPLATES["ImportedVmImage with VmImportTask"]
# The lines of code between the lists, each with what one line acknowledges.
LINES: Final = re.findall(r"^(?:nag|disks|role)\..*$", PAGE, re.MULTILINE)
SETUP: Final = re.findall(r"^(?:from|nag|disks|role)\b[^.\n]* (?:import|=) .*$", PAGE, re.MULTILINE)
OF_PROVIDER: Final = [line for line in LINES if line.startswith("nag.")]
OF_ROLE: Final = [line for line in LINES if line.startswith("disks.")]
OF_CHECKOV: Final = [line for line in LINES if line.startswith("role.")]


def acknowledging(build: Build, *lines: str) -> Build:
    """A stack in which lines of the page are executed."""

    def call(app: cdk.App) -> cdk.Stack:
        stack = build(app)
        names: dict[str, Any] = {
            "stack": stack,
            "provider": stack.node.find_child("VmImportProvider"),
        }
        of_role = any(line.startswith("disks.") or "CKV_AWS_109" in line for line in lines)
        for line in SETUP:
            if ("VmImportTaskRole" in line) <= of_role:
                exec(line, names)  # noqa: S102 - code of our own page
        for line in lines:
            exec(line, names)  # noqa: S102 - code of our own page
        return stack

    return call


def named(rule: str) -> str:
    """A rule without its pack, as the page names it, but with the pack for AwsSolutions."""
    pack = next((pack for pack in PACKS if rule.startswith(f"{pack}-")), "")
    return rule if pack in {"", "AwsSolutions"} else rule.removeprefix(f"{pack}-")


@pytest.fixture(scope="module")
def of_hardened() -> list[Finding]:
    return find(hardened)


@pytest.fixture(scope="module")
def of_task() -> list[Finding]:
    return find(WITH_TASK)


@pytest.mark.parametrize("line", OF_PROVIDER)
def test_a_line_of_the_page_silences_one_finding_of_the_hardened_example(
    of_hardened: list[Finding], line: str
) -> None:
    (pack,) = (name for name in PACKS if f'"{name}::' in line)
    before = {finding for finding in of_hardened if finding.pack == pack}

    silenced = before - {*find(acknowledging(hardened, line), {pack: PACKS[pack]})}

    assert len({finding.rule for finding in silenced}) == 1


def test_with_all_lines_of_the_page_cdk_nag_finds_nothing_in_the_hardened_example() -> None:
    assert find(acknowledging(hardened, *OF_PROVIDER)) == []


@pytest.mark.parametrize("line", OF_ROLE)
def test_a_line_of_the_page_silences_one_finding_of_the_role_of_vm_import(
    of_task: list[Finding], line: str
) -> None:
    (pack,) = (name for name in PACKS if f'"{name}::' in line)
    before = {finding for finding in of_task if finding.pack == pack}

    (silenced,) = before - {*find(acknowledging(WITH_TASK, line), {pack: PACKS[pack]})}

    assert silenced.construct == "VmImportTaskRole/Resource"


def test_with_all_lines_of_the_page_only_findings_with_an_argument_remain_with_a_task() -> None:
    left = find(acknowledging(WITH_TASK, *OF_PROVIDER, *OF_ROLE))

    rows = re.search(r"^\| finding \| argument \|\n(.*?)\n\n", PAGE, re.DOTALL | re.MULTILINE)
    assert rows
    with_argument = re.findall(r"^\| `([\w.-]+)`", rows[1], re.MULTILINE)
    assert {named(finding.rule) for finding in left} == {*with_argument}


def test_the_arguments_of_the_page_remove_the_findings_in_the_hardened_example(
    of_hardened: list[Finding],
) -> None:
    remaining = {named(finding.rule).partition("[")[0] for finding in of_hardened}

    assert remaining == {"AwsSolutions-IAM5", "IAMNoInlinePolicy"}


@pytest.mark.slow
def test_the_page_has_the_table_of_make_nag() -> None:
    assert "\n".join(table()) in PAGE


@pytest.mark.slow
def test_the_page_lists_the_findings_of_checkov_with_their_arguments() -> None:
    found = {finding.rule for finding in find_with_checkov(TEMPLATES["ImportedVmImage, 1 hour"])}

    assert found == {*re.findall(r"^\| .*`(CKV_AWS_\d+)` \|", PAGE, re.MULTILINE)}


@pytest.mark.slow
def test_with_the_lines_of_the_page_checkov_finds_nothing_that_has_no_argument() -> None:
    of_provider, of_role = OF_CHECKOV
    with_argument = {*re.findall(r"^\| .*`(CKV_AWS_\d+)` \|", PAGE, re.MULTILINE)}

    assert {f.rule for f in find_with_checkov(hardened)} == {"CKV_AWS_111"}
    assert find_with_checkov(acknowledging(hardened, of_provider)) == []
    left = find_with_checkov(acknowledging(WITH_TASK, of_role))
    assert {finding.rule for finding in left} == with_argument
