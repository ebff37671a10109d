"""One server for all tests, and an account for each test."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from local_aws import LocalAws
from tests.local_aws.account import Account

if TYPE_CHECKING:
    from collections.abc import Iterator

    import boto3

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[LocalAws]:
    with LocalAws.start() as running:
        yield running


@pytest.fixture(scope="session")
def enforcing() -> Iterator[LocalAws]:
    """Start a server that enforces IAM, where a minute of AWS time is a tenth of a second."""
    with LocalAws.start(speed=600, auth=True) as running:
        # Imports end by `finish`, and not by themselves if the machine is slow.
        running.knobs(import_seconds=3500)
        yield running


@pytest.fixture(scope="session")
def session(server: LocalAws) -> boto3.Session:
    return server.session()


@pytest.fixture
def aws(server: LocalAws, session: boto3.Session) -> Iterator[Account]:
    before = server.knobs()
    yield Account(server, session, f"{next(_numbers):012d}")
    server.clear_faults()
    server.knobs(**before)
