from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.support.aws import shared_aws

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.aws import Aws


@pytest.fixture(scope="module")
def installed() -> Iterator[Aws]:
    logging.disable(logging.CRITICAL)
    with shared_aws().installed() as aws:
        yield aws
    logging.disable(logging.NOTSET)


@pytest.fixture
def aws(installed: Aws) -> Aws:
    installed.reset()
    return installed
