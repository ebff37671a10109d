"""The handler's folder: the contract that it shares with the constructs, and its asset."""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, cast

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from constructs import Construct

    import contract as contract  # noqa: PLC0414 - mypy exports only names that are imported so

# In sys.modules, where dataclasses and pickle look up the module of a class.
_CONTRACT = "_cdk_vm_import_contract"


def handler_folder() -> Path:
    """Return the handler's folder: next to this module when installed, else in the checkout."""
    here = Path(__file__).resolve().parent
    installed = here / "_lambda"
    return installed if installed.is_dir() else here.parents[1] / "lambda" / "vm_import"


def _load_contract() -> ModuleType:
    """Load the handler's contract.py under a private name.

    The handler's folder does not go on sys.path: its modules have common names, such as `errors`,
    and could hide modules of the user's app.
    """
    spec = spec_from_file_location(_CONTRACT, handler_folder() / "contract.py")
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(
            f"{handler_folder()} has no contract.py: install the package again."
        )
    module = module_from_spec(spec)
    sys.modules[_CONTRACT] = module
    spec.loader.exec_module(module)
    return module


if not TYPE_CHECKING:
    contract = _load_contract()


@contextmanager
def handler_code(scope: Construct) -> Iterator[lambda_.Code]:
    """Stage the handler and crhelper as the code of a function.

    The asset needs no Docker, no pip and no network.

    Args:
        scope: The construct that creates the function.

    Yields:
        The code. Create the function before the context ends, because CDK copies the folder while
        it creates the function. With --no-staging CDK copies nothing and the template names the
        folder itself. The folder must then remain, so it is in the cloud assembly.
    """
    with tempfile.TemporaryDirectory(prefix="cdk-vm-import-") as temporary:
        folder = Path(temporary)
        if scope.node.try_get_context("aws:cdk:disable-asset-staging"):
            stage = cast("cdk.Stage", cdk.Stage.of(scope))  # every stack belongs to a stage
            folder = Path(stage.asset_outdir, "cdk-vm-import-handler")
        _copy_sources(handler_folder(), folder)
        _copy_sources(_crhelper_folder(), folder / "crhelper")
        yield lambda_.Code.from_asset(str(folder))


def _copy_sources(source: Path, target: Path) -> None:
    """Copy a folder's Python files, so that every machine stages the same bytes.

    Files that pip, editors and type checkers create are left out. A checkout on Windows may end
    lines with CR LF. Lambda must be able to read the files whatever the umask of this machine is.
    """
    for file in source.rglob("*.py"):
        path = file.relative_to(source)
        if any(part.startswith(".") for part in path.parts):
            continue
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes().replace(b"\r\n", b"\n"))
        copy.chmod(0o644)


def _crhelper_folder() -> Path:
    spec = find_spec("crhelper")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("crhelper is not installed: run pip install crhelper.")
    return Path(spec.origin).parent
