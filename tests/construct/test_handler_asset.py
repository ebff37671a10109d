from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import aws_cdk as cdk
import pytest

from cdk_vm_import import VmImportProvider, _handler_asset

if TYPE_CHECKING:
    from tests.construct.conftest import ResourcesOf

ROOT = Path(__file__).parents[2]


@pytest.fixture
def asset(tmp_path: Path) -> Path:
    """The code of the function, as the CDK CLI would upload it."""
    app = cdk.App(outdir=str(tmp_path))
    VmImportProvider(cdk.Stack(app, "Stack"), "Provider")
    app.synth()
    (found,) = tmp_path.glob("asset.*")
    return found


def test_the_asset_is_the_handler_and_crhelper_and_nothing_else(asset: Path) -> None:
    found = {str(path.relative_to(asset)) for path in asset.rglob("*") if path.is_file()}

    handler = {path.name for path in (ROOT / "lambda" / "vm_import").glob("*.py")}
    crhelper = {"__init__", "log_helper", "resource_helper", "utils"}
    assert found == handler | {f"crhelper/{name}.py" for name in crhelper}


def test_the_entry_point_is_at_the_top_of_the_asset(asset: Path) -> None:
    assert (asset / "index.py").is_file()


def test_nothing_is_left_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    VmImportProvider(cdk.Stack(cdk.App(), "Stack"), "Provider")

    assert list(tmp_path.iterdir()) == []


def test_what_tools_leave_beside_the_handler_does_not_change_the_asset(
    tmp_path: Path,
    asset: Path,
    resources_of: ResourcesOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    littered = tmp_path / "littered"
    littered.mkdir()
    for source in (ROOT / "lambda" / "vm_import").glob("*.py"):
        (littered / source.name).write_bytes(source.read_bytes())
    for litter in ("__pycache__/index.cpython-311.pyc", ".ruff_cache/x", ".index.py.swp"):
        (littered / litter).parent.mkdir(exist_ok=True)
        (littered / litter).write_text("litter")
    monkeypatch.setattr(_handler_asset, "handler_folder", lambda: littered)
    stack = cdk.Stack(cdk.App(), "Stack")
    VmImportProvider(stack, "Provider")

    (function,) = resources_of(stack, "AWS::Lambda::Function").values()
    assert function["Properties"]["Code"]["S3Key"] == f"{asset.name.removeprefix('asset.')}.zip"


def test_without_staging_the_code_stays_in_the_cloud_assembly(tmp_path: Path) -> None:
    """What `cdk synth --no-staging` for SAM does: the template names the folder itself."""
    app = cdk.App(outdir=str(tmp_path), context={"aws:cdk:disable-asset-staging": True})
    for name in ("One", "Two"):
        VmImportProvider(cdk.Stack(app, name), "Provider")
    app.synth()

    assets = json.loads((tmp_path / "One.assets.json").read_text())["files"].values()
    (folder,) = (
        Path(asset["source"]["path"]) for asset in assets if asset["source"]["packaging"] == "zip"
    )
    assert (folder / "index.py").is_file()
    assert (folder / "crhelper" / "__init__.py").is_file()
