"""The wheel and the sdist as built, installed and used, all of it offline."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import zipfile
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
import sys
import aws_cdk as cdk
from cdk_vm_import import VmImportProvider, _handler_asset
app = cdk.App(outdir=sys.argv[1])
VmImportProvider(cdk.Stack(app, "Stack"), "Provider")
app.synth()
print(_handler_asset.handler_folder())
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
    """Installs into a fresh environment, which borrows the packages of this one."""
    environment = folder / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / Path(sys.executable).parent.name / Path(sys.executable).name
    (site,) = environment.rglob("site-packages")
    # A path in a .pth file is searched, but its own .pth files are not: this checkout's
    # editable install stays behind.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    run(
        *(sys.executable, "-m", "uv", "pip", "install", "--python", python),
        *("--offline", "--no-cache", "--no-deps", "--no-build-isolation"),
        *("--compile-bytecode", *what),
    )
    return python


def synthesize(python: Path, folder: Path) -> tuple[Path, str]:
    """Synthesizes a stack far from the checkout: the handler's folder and the asset's name."""
    handler = run(python, "-c", SYNTHESIZE, folder / "out", cwd=folder)
    (asset,) = (folder / "out").glob("asset.*")
    return Path(handler.strip()), asset.name


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("editable")
    return synthesize(install(folder, "--editable", ROOT), folder)


def test_the_wheel_holds_the_package_and_the_handler_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    info = f"cdk_vm_import-{PROJECT['version']}.dist-info"
    package = {f"cdk_vm_import/{path.name}" for path in PACKAGE.glob("*.py")}
    handler = {f"cdk_vm_import/_lambda/{path.name}" for path in HANDLER.glob("*.py")}
    assert names == {
        *package,
        "cdk_vm_import/py.typed",
        *handler,
        f"{info}/METADATA",
        f"{info}/WHEEL",
        f"{info}/RECORD",
        f"{info}/licenses/LICENSE",
    }
    assert "cdk_vm_import/_lambda/index.py" in names


def test_the_wheel_is_for_any_platform(wheel: Path) -> None:
    assert wheel.name == f"cdk_vm_import-{PROJECT['version']}-py3-none-any.whl"


def test_the_metadata_says_what_pyproject_says(metadata: Message) -> None:
    assert metadata["Name"] == "cdk-vm-import"
    assert metadata["Version"] == PROJECT["version"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == PROJECT["requires-python"]


def test_the_wheel_asks_for_ranges_of_cdk_constructs_and_crhelper(metadata: Message) -> None:
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


def test_an_editable_install_uses_the_handler_of_the_checkout(editable: tuple[Path, str]) -> None:
    handler, _ = editable

    assert handler == HANDLER


def test_an_installed_wheel_brings_its_handler_as_the_same_asset(
    wheel: Path, tmp_path: Path, editable: tuple[Path, str]
) -> None:
    handler, asset = synthesize(install(tmp_path, wheel), tmp_path)

    assert handler.is_relative_to(tmp_path / "venv")
    assert (handler / "__pycache__").is_dir()
    assert asset == editable[1]
