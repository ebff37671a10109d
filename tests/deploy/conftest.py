from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from local_aws import LocalAws
from local_aws.client.cdk_cli import CdkCli
from tests.deploy.deployed import Account

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """A simulated AWS, bootstrapped, in which a minute of AWS time takes a second."""
    with LocalAws.start(speed=60, auth=True) as local:
        CdkCli(local, tmp_path_factory.mktemp("bootstrap")).bootstrap()
        yield local


@pytest.fixture(scope="session")
def account(local: LocalAws) -> Account:
    return Account(local)


@pytest.fixture(scope="module", autouse=True)
def default_knobs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Undo what the tests of a file change in the simulated AWS that all files share."""
    if "local" not in request.fixturenames:
        yield
        return
    local: LocalAws = request.getfixturevalue("local")
    before = local.knobs()
    yield
    local.knobs(**before)
    local.clear_faults()
