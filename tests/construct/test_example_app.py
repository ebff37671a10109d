from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

import app as example
from contract import ImageAttribute, ImageProperty, ResourceType, TaskAttribute, TaskProperty
from local_aws.client.prerequisites import raw_disk

if TYPE_CHECKING:
    from tests.construct.conftest import NewApp

ROOT = Path(__file__).parents[2]
TASK = {"vm_import_task_id": "import-ami-0123456789abcdef0"}


class Synthesize(Protocol):
    def __call__(self, folder: Path, **context: str) -> dict[str, Any]: ...


@pytest.fixture
def synthesize(new_app: NewApp) -> Synthesize:
    """Synthesizes the example app with context values, and returns its template."""

    def call(folder: Path, **context: str) -> dict[str, Any]:
        source = {} if "disk" in context else TASK
        example.main(new_app(outdir=str(folder), context=source | context))
        template: dict[str, Any] = json.loads((folder / "GoldenImage.template.json").read_text())
        return template

    return call


@pytest.fixture
def disk(tmp_path: Path) -> str:
    path = tmp_path / "rhel9.raw"
    path.write_bytes(raw_disk(1))
    return str(path)


def resource(template: dict[str, Any], resource_type: str) -> dict[str, Any]:
    (found,) = (r for r in template["Resources"].values() if r["Type"] == resource_type)
    return dict(found)


def test_with_a_disk_the_app_imports_it_and_creates_an_image_and_a_recipe(
    synthesize: Synthesize, tmp_path: Path, disk: str
) -> None:
    template = synthesize(tmp_path / "cdk.out", disk=disk)

    task = resource(template, ResourceType.IMPORT_TASK)["Properties"]
    image = resource(template, ResourceType.IMAGE)["Properties"]
    recipe = resource(template, "AWS::ImageBuilder::ImageRecipe")["Properties"]
    (container,) = task[TaskProperty.DISK_CONTAINERS]
    assert container["Format"] == "RAW"
    assert container["UserBucket"]["S3Key"].endswith(".raw")
    assert (task[TaskProperty.PLATFORM], task[TaskProperty.LICENSE_TYPE]) == ("Linux", "BYOL")
    assert image[ImageProperty.VM_IMPORT_TASK_ID]["Fn::GetAtt"][1] == TaskAttribute.IMPORT_TASK_ID
    assert recipe["ParentImage"] == {"Fn::GetAtt": ["Image9D742C96", ImageAttribute.IMAGE_ARN]}


def test_a_windows_server_gets_the_licence_of_aws(
    synthesize: Synthesize, tmp_path: Path, disk: str
) -> None:
    template = synthesize(tmp_path / "cdk.out", disk=disk, platform="Windows")

    task = resource(template, ResourceType.IMPORT_TASK)["Properties"]
    assert (task[TaskProperty.PLATFORM], task[TaskProperty.LICENSE_TYPE]) == ("Windows", "AWS")


def test_the_logical_ids_are_the_same_with_a_disk_and_with_a_task(
    synthesize: Synthesize, tmp_path: Path, disk: str
) -> None:
    of_disk = synthesize(tmp_path / "of_disk", disk=disk)
    of_task = synthesize(tmp_path / "of_task")

    shared = {"Image9D742C96", "VmImportProviderHandlerD6951CDD"}
    assert shared <= of_disk["Resources"].keys() & of_task["Resources"].keys()


def test_with_a_task_the_app_creates_an_image_and_a_recipe(
    synthesize: Synthesize, tmp_path: Path
) -> None:
    template = synthesize(tmp_path)

    image = resource(template, ResourceType.IMAGE)
    recipe = resource(template, "AWS::ImageBuilder::ImageRecipe")["Properties"]
    assert image["DeletionPolicy"] == "RetainExceptOnCreate"
    assert image["Properties"][ImageProperty.NAME] == "rhel9-golden"
    assert recipe["ParentImage"] == {"Fn::GetAtt": ["Image9D742C96", ImageAttribute.IMAGE_ARN]}
    assert recipe["Version"] == "1.0.x"
    assert set(template["Outputs"]) == {"ImageImageArnCD42D5A5", "RecipeArn"}


