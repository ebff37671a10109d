"""constructs/ and lambda/ are source roots. As packages they would shadow modules of others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import constructs
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", ["constructs", "lambda", "lambda/vm_import"])
def test_a_source_root_is_not_a_package(folder: str) -> None:
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder / "__init__.py").exists()


def test_tests_import_the_package_constructs_of_pypi() -> None:
    assert not Path(constructs.__file__).is_relative_to(ROOT / "constructs")


def test_a_script_in_the_checkout_imports_the_package_constructs_of_pypi() -> None:
    script = "import constructs; print(constructs.__file__, constructs.Construct.__name__)"
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert run.stdout.split() == [constructs.__file__, "Construct"]
