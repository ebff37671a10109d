"""Start the simulated AWS, point programs at it, control it, and read what it recorded."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import boto3
import botocore.session

from local_aws.client.environment import CHECKOUT, REGION, base_environment

if TYPE_CHECKING:
    from collections.abc import Iterator


class LocalAwsError(Exception):
    """The simulated AWS is not running, or refuses a request of ours."""


def environment(port: int = 4566) -> dict[str, str]:
    """Return the variables that point the CDK CLI, the AWS CLI and boto3 at a running server.

    Args:
        port: The port of the server. Default: 4566.

    Raises:
        LocalAwsError: No simulated AWS serves on the port.
    """
    LocalAws(port).knobs()
    return base_environment(port)


class LocalAws:
    """A running simulated AWS, seen from a program that uses it.

    Args:
        port: Its port on 127.0.0.1.
        process: The server process, if this program started it.
    """

    def __init__(self, port: int, process: subprocess.Popen[str] | None = None) -> None:
        """Refer to a server; `start` starts one."""
        self.port = port
        self.process = process

    @classmethod
    @contextmanager
    def start(
        cls,
        *,
        port: int = 0,
        speed: float = 1.0,
        auth: bool = False,
        own_session: bool = False,
    ) -> Iterator[LocalAws]:
        """Run a server for the length of a `with` block.

        Args:
            port: The TCP port. Default: a free one.
            speed: Seconds of AWS time in a real second. Default: 1.
            auth: Whether IAM is enforced. Default: False.
            own_session: Whether the server has a session of its own. Then Ctrl-C in the terminal
                does not end it, and this program can still use it to clean up. Default: False.

        Raises:
            LocalAwsError: The server did not start.
        """
        command = [sys.executable, "-m", "local_aws", "up", "--port", str(port)]
        command += ["--speed", str(speed), *(["--auth"] if auth else [])]
        with subprocess.Popen(  # noqa: S603 - this package
            command,
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=own_session,
        ) as process:
            try:
                word, _, url = (process.stdout.readline() if process.stdout else "").partition(" ")
                if word != "ready":
                    raise LocalAwsError(f"local_aws did not start: exit code {process.wait()}")
                yield cls(int(url.rpartition(":")[2]), process)
            finally:
                process.terminate()

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that point a program at the server."""
        return base_environment(self.port)

    def session(self) -> boto3.Session:
        """Return a boto3 session for the server, whatever the environment of this process says.

        A client with an `aws_access_key_id` of 12 digits works in that account. Every account
        exists, and is empty at first.
        """
        values = self.environment
        core = botocore.session.Session(
            {  # no environment variable, but this value
                "profile": (None, [], None, None),
                "config_file": (None, [], values["AWS_CONFIG_FILE"], None),
                "credentials_file": (None, [], values["AWS_SHARED_CREDENTIALS_FILE"], None),
                "ca_bundle": (None, [], values["AWS_CA_BUNDLE"], None),
            }
        )
        session = boto3.Session(botocore_session=core, region_name=REGION)
        session.client = partial(  # type: ignore[method-assign]
            session.client,
            endpoint_url=values["AWS_ENDPOINT_URL"],
            aws_access_key_id=values["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
        )
        return session

    def fault(self, service: str, operation: str, **what: object) -> None:
        """Make the next calls of an operation fail, or be delayed.

        Args:
            service: botocore's name of the service, such as `imagebuilder`.
            operation: The operation, such as `ImportVmImage`.
            what: The attributes of `local_aws.server.faults.Fault`, such as `throttle=True`.
        """
        self._request("POST", "faults", {"service": service, "operation": operation, **what})

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._request("DELETE", "faults")

    def fail_import(
        self, message: str | None, *, task_id: str | None = None, fail_at_progress: int = 28
    ) -> None:
        """Make a disk import fail.

        Args:
            message: EC2's StatusMessage. With None the import never ends.
            task_id: The task. Default: the first one that reaches the progress.
            fail_at_progress: The progress, 0 to 100, at which it fails. Default: 28, converting.
        """
        failure = {"message": message, "task_id": task_id, "fail_at_progress": fail_at_progress}
        self._request("POST", "imports", failure)

    def knobs(self, **changes: object) -> dict[str, Any]:
        """Change some knobs and return all (`local_aws.server.knobs.Knobs`)."""
        knobs: dict[str, Any] = self._request("PUT", "knobs", changes)
        return knobs

    def now(self) -> float:
        """Return AWS time in seconds since the epoch."""
        return float(self._request("GET", "clock")["now"])

    def advance(self, seconds: float) -> None:
        """Move AWS time forward; functions and state machines that sleep until then wake."""
        self._request("POST", "clock", {"advance_seconds": seconds})

    def calls(self, operation: str | None = None) -> list[dict[str, Any]]:
        """Return the recorded calls, oldest first; those of one operation if it is given."""
        calls: list[dict[str, Any]] = self._request("GET", "calls")
        return [call for call in calls if operation in (None, call["operation"])]

    def _request(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        url = f"https://127.0.0.1:{self.port}/_local_aws/{path}"
        data = None if body is None else json.dumps(body).encode()
        request = Request(url, data=data, method=method)
        try:
            context = ssl.create_default_context(cafile=self.environment["AWS_CA_BUNDLE"])
            with urlopen(request, context=context, timeout=30) as response:  # noqa: S310
                return json.load(response)
        except HTTPError as error:
            raise LocalAwsError(error.read().decode()) from None
        except (OSError, URLError) as error:
            raise LocalAwsError(
                f"no simulated AWS serves on port {self.port} ({error}): "
                f"start one with python -m local_aws up --port {self.port}"
            ) from None
