"""A deliberate fault, and whether the tests notice it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.mutations.changes import Change

T = TypeVar("T")

_CHECKOUT: Final = Path(__file__).parents[2]
# Where modules are, as in the checkout: the constructs load the contract of the handler.
_ROOTS: Final = (Path("lambda", "vm_import"), Path("constructs"), Path())
_COPIED: Final = ("lambda", "constructs", "local_aws")


class StaleError(Exception):
    """The node of a mutation is not found exactly once."""


@dataclass(frozen=True)
class Result:
    """Whether the tests noticed a fault.

    Attributes:
        problem: What is wrong with the tests or with the mutation; empty if a test failed.
        noticed_by: The test that failed.
    """

    problem: str
    noticed_by: str = ""


@dataclass(frozen=True)
class Mutation:
    """A fault.

    Attributes:
        name: What is wrong.
        module: The module, such as `image.resource` or `cdk_vm_import.vm_disk`.
        function: The qualified name of the function in the module; empty: the module itself.
        change: The change of the function's syntax tree.
        tests: The tests that must notice it.
    """

    name: str
    module: str
    function: str
    change: Change
    tests: tuple[str, ...]

    def run(self, noticed_by: str) -> Result:
        """Insert the fault into a copy of the sources, and run the tests until one fails.

        Args:
            noticed_by: The test that is run first, because it failed the last time; or empty.
        """
        with tempfile.TemporaryDirectory() as folder:
            copy, ignored = Path(folder), shutil.ignore_patterns("__pycache__", ".local_aws")
            for name in _COPIED:
                shutil.copytree(_CHECKOUT / name, copy / name, ignore=ignored)
            try:
                self._apply(copy)
            except StaleError as error:
                return Result(f"STALE: {error}")
            if noticed_by and "1 failed" in _pytest(copy, noticed_by).stdout:
                return Result("", noticed_by)
            tests = _pytest(copy, *self.tests)
        if tests.returncode == 0:
            return Result("SURVIVES")
        # A fault that only keeps the tests from running shows nothing.
        if "1 failed" not in tests.stdout:
            return Result(f"NO TEST RAN:\n{tests.stdout[-2000:]}")
        failed = re.search(r"^FAILED (.+?)(?: - .*)?$", tests.stdout, re.MULTILINE)
        return Result("", failed[1] if failed else "")

    def _apply(self, copy: Path) -> None:
        """Write the fault into a copy of the sources.

        Raises:
            StaleError: The node of the mutation is not found exactly once.
        """
        files = [copy / root / f"{self.module.replace('.', '/')}.py" for root in _ROOTS]
        source = _one(file for file in files if file.is_file())
        tree: ast.AST = ast.parse(source.read_text())
        node = tree
        for part in filter(None, self.function.split(".")):
            node = _one(
                child
                for child in ast.iter_child_nodes(node)
                if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
                and child.name == part
            )
        if (count := self.change(node)) != 1:
            raise StaleError(f"{count} nodes match in {self.module}.{self.function}")
        source.write_text(ast.unparse(ast.fix_missing_locations(tree)))


def _pytest(copy: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests with a copy of the sources until one fails."""
    path = " ".join(str(copy / root) for root in _ROOTS)
    options = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-o", f"pythonpath={path} .", *tests],
        cwd=_CHECKOUT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def _one(candidates: Iterable[T]) -> T:
    found = list(candidates)
    if len(found) != 1:
        raise StaleError(f"{len(found)} functions or files match")
    return found[0]