def test_context_values_describe_the_image(synthesize: Synthesize, tmp_path: Path) -> None:
    template = synthesize(
        tmp_path,
        image_name="win",
        semantic_version="2.0.1",
        platform="windows",
        removal_policy="destroy",
        tags="team=platform,note=a=b",
    )

    image = resource(template, ResourceType.IMAGE)
    recipe = resource(template, "AWS::ImageBuilder::ImageRecipe")["Properties"]
    shown = {
        ImageProperty.NAME,
        ImageProperty.SEMANTIC_VERSION,
        ImageProperty.PLATFORM,
        ImageProperty.VM_IMPORT_TASK_ID,
        ImageProperty.TAGS,
    }
    assert image["DeletionPolicy"] == "Delete"
    assert {name: image["Properties"][name] for name in shown} == {
        ImageProperty.NAME: "win",
        ImageProperty.SEMANTIC_VERSION: "2.0.1",
        ImageProperty.PLATFORM: "Windows",
        ImageProperty.VM_IMPORT_TASK_ID: TASK["vm_import_task_id"],
        ImageProperty.TAGS: {"team": "platform", "note": "a=b"},
    }
    assert recipe["Name"] == "win-updated"
    assert "component/update-windows/x.x.x" in json.dumps(recipe["Components"])


def test_the_recipe_of_a_macos_image_has_no_components(
    synthesize: Synthesize, tmp_path: Path
) -> None:
    template = synthesize(tmp_path, platform="macOS")

    assert "Components" not in resource(template, "AWS::ImageBuilder::ImageRecipe")["Properties"]


@pytest.mark.parametrize(
    ("minutes", "seconds", "links"), [("0", None, 0), ("30", 1800, 0), ("720", 3600, 11)]
)
def test_a_context_value_sets_the_timeout(
    synthesize: Synthesize, tmp_path: Path, minutes: str, seconds: int | None, links: int
) -> None:
    template = synthesize(tmp_path, timeout_minutes=minutes)

    types = [found["Type"] for found in template["Resources"].values()]
    image = resource(template, ResourceType.IMAGE)["Properties"]
    assert image.get(ImageProperty.TIMEOUT_SECONDS) == seconds
    assert types.count(ResourceType.WAIT) == links


@pytest.mark.parametrize(
    ("context", "problem"),
    [
        (
            {"platform": "Solaris"},
            "platform 'Solaris' is not valid: use one of windows, linux, macos",
        ),
        (
            {"removal_policy": "keep"},
            "removal_policy 'keep' is not valid: use one of retain_on_update_or_delete, d",
        ),
        ({"tags": "team"}, "tags 'team' is not valid: use key=value,key2=value2"),
        ({"timeout_minutes": "1h"}, "timeout_minutes '1h' is not valid: use a whole number"),
    ],
)
def test_an_invalid_context_value_ends_the_app_with_one_line(
    synthesize: Synthesize, tmp_path: Path, context: dict[str, str], problem: str
) -> None:
    with pytest.raises(SystemExit, match=f"^app.py: {problem}.*$"):
        synthesize(tmp_path, **context)


@pytest.mark.parametrize("context", [{}, {**TASK, "disk": "rhel9.vmdk"}], ids=["none", "both"])
def test_the_app_requires_either_a_disk_or_a_task(
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
        "app.py: use either -c disk=path/to/disk.vmdk or -c vm_import_task_id=import-ami-..."
    )


def test_cfn_lint_reports_nothing_about_the_templates(
    synthesize: Synthesize, tmp_path: Path, disk: str
) -> None:
    templates = []
    for minutes in ("0", "60", "720"):
        for source, given in (("disk", {"disk": disk}), ("task", TASK)):
            folder = tmp_path / f"{source}-{minutes}"
            synthesize(folder, tags="team=platform", timeout_minutes=minutes, **given)
            templates.append(folder / "GoldenImage.template.json")

    # W3005: CDK adds a dependency of a function on its role, which the reference already implies.
    run = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), "--ignore-checks=W3005", "--", *templates],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (run.returncode, run.stdout) == (0, "")
