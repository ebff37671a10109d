from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.handler.cloudformation import ResponseUrls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def urls(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ResponseUrls]:
    bundle, certificate = tmp_path / "ca.pem", tmp_path / "server.pem"
    authority.cert_pem.write_to_path(bundle)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    monkeypatch.setitem(os.environ, "SSL_CERT_FILE", str(bundle))
    with ResponseUrls(certificate) as urls:
        yield urls
