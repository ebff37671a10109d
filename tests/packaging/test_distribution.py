"""The wheel, the sdist and an editable install: built, installed and used, without a network."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGE = ROOT / "constructs" / "cdk_vm_import"
HANDLER = ROOT / "lambda" / "vm_import"

SYNTHESIZE = """
import json, sys
before = [*sys.path]
import aws_cdk as cdk
from cdk_vm_import import VmImportProvider, _handler
app = cdk.App(outdir=sys.argv[1])
VmImportProvider(cdk.Stack(app, "Stack"), "Provider")
app.synth()
print(json.dumps({
    "folder": str(_handler.handler_folder()),
    "path": sorted({*sys.path} - {*before}),
    "modules": [name for name in ("contract", "errors", "index") if name in sys.modules],
}))
"""

# assert_type also fails if the wheel loses its types: a name from an unknown module is Any.
USER_APP = """
from typing import assert_type

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_

from cdk_vm_import import ImportedVmImage, Platform, VmDisk, VmImportProvider, VmImportTask

app = cdk.App()
stack = cdk.Stack(app, "GoldenImages")
provider = VmImportProvider(stack, "VmImportProvider", memory_size=512)
assert_type(provider.function, lambda_.Function)
task = VmImportTask(stack, "Import", disks=[VmDisk.from_snapshot("snap-01234567")])
assert_type(task.import_task_id, str)
image = ImportedVmImage(
    stack,
    "Image",
    image_name="rhel9-golden",
    semantic_version="1.0.0",
    platform=Platform.LINUX,
    vm_import_task=task,
    timeout=cdk.Duration.hours(12),
)
assert_type(image.image_arn, str)
assert_type(image.image_id, str)
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(folder: Path, *what: str) -> Path:
    run(sys.executable, "-m", "build", "--no-isolation", *what, "--outdir", folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"), "--wheel")


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return message_from_bytes(archive.read(name))


def install(folder: Path, *what: str | Path) -> Path:
    """Installs into a new environment that also finds the packages of this one."""
    environment = folder / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / Path(sys.executable).parent.name / Path(sys.executable).name
    (site,) = environment.rglob("site-packages")
    # Python searches a path in a .pth file, but does not read that path's own .pth files. So the
    # editable install of this checkout is not found.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    run(
        *(sys.executable, "-m", "uv", "pip", "install", "--python", python),
        *("--offline", "--no-cache", "--no-deps", "--no-build-isolation"),
        *("--compile-bytecode", *what),
    )
    return python


@dataclass
class Synthesized:
    """What a stack far from the checkout is synthesized with."""

    handler: Path
    asset: str
    """The name of the asset, which contains its hash."""
    path: list[str]
    """What the package added to sys.path."""
    modules: list[str]
    """Modules of the handler that the package imported under their own names."""


def synthesize(python: Path, folder: Path) -> Synthesized:
    found = json.loads(run(python, "-c", SYNTHESIZE, folder / "out", cwd=folder))
    (asset,) = (folder / "out").glob("asset.*")
    return Synthesized(Path(found["folder"]), asset.name, found["path"], found["modules"])


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    folder = tmp_path_factory.mktemp("editable")
    return synthesize(install(folder, "--editable", ROOT), folder)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment with the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    install(folder, wheel)
    return folder


@pytest.fixture(scope="module")
def python(installed: Path) -> Path:
    return installed / "venv" / Path(sys.executable).parent.name / Path(sys.executable).name


@pytest.fixture(scope="module")
def from_wheel(installed: Path, python: Path) -> Synthesized:
    return synthesize(python, installed)


def sources(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}


def test_the_wheel_contains_the_package_and_the_handler_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    info = f"cdk_vm_import-{PROJECT['version']}.dist-info"
    package = {f"cdk_vm_import/{name}" for name in sources(PACKAGE)}
    handler = {f"cdk_vm_import/_lambda/{name}" for name in sources(HANDLER)}
    assert names == {
        *package,
        "cdk_vm_import/py.typed",
        *handler,
        f"{info}/METADATA",
        f"{info}/WHEEL",
        f"{info}/RECORD",
        f"{info}/licenses/LICENSE",
    }
    assert {"cdk_vm_import/_lambda/index.py", "cdk_vm_import/_lambda/contract.py"} <= names


def test_the_wheel_is_for_any_platform(wheel: Path) -> None:
    assert wheel.name == f"cdk_vm_import-{PROJECT['version']}-py3-none-any.whl"


def test_the_metadata_is_that_of_pyproject(metadata: Message) -> None:
    assert metadata["Name"] == "cdk-vm-import"
    assert metadata["Version"] == PROJECT["version"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == PROJECT["requires-python"]


def test_the_wheel_requires_ranges_of_cdk_constructs_and_crhelper(metadata: Message) -> None:
    required = [str(name) for name in metadata.get_all("Requires-Dist", [])]
    always = [requirement for requirement in required if "extra ==" not in requirement]

    assert [name.partition("<")[0] for name in always] == ["aws-cdk-lib", "constructs", "crhelper"]
    assert not any("==" in requirement for requirement in always)


def test_the_licence_is_the_apache_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/LICENSE"))
        text = archive.read(name).decode()

    assert "Apache License" in text
    assert "Version 2.0" in text


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    from_sdist = build(tmp_path)

    assert len(list(tmp_path.glob("*.tar.gz"))) == 1
    assert from_sdist.read_bytes() == wheel.read_bytes()


def test_an_editable_install_uses_the_handler_of_the_checkout(editable: Synthesized) -> None:
    assert editable.handler == HANDLER


def test_an_installed_wheel_uses_its_own_handler(from_wheel: Synthesized, installed: Path) -> None:
    assert from_wheel.handler.is_relative_to(installed / "venv")
    # pip compiles what it installs.
    assert (from_wheel.handler / "__pycache__").is_dir()


def test_a_wheel_and_an_editable_install_stage_the_same_asset(
    from_wheel: Synthesized, editable: Synthesized
) -> None:
    assert from_wheel.asset == editable.asset


def test_the_modules_of_the_handler_hide_no_modules_of_the_users_app(
    from_wheel: Synthesized,
) -> None:
    assert from_wheel.modules == []
    assert not [path for path in from_wheel.path if Path(path).name == "_lambda"]


@pytest.mark.slow  # mypy reads all of aws-cdk-lib
def test_mypy_in_strict_mode_accepts_an_app_that_uses_the_wheel(
    installed: Path, python: Path
) -> None:
    (installed / "app.py").write_text(USER_APP)

    run(
        *(sys.executable, "-m", "mypy", "--strict", "--python-executable", python),
        *("--config-file", "", "--cache-dir", installed / "cache", "app.py"),
        cwd=installed,
    )
