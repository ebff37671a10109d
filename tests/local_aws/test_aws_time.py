"""Functions and state machines live in the AWS time of the server."""

from __future__ import annotations

import io
import json
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from botocore.config import Config

from local_aws.server.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from local_aws import LocalAws

HOUR = 3600
TIMEOUT = 900
# Runs the step that the event names, and reports the time before and after it. `perf_counter` is
# real time in a function too.
CODE = """
import time

def sleep(seconds):
    time.sleep(seconds)

def work_until_the_clock_is_moved(seconds):
    end = time.time() + seconds
    while time.time() < end:
        pass

def measure(context):
    return {
        "time": time.time(),
        "monotonic": time.monotonic(),
        "remaining": context.get_remaining_time_in_millis() / 1000,
    }

def handler(event, context):
    begin = time.perf_counter()
    before = measure(context)
    globals()[event["step"]](event["seconds"])
    after = measure(context)
    return {"before": before, "after": after, "real": time.perf_counter() - begin}
"""
# The time that is left comes in whole milliseconds.
ROUNDED = 0.002
ROLE = "arn:aws:iam::123456789012:role/clock"
TRUST = {
    "Effect": "Allow",
    "Principal": {"Service": "lambda.amazonaws.com"},
    "Action": "sts:AssumeRole",
}


class Function:
    """A function with the code above."""

    def __init__(self, server: LocalAws) -> None:
        self._server = server
        # A test may take longer than the 60 seconds after which botocore tries again.
        once = Config(read_timeout=600, retries={"total_max_attempts": 1})
        self._client: Any = server.session().client("lambda", config=once)
        self._iam: Any = server.session().client("iam")
        self._iam.create_role(
            RoleName="clock",
            AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [TRUST]}),
        )
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("index.py", CODE)
        self._client.create_function(
            FunctionName="clock",
            Runtime="python3.13",
            Role=ROLE,
            Handler="index.handler",
            Code={"ZipFile": code.getvalue()},
            Timeout=TIMEOUT,
        )

    def invoke(self, step: str, seconds: float) -> dict[str, Any]:
        payload = json.dumps({"step": step, "seconds": seconds})
        invoked = self._client.invoke(FunctionName="clock", Payload=payload)
        return {"error": invoked.get("FunctionError"), **json.load(invoked["Payload"])}

    def invoke_and_advance(self, step: str, seconds: float, *, by: float) -> dict[str, Any]:
        """Invoke it, and move the clock forward again and again until it ends."""
        with ThreadPoolExecutor() as executor:
            invoked: Future[dict[str, Any]] = executor.submit(self.invoke, step, seconds)
            advance_until(self._server, invoked.done, by=by)
            return invoked.result()

    def delete(self) -> None:
        self._client.delete_function(FunctionName="clock")
        self._iam.delete_role(RoleName="clock")


def advance_until(server: LocalAws, holds: Callable[[], bool], *, by: float) -> None:
    """Move the clock forward again and again: what waits may not have begun to."""
    while not holds():
        server.advance(by)
        time.sleep(0.1)


@pytest.fixture
def function(server: LocalAws) -> Iterator[Function]:
    created = Function(server)
    yield created
    created.delete()


def test_a_function_reads_aws_time(server: LocalAws, function: Function) -> None:
    for _ in range(2):  # the second time in the same process
        begin = server.now()
        measured = function.invoke("sleep", 0)["after"]
        assert begin <= measured["time"] <= server.now()
        server.advance(24 * HOUR)


def test_a_sleeping_function_wakes_when_the_clock_is_moved_forward(function: Function) -> None:
    result = function.invoke_and_advance("sleep", TIMEOUT - 60, by=TIMEOUT)
    before, after = result["before"], result["after"]
    assert after["time"] - before["time"] >= TIMEOUT - 60
    assert after["monotonic"] - before["monotonic"] >= TIMEOUT - 60


def test_sleep_takes_from_the_time_that_a_function_has_left(function: Function) -> None:
    result = function.invoke_and_advance("sleep", TIMEOUT - 60, by=TIMEOUT)
    taken = result["before"]["remaining"] - result["after"]["remaining"]
    assert TIMEOUT - 60 - ROUNDED <= taken <= TIMEOUT - 60 + result["real"] + ROUNDED


def test_moving_the_clock_forward_takes_no_time_from_a_working_function(function: Function) -> None:
    result = function.invoke_and_advance("work_until_the_clock_is_moved", HOUR, by=2 * HOUR)
    before, after = result["before"], result["after"]
    assert after["time"] - before["time"] >= HOUR
    assert before["remaining"] - after["remaining"] <= result["real"] + ROUNDED
    assert after["monotonic"] - before["monotonic"] <= result["real"]


def test_a_function_that_sleeps_beyond_its_timeout_is_ended(function: Function) -> None:
    result = function.invoke_and_advance("sleep", 2 * TIMEOUT, by=TIMEOUT)
    assert result["error"] == "Unhandled"


def test_a_function_sleeps_in_fast_aws_time(enforcing: LocalAws) -> None:
    function = Function(enforcing)
    result = function.invoke("sleep", 600)
    function.delete()
    before, after = result["before"], result["after"]
    assert after["time"] - before["time"] >= 600
    # It did not wait for so many real seconds: it would have timed out.
    assert after["remaining"] > 0


@pytest.mark.parametrize("field", ["Seconds", "Timestamp"])
def test_a_wait_state_ends_when_the_clock_is_moved_forward(server: LocalAws, field: str) -> None:
    states: Any = server.session().client("stepfunctions")
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(server.now() + 24 * HOUR))
    wait = {"Type": "Wait", field: {"Seconds": 24 * HOUR, "Timestamp": end}[field], "End": True}
    machine = states.create_state_machine(
        name=f"wait-{field}",
        definition=json.dumps({"StartAt": "Wait", "States": {"Wait": wait}}),
        roleArn=ROLE,
    )["stateMachineArn"]
    begin = server.now()
    execution = states.start_execution(stateMachineArn=machine)["executionArn"]

    def describe() -> dict[str, Any]:
        return dict(states.describe_execution(executionArn=execution))

    advance_until(server, lambda: describe()["status"] != "RUNNING", by=24 * HOUR)
    ended = describe()
    assert ended["status"] == "SUCCEEDED"
    assert begin - 1 <= ended["startDate"].timestamp() <= server.now()
    assert (ended["stopDate"] - ended["startDate"]).total_seconds() >= 24 * HOUR - 1


def test_another_process_reads_aws_time_from_the_file_of_the_clock(tmp_path: Path) -> None:
    clock = Clock(speed=60, file=tmp_path / "clock")

    def read() -> float:
        base, speed = json.loads((tmp_path / "clock").read_text())
        return float(base + time.monotonic() * speed)

    for _ in range(2):
        begin = clock.now()
        assert begin <= read() <= clock.now()
        clock.advance(24 * HOUR)
