"""What local_aws uses and replaces of MiniStack exists in the installed version."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest

from local_aws import seams
from local_aws.seams import Seam, Used

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = [
    path
    for folder in ("local_aws", "tests", "integ", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
]
STORES: Final = [used for used in seams.USED if used.is_store]
# Prints what the server replaces, and what of it is not declared. Each name is in a module or in
# a dictionary of a module.
_REPLACED: Final = """
import json, sys
from local_aws import seams
from local_aws.server.clock import Clock

def namespaces():
    modules = [module for name, module in sys.modules.items() if name.startswith("ministack")]
    found = [vars(module) for module in modules]
    return found + [value for names in found for value in names.values() if type(value) is dict]

def entries():
    return {(id(names), name): value for names in namespaces() for name, value in names.items()}

from local_aws.server import app
before = entries()
app.make_app(Clock(1, None))
present = entries()
changed = {key for key in present if present[key] is not before.get(key)}
declared = {
    (id(seams._namespace(place)), name): f"{place}.{name}"
    for seam in seams.SEAMS for place in (seam.place, *seam.also_in) for name in seam.keys
}
print(json.dumps({
    "undeclared": [str(name) for place, name in changed - declared.keys()],
    "replaced": [declared[key] for key in changed & declared.keys()],
}))
"""


@pytest.mark.parametrize("used", seams.USED, ids=lambda used: used.path)
def test_ministack_has_what_we_use(used: Used) -> None:
    assert used.problems == []


@pytest.mark.parametrize("seam", seams.SEAMS, ids=lambda seam: f"{seam.place}:{seam.names}")
def test_ministack_has_what_we_replace(seam: Seam) -> None:
    assert seam.problems == []


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.path)
def test_ministack_clears_its_stores_but_does_not_replace_them(store: Used) -> None:
    module, _, name = store.path.rpartition(".")
    tree = ast.parse(inspect.getsource(import_module(f"ministack.{module}")))
    assigned = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)
    ]
    assert len(assigned) == 1


def test_the_server_replaces_all_seams_and_nothing_else() -> None:
    result = subprocess.run(
        [sys.executable, "-c", _REPLACED],
        cwd=ROOT,
        env={**os.environ, "AUTH": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(result.stdout)
    assert found["undeclared"] == []
    declared = {
        f"{place}.{name}"
        for seam in seams.SEAMS
        for place in (seam.place, *seam.also_in)
        for name in seam.names.split()
    }
    assert declared <= {*found["replaced"]}


def test_only_seams_import_ministack() -> None:
    imports = re.compile(r"^\s*(import|from) ministack\b|import_module\(.*ministack", re.MULTILINE)
    found = {str(path.relative_to(ROOT)) for path in SOURCES if imports.search(path.read_text())}
    assert found == {"local_aws/seams.py", "tests/local_aws/test_seams.py"}


def test_only_seams_access_private_names() -> None:
    local_aws = [path for path in SOURCES if path.is_relative_to(ROOT / "local_aws")]
    found = [path.name for path in local_aws if "SLF001" in path.read_text()]
    assert found == ["seams.py"]


def test_the_documentation_lists_the_seams() -> None:
    page = (ROOT / "docs/local-aws.md").read_text()
    section = page.partition("## MiniStack\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [f"| {seam.title} | {seam.why} |" for seam in seams.SEAMS]


def test_what_ministack_lacks_is_reported_with_what_to_do() -> None:
    (problem,) = Used("services.iam._no_such_name").problems
    assert problem.startswith("services.iam._no_such_name does not exist in MiniStack ")
    assert "local_aws/seams.py" in problem


@pytest.mark.parametrize("place", ["services.nothing", "services.iam._NO_TABLE", "nothing"])
def test_a_module_or_table_that_ministack_lacks_is_reported(place: str) -> None:
    (problem,) = Seam(place, "name", "why").problems
    assert problem.startswith(place)


def test_changed_parameters_are_reported() -> None:
    path = "services.cloudformation.custom_resource._response_url"
    (problem,) = Used(path, "token request").problems
    assert "has the parameters ['token'], and local_aws expects ['token', 'request']" in problem


def test_an_entry_that_ministack_has_too_is_reported() -> None:
    (problem,) = Seam("app.SERVICE_REGISTRY", "iam", "why", is_new=True).problems
    assert problem.startswith("app.SERVICE_REGISTRY.iam exists in MiniStack ")


def test_a_value_that_is_no_store_is_reported() -> None:
    (problem,) = Used("services.ec2._STUB_AMIS", is_store=True).problems
    assert "is no store" in problem
