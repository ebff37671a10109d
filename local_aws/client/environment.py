"""The environment variables that point AWS programs at a server, and where its files are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

REGION: Final = "us-east-1"
CHECKOUT: Final = Path(__file__).resolve().parents[2]


def state_folder(port: int) -> Path:
    """Return the folder of a running server's certificates and temporary files."""
    return CHECKOUT / ".local_aws" / str(port)


def base_environment(port: int) -> dict[str, str]:
    """Return the variables that point an AWS program at the server on a port.

    The server does not need to be running.
    """
    folder = state_folder(port)
    bypassed = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    no_proxy = ",".join(filter(None, [bypassed, "localhost,127.0.0.1"]))
    return {
        # With an IP address, every SDK puts the bucket into the path and not into the host name.
        "AWS_ENDPOINT_URL": f"https://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        # The user's own AWS configuration must not be used.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_CA_BUNDLE": str(folder / "ca.pem"),
        "SSL_CERT_FILE": str(folder / "bundle.pem"),
        "REQUESTS_CA_BUNDLE": str(folder / "bundle.pem"),
        "CURL_CA_BUNDLE": str(folder / "bundle.pem"),
        "NODE_EXTRA_CA_CERTS": str(folder / "bundle.pem"),
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
    }
