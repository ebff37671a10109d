"""The examples of the AWS CLI's documentation, read from the installed package."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awscli

_FOLDER = Path(awscli.__file__).parent / "examples"


@dataclass(frozen=True)
class Example:
    """A command of the documentation.

    Attributes:
        name: Service, command and the number of the command in its page.
        command: The arguments behind `aws`.
        outputs: The documented outputs, as JSON or text: one for each state of the resource.
        files: The contents of the files that the command reads.
    """

    name: str
    command: tuple[str, ...]
    outputs: tuple[Any, ...]
    files: tuple[str, ...]


def examples(page: str) -> list[Example]:
    """Return the examples of a page, such as `ec2/import-image`."""
    found: list[tuple[tuple[str, ...], list[Any], list[str]]] = []
    for block in _blocks((_FOLDER / f"{page}.rst").read_text()):
        text = "\n".join(block[1:])
        # A line that ends with ^ or ` is a command of a shell of Windows.
        if text.startswith("aws ") and not re.search(r"[\^`]$", text, re.MULTILINE):
            found.append((tuple(shlex.split(text.replace("\\\n", " "))[1:]), [], []))
        elif block[0].startswith("Contents of") and found:
            found[-1][2].append(text)
        elif block[0].startswith("Output") and found:
            found[-1][1].append(_output(text))
    return [
        Example(f"{page} {number}", command, tuple(outputs), tuple(files))
        for number, (command, outputs, files) in enumerate(found, 1)
    ]


def _blocks(page: str) -> list[list[str]]:
    """Return the literal blocks of a page, each behind the paragraph that introduces it."""
    found: list[list[str]] = []
    introduction = ""
    for paragraph in re.split(r"\n\s*\n", page):
        if not paragraph.startswith(" "):
            introduction = paragraph
            continue
        lines = paragraph.split("\n")
        if found and found[-1][0] == introduction:
            found[-1] += ["", *lines]  # a block with an empty line
        else:
            found.append([introduction, *lines])
    return [[block[0], *_dedented(block[1:])] for block in found]


def _dedented(lines: list[str]) -> list[str]:
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return [line[indent:] for line in lines]


def _output(text: str) -> Any:
    """Return an output. Some of the documented JSON lacks a comma or a quotation mark."""
    if text[0] not in "{[":
        return text
    text = re.sub(r'(["\d}\]])(\s*\n\s*")', r"\1,\2", text)
    text = re.sub(r"(Z)(\s*\n\s*})", r'\1"\2', text)
    return json.loads(re.sub(r",\s*(?:\.\.\.)?(\s*[}\]])", r"\1", text))


def differences(documented: Any, returned: Any, path: str = "") -> set[str]:
    """Return the paths of documented members that are not returned, or have another type."""
    if isinstance(documented, dict) and isinstance(returned, dict):
        found: set[str] = set()
        for name, value in documented.items():
            member = f"{path}.{name}".lstrip(".")
            if name not in returned:
                found.add(member)
            else:
                found |= differences(value, returned[name], member)
        return found
    if isinstance(documented, list) and isinstance(returned, list):
        if documented and not returned:
            return {path}
        # The items of a list can have different members, so one item with a member is enough.
        lacking = [
            set.intersection(*(differences(value, item, path) for item in returned))
            for value in documented
        ]
        return {member for found in lacking for member in found}
    numbers = (int, float)
    same = type(documented) is type(returned) or (
        isinstance(documented, numbers) and isinstance(returned, numbers)
    )
    return set() if same else {path}
