"""The Lambda function: processes with their own copies of the handler's modules."""

from __future__ import annotations

import importlib
import json
import sys
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import urllib3

import contract
from tests.support.local_services import ACCOUNT, REGION

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from types import ModuleType

HANDLER: Final = Path(str(contract.__file__)).parent
FUNCTION_ARN: Final = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:VmImportProvider"
LOG_GROUP: Final = "/aws/lambda/VmImportProvider"
TIMEOUT: Final = 900.0
"""How long the function may run, in seconds."""


def handler_modules() -> dict[str, ModuleType]:
    """The modules of the handler that this process has imported, by name."""
    names = {path.stem for path in HANDLER.iterdir()}
    return {n: module for n, module in sys.modules.items() if n.partition(".")[0] in names}


class KilledError(BaseException):
    """The Lambda process ends at this point."""


@dataclass
class Context:
    """Lambda's context object.

    Attributes:
        now: Returns the time in seconds.
        seconds: How long the function may run from now on.
    """

    now: Callable[[], float]
    seconds: float = TIMEOUT
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    invoked_function_arn: str = FUNCTION_ARN
    function_name: str = "VmImportProvider"
    log_group_name: str = LOG_GROUP

    def __post_init__(self) -> None:
        self._end = self.now() + self.seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._end - self.now()) * 1000))


class LambdaProcess:
    """A process of the function: no other process shares its modules.

    Args:
        now: Returns the virtual time.
        put: Receives the responses to CloudFormation in place of urllib3.
    """

    def __init__(self, now: Callable[[], float], put: Callable[..., Any]) -> None:
        self._now = now
        others = {name: sys.modules.pop(name) for name in handler_modules()}
        pool = SimpleNamespace(request=put)
        with patch.object(urllib3, "PoolManager", lambda *_, **__: pool):
            importlib.import_module("index")
        self.modules = {name: sys.modules.pop(name) for name in handler_modules()}
        sys.modules.update(others)

    def invoke(
        self, payload: dict[str, Any], seconds: float = TIMEOUT
    ) -> tuple[str, dict[str, Any] | None]:
        """Call the function.

        Returns:
            `returned` and what the function returned, or `killed`, or the name of the error that
            the state machine distinguishes from others.
        """
        context = Context(self._now, seconds)
        try:
            returned = self.modules["index"].handler(json.loads(json.dumps(payload)), context)
        except KilledError:
            return "killed", None
        except Exception as error:
            if type(error).__name__ != contract.UNDELIVERED_RESPONSE:
                raise
            return contract.UNDELIVERED_RESPONSE, None
        return "returned", json.loads(json.dumps(returned))


class Turns:
    """Concurrent Lambda processes: one runs while the others stop at an AWS call or sleep.

    Args:
        now: Returns the virtual time.
        advance: Moves it.
        chance: Chooses the process that runs next.
    """

    def __init__(
        self, now: Callable[[], float], advance: Callable[[float], None], chance: random.Random
    ) -> None:
        self._now = now
        self._advance = advance
        self._chance = chance
        self._turn = threading.Condition()
        self._running: int | None = None
        self._wakes: dict[int, float] = {}
        self._me = threading.local()

    def run(self, *bodies: Callable[[], None], head_start: int = 0) -> None:
        """Run all to their ends; the first makes `head_start` calls before the others begin."""
        errors: list[BaseException] = []
        self._head_start = head_start

        def body(number: int) -> None:
            self._me.number = number
            with self._turn:
                self._turn.wait_for(lambda: self._running == number)
            try:
                bodies[number]()
            except BaseException as error:  # noqa: BLE001 - raised where they were started
                errors.append(error)
            with self._turn:
                del self._wakes[number]
                self._next()

        threads = [threading.Thread(target=body, args=(n,)) for n in range(len(bodies))]
        self._wakes = dict.fromkeys(range(len(bodies)), 0.0)
        self._running = 0
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in errors:
            raise error

    def pass_on(self, seconds: float = 0.0) -> None:
        """Let another process run, and do not continue for so many seconds."""
        number = self._me.number
        with self._turn:
            self._wakes[number] = self._now() + seconds
            self._next()
            self._turn.wait_for(lambda: self._running == number)

    def _next(self) -> None:
        if self._head_start and 0 in self._wakes:
            self._head_start -= 1
            awake = [0]
        elif awake := [n for n, wake in self._wakes.items() if wake <= self._now()]:
            awake = [self._chance.choice(awake)]
        elif self._wakes:
            awake = [min(self._wakes, key=lambda n: (self._wakes[n], n))]
        else:
            return
        self._advance(max(0.0, self._wakes[awake[0]] - self._now()))
        self._running = awake[0]
        self._turn.notify_all()
