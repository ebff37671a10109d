from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.lifecycle.test_lifecycle_machine import AWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lifecycle.aws_in_process import Aws


@pytest.fixture(scope="module")
def installed() -> Iterator[Aws]:
    logging.disable(logging.CRITICAL)
    with AWS.installed():
        yield AWS
    logging.disable(logging.NOTSET)


@pytest.fixture
def aws(installed: Aws) -> Aws:
    installed.reset()
    return installed
