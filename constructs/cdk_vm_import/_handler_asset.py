"""The code of the handler as an asset of the app. No Docker, no pip, no network."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

# What pip, editors and type checkers leave beside the code would make the asset's hash differ
# between a checkout and an installed wheel.
_IGNORED = shutil.ignore_patterns(".*", "__pycache__", "*.pyc", "*.pyi", "py.typed")


def handler_folder() -> Path:
    """Find the handler: beside this module when installed, else in the checkout."""
    here = Path(__file__).resolve().parent
    installed = here / "_lambda"
    return installed if installed.is_dir() else here.parents[1] / "lambda" / "vm_import"


@contextmanager
def handler_code(scope: Construct) -> Iterator[lambda_.Code]:
    """Give the handler and crhelper as one piece of code, for as long as a Function is made of it.

    CDK copies the code while it makes the Function, so the folder goes at once. With --no-staging
    it copies nothing and names the folder itself, which then has to stay: in the cloud assembly.
    """
    with tempfile.TemporaryDirectory(prefix="cdk-vm-import-") as passing:
        folder = Path(passing)
        if scope.node.try_get_context("aws:cdk:disable-asset-staging"):
            stage = cast("cdk.Stage", cdk.Stage.of(scope))  # every stack is in one
            folder = Path(stage.asset_outdir, "cdk-vm-import-handler")
        shutil.copytree(handler_folder(), folder, ignore=_IGNORED, dirs_exist_ok=True)
        crhelper = folder / "crhelper"
        shutil.copytree(_crhelper_folder(), crhelper, ignore=_IGNORED, dirs_exist_ok=True)
        yield lambda_.Code.from_asset(str(folder))


def _crhelper_folder() -> Path:
    spec = find_spec("crhelper")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("crhelper is not installed: pip install crhelper")
    return Path(spec.origin).parent
