"""The asset of the function: the handler and crhelper."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import aws_cdk as cdk
import pytest

import contract
from cdk_vm_import import VmImportProvider, _handler

if TYPE_CHECKING:
    from tests.construct.conftest import NewApp, ResourcesOf

ROOT = Path(__file__).parents[2]
HANDLER = ROOT / "lambda" / "vm_import"


@pytest.fixture
def asset(new_app: NewApp, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the function, as the CDK CLI would upload it."""
    folder = tmp_path_factory.mktemp("cdk.out")
    app = new_app(outdir=str(folder))
    VmImportProvider(cdk.Stack(app, "Stack"), "Provider")
    app.synth()
    (found,) = folder.glob("asset.*")
    return found


def sources(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}


def test_the_asset_has_the_handler_and_crhelper_and_nothing_else(asset: Path) -> None:
    found = {path.relative_to(asset).as_posix() for path in asset.rglob("*") if path.is_file()}

    crhelper = {"__init__", "log_helper", "resource_helper", "utils"}
    assert found == sources(HANDLER) | {f"crhelper/{name}.py" for name in crhelper}


def test_the_entry_point_is_at_the_top_of_the_asset(asset: Path) -> None:
    assert (asset / "index.py").is_file()


def test_lambda_can_read_the_files_whatever_the_umask_of_this_machine_is(asset: Path) -> None:
    assert {oct(path.stat().st_mode & 0o777) for path in asset.rglob("*.py")} == {"0o644"}


def test_synthesis_leaves_no_temporary_folder(
    tmp_path: Path, stack: cdk.Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    VmImportProvider(stack, "Provider")

    assert list(tmp_path.iterdir()) == []


def copy_handler(target: Path) -> Path:
    """Copies the handler as a checkout on Windows has it, with a package in a subfolder."""
    for name in sources(HANDLER):
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = (HANDLER / name).read_text().replace("\n", "\r\n")
        copy.write_bytes(text.encode())
    package = target / "image"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    (package / "one_more.py").write_bytes(b"ONE = 1\r\n")
    return target


@pytest.fixture
def copied_asset(
    new_app: NewApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """A copied handler's folder, and the asset of that folder."""
    folder = copy_handler(tmp_path / "handler")
    monkeypatch.setattr(_handler, "handler_folder", lambda: folder)
    app = new_app(outdir=str(tmp_path / "cdk.out"))
    VmImportProvider(cdk.Stack(app, "Stack"), "Provider")
    app.synth()
    (asset,) = (tmp_path / "cdk.out").glob("asset.*")
    return folder, asset


def test_the_asset_has_the_packages_of_the_handler(copied_asset: tuple[Path, Path]) -> None:
    _, asset = copied_asset

    assert {"image/__init__.py", "image/one_more.py"} <= sources(asset)


def test_the_asset_is_the_same_from_a_checkout_with_windows_line_endings(
    asset: Path, copied_asset: tuple[Path, Path]
) -> None:
    _, from_windows = copied_asset

    for name in sources(asset):
        assert (from_windows / name).read_bytes() == (asset / name).read_bytes()
    assert b"\r" not in (from_windows / "image" / "one_more.py").read_bytes()


def test_what_tools_leave_in_the_handlers_folder_does_not_change_the_asset(
    copied_asset: tuple[Path, Path], resources_of: ResourcesOf, stack: cdk.Stack
) -> None:
    folder, asset = copied_asset
    for litter in (
        "__pycache__/index.cpython-311.pyc",
        "image/__pycache__/one_more.cpython-311.pyc",
        ".ruff_cache/x.py",
        ".index.py.swp",
        "py.typed",
    ):
        (folder / litter).parent.mkdir(exist_ok=True)
        (folder / litter).write_text("litter")
    VmImportProvider(stack, "Provider")

    (function,) = resources_of(stack, "AWS::Lambda::Function").values()
    assert function["Properties"]["Code"]["S3Key"] == f"{asset.name.removeprefix('asset.')}.zip"


def test_without_staging_the_code_stays_in_the_cloud_assembly(
    new_app: NewApp, tmp_path: Path
) -> None:
    """With `cdk synth --no-staging`, for SAM, the template names the folder itself."""
    app = new_app(outdir=str(tmp_path), context={"aws:cdk:disable-asset-staging": True})
    for name in ("One", "Two"):
        VmImportProvider(cdk.Stack(app, name), "Provider")
    app.synth()

    assets = json.loads((tmp_path / "One.assets.json").read_text())["files"].values()
    (folder,) = (
        Path(asset["source"]["path"]) for asset in assets if asset["source"]["packaging"] == "zip"
    )
    assert (folder / "index.py").is_file()
    assert (folder / "crhelper" / "__init__.py").is_file()


def test_constructs_and_handler_have_the_same_contract() -> None:
    assert Path(str(_handler.contract.__file__)).samefile(str(contract.__file__))
