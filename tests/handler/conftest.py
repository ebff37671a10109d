from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from contract import ResourceType
from tests.support.account import Account
from tests.support.aws import shared_aws
from tests.support.cloudformation import CustomResource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.aws import Aws


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
