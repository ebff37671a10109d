from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from contract import ResourceType
from tests.support.account import Account
from tests.support.aws import shared_aws
from tests.support.cloudformation import CustomResource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.aws import Aws

Log: TypeAlias = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def aws() -> Iterator[Aws]:
    """The simulated AWS, empty, with the handler pointed at it."""
    aws = shared_aws()
    aws.reset()
    level = logging.root.level
    with aws.installed(silent=False):
        yield aws
    logging.root.setLevel(level)


@pytest.fixture
def log() -> Iterator[Log]:
    """Returns the lines of the function's log."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.root.addHandler(handler)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.root.removeHandler(handler)


@pytest.fixture
def account(aws: Aws) -> Account:
    return Account(aws)


@pytest.fixture
def image(aws: Aws) -> CustomResource:
    return CustomResource(aws)


@pytest.fixture
def other_image(aws: Aws) -> CustomResource:
    """An image of another stack."""
    return CustomResource(aws)


@pytest.fixture
def task(aws: Aws, image: CustomResource) -> CustomResource:
    """An import task in the stack of the image."""
    return CustomResource(
        aws, ResourceType.IMPORT_TASK.value, logical_id="ImportF00D", stack_id=image.stack_id
    )
