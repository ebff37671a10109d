"""The account that is checked: a real one, or the simulated AWS."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config

from local_aws import LocalAwsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_aws import LocalAws

# The simulated AWS runs functions in real time, so its clock is moved in small steps.
_LONGEST_STEP: Final = 15
_PAUSE: Final = 0.1
# What takes longer than this in the simulated AWS, in real seconds, never happens.
_SIMULATED_LIMIT: Final = 300


class AccountError(Exception):
    """The account cannot be used; the message says what to do."""


@dataclass
class Account:
    """An AWS account and Region.

    Attributes:
        session: The boto3 session of the user.
        environment: The environment variables of AWS for the CDK CLI.
        local: The simulated AWS, if it is one.
        calls: The operations that this program called, as `service:Operation`.
    """

    session: Any
    environment: dict[str, str]
    local: LocalAws | None = None
    calls: set[str] = field(default_factory=set)
    _clients: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def real(cls) -> Account:
        """Return the account that the environment variables or the profile name.

        Raises:
            AccountError: No Region is given.
        """
        session = boto3.Session()
        if not session.region_name:
            raise AccountError("no Region is given: set AWS_REGION")
        environment = {name: v for name, v in os.environ.items() if name.startswith("AWS_")}
        return cls(session, {**environment, "AWS_REGION": session.region_name})

    @classmethod
    def simulated(cls, local: LocalAws) -> Account:
        """Return the account of a simulated AWS."""
        return cls(local.session(), local.environment, local)

    def restricted(self, document: str) -> Account:
        """Return the account as a new user sees it who has one policy only.

        Args:
            document: The policy. Only the simulated AWS gets such a user.
        """
        assert self.local  # noqa: S101 - for mypy
        iam, name = self.client("iam"), "integ"
        iam.create_user(UserName=name)
        arn = iam.create_policy(PolicyName=name, PolicyDocument=document)["Policy"]["Arn"]
        iam.attach_user_policy(UserName=name, PolicyArn=arn)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        names = {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
        session = self.local.session()
        session.client = partial(  # type: ignore[method-assign]
            session.client, **{variable.lower(): value for variable, value in names.items()}
        )
        return Account(session, {**self.environment, **names}, self.local)

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3 has no static type for it
        """Return the client of a service."""
        if service not in self._clients:
            # A simulated AWS that does not respond has ended, so few attempts are enough.
            attempts = 3 if self.local else 10
            config = Config(retries={"mode": "standard", "max_attempts": attempts})
            client = self.session.client(service, config=config)
            client.meta.events.register("before-call", self._count)
            self._clients[service] = client
        return self._clients[service]

    @property
    def region(self) -> str:
        """The Region."""
        return self.environment["AWS_REGION"]

    @property
    def is_simulated(self) -> bool:
        """Whether it is the simulated AWS."""
        return self.local is not None

    def identity(self) -> dict[str, str]:
        """Return account and principal, as STS says.

        Raises:
            AccountError: There are no valid credentials.
        """
        try:
            found = self.client("sts").get_caller_identity()
        except Exception as error:  # noqa: BLE001 - each provider of credentials has errors of its own
            raise AccountError(f"AWS accepts no credentials of this shell: {error}") from None
        return {"account": found["Account"], "principal": found["Arn"]}

    def now(self) -> float:
        """Return AWS time in seconds since 1970."""
        return self.local.now() if self.local else time.time()

    def date(self) -> float:
        """Return `now`, or real time if the simulated AWS does not respond.

        It is for records and messages. Without a date, they would hide why a check failed.
        """
        try:
            return self.now()
        except LocalAwsError:
            return time.time()

    def sleep(self, seconds: float, *, hurry: bool = True) -> None:
        """Wait.

        Args:
            seconds: How long.
            hurry: Whether the clock of the simulated AWS is moved. Without it, what is observed
                meanwhile is finer.
        """
        if self.local is None:
            time.sleep(seconds)
            return
        if hurry:
            self.local.advance(min(seconds, _LONGEST_STEP))
        time.sleep(_PAUSE)

    def skip(self, seconds: float) -> None:
        """Move the clock of the simulated AWS forward."""
        assert self.local  # noqa: S101 - for mypy: no real account is moved
        self.local.advance(seconds)

    def wait(
        self, seen: Callable[[], object], minutes: float, *, hurry: bool = True, every: float = 10
    ) -> object:
        """Poll until something is seen, and return it, or what was returned at the end.

        Args:
            seen: It is truthy when the wait is over.
            minutes: How long to wait at most.
            hurry: See `sleep`.
            every: Seconds between two polls.
        """
        limit = min(minutes * 60, _SIMULATED_LIMIT) if self.local else minutes * 60
        end = time.monotonic() + limit
        while not (found := seen()) and time.monotonic() < end:
            self.sleep(every, hurry=hurry)
        return found

    def _count(self, model: Any, **_: object) -> None:  # noqa: ANN401
        self.calls.add(f"{model.service_model.service_name}:{model.name}")
