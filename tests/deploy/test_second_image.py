"""The apps that we show, deployed again with another disk and with another version.

Each has all feature flags of a project made by `cdk init`, and is deployed with the roles of the
bootstrap stack, on whose permissions the simulated AWS insists.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from contract import ResourceType
from local_aws.client.cdk_cli import CdkCli
from local_aws.client.environment import CHECKOUT
from tests.construct.conftest import INIT_FLAGS
from tests.deploy.deployed import Account, StackView, played
from tests.disks.real_disks import real_disk

if TYPE_CHECKING:
    from pathlib import Path

    from local_aws import LocalAws

pytestmark = pytest.mark.slow

BUCKET = "my-vm-disks"
CONNECTION = "arn:aws:codeconnections:us-east-1:123456789012:connection/1234"
VERSION = 'semantic_version="1.0.0"'
RECIPE = "AWS::ImageBuilder::ImageRecipe"
PIPELINE = "AWS::ImageBuilder::ImagePipeline"


@pytest.fixture(scope="module", autouse=True)
def disks(local: LocalAws, account: Account) -> None:
    local.knobs(import_seconds=120, image_watch_seconds=1, cancel_seconds=1)
    account.s3.create_bucket(Bucket=BUCKET)
    for key in ("first.vmdk", "second.vmdk", "system.vhdx", "data.vhdx", "system2.vhdx"):
        disk = real_disk("VHDX" if key.endswith("vhdx") else "VMDK")
        account.s3.put_object(Bucket=BUCKET, Key=key, Body=disk)


class App:
    """An app of ours with one image, which is deployed several times.

    Args:
        account: The account.
        folder: An empty folder.
        stack: The name of the stack that imports the image.
        consumer: The name of the stack that uses the image. Default: the same.
        assembly: The part of the cloud assembly that is deployed. Default: all.
    """

    def __init__(
        self, account: Account, folder: Path, stack: str, *, consumer: str = "", assembly: str = ""
    ) -> None:
        self.account, self._folder = account, folder
        self.stack, self.consumer = (
            StackView(account, name) for name in (stack, consumer or stack)
        )
        self._cdk = CdkCli(account.local, folder, app=str(folder / "synthesized" / assembly))

    def deploy(self, app: str, **context: str) -> str:
        """Deploy an app; return the ARN of the image, which its recipes build on."""
        (self._folder / "app.py").write_text(app)
        outside = {
            "CDK_OUTDIR": str(self._folder / "synthesized"),
            "CDK_CONTEXT_JSON": json.dumps(json.loads(INIT_FLAGS.read_text()) | context),
        }
        command = [sys.executable, "app.py"]
        subprocess.run(command, check=True, env={**os.environ, **outside}, cwd=self._folder)
        with ThreadPoolExecutor(max_workers=1) as executor:
            deployment = executor.submit(self._cdk.deploy)
            assert played(self.account.local, deployment.done, hours=100)
        deployment.result()
        (image,) = self.stack.resources(ResourceType.IMAGE).values()
        recipes = self.consumer.resources(RECIPE).values()
        for recipe in recipes:
            described = self.account.images.get_image_recipe(imageRecipeArn=recipe)
            # The parent may be the latest image.
            parent = self.account.image(described["imageRecipe"]["parentImage"])
            assert (parent or {})["arn"] == image
        for pipeline in self.consumer.resources(PIPELINE).values():
            described = self.account.images.get_image_pipeline(imagePipelineArn=pipeline)
            assert [described["imagePipeline"]["imageRecipeArn"]] == [*recipes]
        assert (self.account.image(image) or {})["state"]["status"] == "AVAILABLE"
        return image

    def destroy(self) -> None:
        self._cdk.destroy()


def of_next_version(app: str) -> str:
    assert app.count(VERSION) == 1
    return app.replace(VERSION, 'semantic_version="1.1.0"')


def version(image: str) -> str:
    return image.split("/")[2]


def test_the_recipe_and_pipeline(account: Account, tmp_path: Path) -> None:
    text = (CHECKOUT / "examples/recipe_and_pipeline.py").read_text()
    app = App(account, tmp_path, "RecipeAndPipeline")
    first = app.deploy(text, bucket=BUCKET, key="first.vmdk")

    second = app.deploy(text, bucket=BUCKET, key="second.vmdk")
    third = app.deploy(of_next_version(text), bucket=BUCKET, key="second.vmdk")

    assert [account.image(first), account.image(second)] == [None, None]
    assert version(third) == "1.1.0"
    app.destroy()


def test_the_local_file_encrypted(account: Account, tmp_path: Path) -> None:
    text = (CHECKOUT / "examples/local_file_encrypted.py").read_text()
    app, disk = App(account, tmp_path, "LocalFileEncrypted"), tmp_path / "rhel9.vmdk"
    disk.write_bytes(real_disk("VMDK"))
    first = app.deploy(text, disk=str(disk))

    disk.write_bytes(real_disk("VMDK") + bytes(512))
    second = app.deploy(text, disk=str(disk))
    third = app.deploy(of_next_version(text), disk=str(disk))

    assert len({first, second, third}) == 3
    assert all(map(account.image, (first, second)))  # retained
    app.destroy()


def test_the_two_disk_windows_server(account: Account, tmp_path: Path) -> None:
    text = (CHECKOUT / "examples/two_disk_windows_server.py").read_text()
    app = App(account, tmp_path, "TwoDiskWindowsServer")
    first = app.deploy(text, bucket=BUCKET)

    second = app.deploy(text.replace("system.vhdx", "system2.vhdx"), bucket=BUCKET)
    third = app.deploy(of_next_version(text), bucket=BUCKET)

    assert len({first, second, third}) == 3
    app.destroy()


def test_the_image_in_another_stack(account: Account, tmp_path: Path) -> None:
    text = (CHECKOUT / "examples/image_in_another_stack.py").read_text()
    app = App(account, tmp_path, "GoldenImage", consumer="WebServers")
    images, versions = [], []
    for example, key in (
        (text, "first.vmdk"),
        (text, "second.vmdk"),
        (of_next_version(text), "second.vmdk"),
    ):
        images.append(app.deploy(example, bucket=BUCKET, key=key))
        versions.append([*app.consumer.resources(RECIPE).values()])
        parameter = account.ssm.get_parameter(Name="/images/rhel9-golden")["Parameter"]
        assert parameter["Value"] == account.ami_of(images[-1])

    assert len(set(images)) == 3
    assert versions[0] == versions[1] == versions[2]  # the other stack has not changed
    app.destroy()


# CodePipeline deploys what the pipeline's stage has, as `cdk deploy` does here: the same assembly,
# with the same roles. The pipeline itself is not deployed.
def test_the_pipeline_stage(account: Account, tmp_path: Path) -> None:
    text = (CHECKOUT / "examples/pipeline_stage.py").read_text()
    app = App(account, tmp_path, "Live-GoldenImage", assembly="assembly-Pipeline-Live")
    disk = tmp_path / "rhel9.vmdk"
    disk.write_bytes(real_disk("VMDK"))
    context = {"repository": "my-org/images", "connection": CONNECTION}
    first = app.deploy(text, disk=str(disk), **context)

    disk.write_bytes(real_disk("VMDK") + bytes(512))
    second = app.deploy(text, disk=str(disk), **context)
    third = app.deploy(of_next_version(text), disk=str(disk), **context)

    assert len({first, second, third}) == 3
    app.destroy()


def test_the_example_app(account: Account, tmp_path: Path) -> None:
    text = (CHECKOUT / "app.py").read_text()
    app, disk = App(account, tmp_path, "GoldenImage"), tmp_path / "rhel9.vmdk"
    disk.write_bytes(real_disk("VMDK"))
    first = app.deploy(text, disk=str(disk))

    disk.write_bytes(real_disk("VMDK") + bytes(512))
    second = app.deploy(text, disk=str(disk))
    third = app.deploy(text, disk=str(disk), semantic_version="1.1.0")

    assert len({first, second, third}) == 3
    app.destroy()


def test_the_first_snippet_of_the_readme(account: Account, tmp_path: Path) -> None:
    text = re.findall(r"```python\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)[0]
    app = App(account, tmp_path, "GoldenImages")
    texts = [text.replace("import-ami-0123456789abcdef0", account.import_image()) for _ in range(2)]
    first = app.deploy(texts[0])

    second = app.deploy(texts[1])
    third = app.deploy(of_next_version(texts[1]))

    assert len({first, second, third}) == 3
    app.destroy()
