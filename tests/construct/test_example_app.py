from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

import app as example
from local_aws.client.prerequisites import raw_disk

ROOT = Path(__file__).parents[2]
TASK = {"vm_import_task_id": "import-ami-0123456789abcdef0"}


def synthesize(folder: Path, **context: str) -> dict[str, Any]:
    flags = json.loads((ROOT / "cdk.json").read_text())["context"]
    source = {} if "disk" in context else TASK
    example.main(cdk.App(outdir=str(folder), context=flags | source | context))
    template: dict[str, Any] = json.loads((folder / "GoldenImage.template.json").read_text())
    return template


@pytest.fixture
def disk(tmp_path: Path) -> str:
    path = tmp_path / "rhel9.raw"
    path.write_bytes(raw_disk(1))
    return str(path)


def resource(template: dict[str, Any], resource_type: str) -> dict[str, Any]:
    (found,) = (r for r in template["Resources"].values() if r["Type"] == resource_type)
    return dict(found)


def test_the_disk_alone_is_imported_and_makes_an_image_and_a_recipe_on_it(
    tmp_path: Path, disk: str
) -> None:
    template = synthesize(tmp_path / "cdk.out", disk=disk)

    task = resource(template, "Custom::VmImportTask")["Properties"]
    image = resource(template, "Custom::ImportedVmImage")["Properties"]
    recipe = resource(template, "AWS::ImageBuilder::ImageRecipe")["Properties"]
    (container,) = task["DiskContainers"]
    assert container["Format"] == "RAW"
    assert container["UserBucket"]["S3Key"].endswith(".raw")
    assert (task["Platform"], task["LicenseType"]) == ("Linux", "BYOL")
    assert image["VmImportTaskId"]["Fn::GetAtt"][1] == "ImportTaskId"
    assert recipe["ParentImage"] == {"Fn::GetAtt": ["Image9D742C96", "ImageArn"]}


def test_the_disk_of_a_windows_server_gets_a_licence_of_aws(tmp_path: Path, disk: str) -> None:
    template = synthesize(tmp_path / "cdk.out", disk=disk, platform="Windows")

    task = resource(template, "Custom::VmImportTask")["Properties"]
    assert (task["Platform"], task["LicenseType"]) == ("Windows", "AWS")


def test_an_image_of_a_disk_has_the_same_logical_id_as_one_of_a_task(
    tmp_path: Path, disk: str
) -> None:
    of_disk = synthesize(tmp_path / "of_disk", disk=disk)
    of_task = synthesize(tmp_path / "of_task")

    shared = {"Image9D742C96", "VmImportProviderHandlerD6951CDD"}
    assert shared <= of_disk["Resources"].keys() & of_task["Resources"].keys()


def test_the_task_alone_makes_an_image_and_a_recipe_on_it(tmp_path: Path) -> None:
    template = synthesize(tmp_path)

    image = resource(template, "Custom::ImportedVmImage")
    recipe = resource(template, "AWS::ImageBuilder::ImageRecipe")["Properties"]
    assert image["DeletionPolicy"] == "RetainExceptOnCreate"
    assert image["Properties"]["Name"] == "rhel9-golden"
    assert recipe["ParentImage"] == {"Fn::GetAtt": ["Image9D742C96", "ImageArn"]}
    assert recipe["Version"] == "1.0.0"
    assert set(template["Outputs"]) == {"ImageImageArnCD42D5A5", "RecipeArn"}


def test_the_context_says_what_to_import(tmp_path: Path) -> None:
    template = synthesize(
        tmp_path,
        image_name="win",
        semantic_version="2.0.1",
        platform="windows",
        removal_policy="destroy",
        tags="team=platform,note=a=b",
    )

    image = resource(template, "Custom::ImportedVmImage")
    recipe = resource(template, "AWS::ImageBuilder::ImageRecipe")["Properties"]
    said = {"Name", "SemanticVersion", "Platform", "VmImportTaskId", "Tags"}
    assert image["DeletionPolicy"] == "Delete"
    assert {name: image["Properties"][name] for name in said} == {
        "Name": "win",
        "SemanticVersion": "2.0.1",
        "Platform": "Windows",
        "VmImportTaskId": TASK["vm_import_task_id"],
        "Tags": {"team": "platform", "note": "a=b"},
    }
    assert recipe["Version"] == "2.0.1"
    assert "component/update-windows/x.x.x" in json.dumps(recipe["Components"])


def test_an_image_of_macos_gets_a_recipe_without_components(tmp_path: Path) -> None:
    template = synthesize(tmp_path, platform="macOS")

    assert "Components" not in resource(template, "AWS::ImageBuilder::ImageRecipe")["Properties"]


@pytest.mark.parametrize(
    ("minutes", "names"),
    [
        ("0", set()),
        ("30", {"TimeoutSeconds"}),
        ("720", {"TimeoutSeconds", "WaitHandle"}),
    ],
)
def test_the_context_says_how_long_to_wait(tmp_path: Path, minutes: str, names: set[str]) -> None:
    template = synthesize(tmp_path, timeout_minutes=minutes)

    properties = resource(template, "Custom::ImportedVmImage")["Properties"]
    assert {"TimeoutSeconds", "WaitHandle"} & set(properties) == names


@pytest.mark.parametrize(
    ("context", "problem"),
    [
        ({"platform": "Solaris"}, "platform 'Solaris' is none of windows, linux, macos"),
        (
            {"removal_policy": "keep"},
            "removal_policy 'keep' is none of retain_on_update_or_delete, destroy",
        ),
        ({"tags": "team"}, "tags 'team' are not key=value,key2=value2"),
        ({"timeout_minutes": "1h"}, "timeout_minutes '1h' is no whole number"),
    ],
)
def test_a_wrong_context_value_ends_the_app_with_one_line(
    tmp_path: Path, context: dict[str, str], problem: str
) -> None:
    with pytest.raises(SystemExit, match=f"^app.py: {problem}.*$"):
        synthesize(tmp_path, **context)


@pytest.mark.parametrize("context", [{}, {**TASK, "disk": "rhel9.vmdk"}], ids=["none", "both"])
def test_the_app_asks_for_either_a_disk_or_a_task(
    context: dict[str, str],
) -> None:
    run = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=os.environ
        | {
            "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1",
            "CDK_CONTEXT_JSON": json.dumps(context),
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.splitlines()[-1] == (
        "app.py: give either -c disk=path/to/disk.vmdk or -c vm_import_task_id=import-ami-..."
    )


@pytest.mark.parametrize("minutes", ["0", "60", "720"])
@pytest.mark.parametrize("source", ["disk", "task"])
def test_cfn_lint_has_nothing_to_say_about_the_template(
    tmp_path: Path, disk: str, source: str, minutes: str
) -> None:
    given = {"disk": disk} if source == "disk" else TASK
    synthesize(tmp_path / "cdk.out", tags="team=platform", timeout_minutes=minutes, **given)

    # W3005: CDK lets a function depend on its role in so many words. E1022: by the schema of a
    # wait condition its data are an object, but CloudFormation gives them as text, as its user
    # guide shows.
    run = subprocess.run(
        [
            Path(sys.executable).with_name("cfn-lint"),
            "--ignore-checks=W3005,E1022",
            tmp_path / "cdk.out" / "GoldenImage.template.json",
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (run.returncode, run.stdout) == (0, "")
