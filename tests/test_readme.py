"""What the README shows and says is so."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cdk_vm_import import ImportedVmImage
from contract import ResourceType

CHECKOUT = Path(__file__).parents[1]
README = (CHECKOUT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def table(header: str) -> list[list[str]]:
    """The rows of the table whose first header cell is this."""
    body = re.search(rf"^\| {header} \|.*\n\|[-|]+\n((?:\|.*\n)+)", README, re.MULTILINE)
    assert body, header
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in body[1].splitlines()]


def test_the_snippets_make_a_template(tmp_path: Path) -> None:
    # The provider, which is the last, goes before all images; the others use the first image.
    first, *others, provider = SNIPPETS
    image, synthesis = first.index("image = ImportedVmImage("), first.index("app.synth()")
    parts = [first[:image], provider, first[image:synthesis], *others, first[synthesis:]]
    app = tmp_path / "app.py"
    app.write_text("\n".join(parts))

    subprocess.run(
        [sys.executable, app],
        check=True,
        env={**os.environ, "CDK_OUTDIR": str(tmp_path / "cdk.out")},
        cwd=tmp_path,
    )

    template = (tmp_path / "cdk.out" / "GoldenImages.template.json").read_text()
    assert ResourceType.IMAGE in template
    assert ResourceType.AMI_SETTINGS in template
    assert "AWS::ImageBuilder::ImageRecipe" in template


def test_the_first_example_is_short() -> None:
    lines = [line for line in SNIPPETS[0].splitlines() if line.strip()]

    assert len(lines) <= 15


def test_every_argument_is_in_the_table_and_no_other() -> None:
    parameters = inspect.signature(ImportedVmImage.__init__).parameters
    keywords = [n for n, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY]

    assert sorted(row[0].strip("`") for row in table("argument")) == sorted(keywords)


def test_every_attribute_of_the_table_is_one() -> None:
    names = re.findall(r"`([a-z_]+)`", " ".join(row[0] for row in table("attribute")))

    assert names
    assert [name for name in names if not hasattr(ImportedVmImage, name)] == []


@pytest.mark.parametrize("target", re.findall(r"^    make (\w+)", README, re.MULTILINE))
def test_every_make_target_of_the_readme_is_one(target: str) -> None:
    assert f"\n{target}:" in (CHECKOUT / "Makefile").read_text()


@pytest.mark.parametrize("name", re.findall(r"\]\(([A-Z]+|[\w/-]+\.md)\)", README))
def test_every_file_that_the_readme_links_to_is_there(name: str) -> None:
    assert (CHECKOUT / name).is_file()
