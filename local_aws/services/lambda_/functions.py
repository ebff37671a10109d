"""Add to MiniStack's Lambda: logging, AWS time, retries of events, and killed processes."""

from __future__ import annotations

import threading
from contextvars import ContextVar, copy_context
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_aws import seams
from local_aws.services.lambda_ import worker_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_aws.server.world import World

# https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html - Lambda adds a handler to the
# root logger before it imports the function's modules.
_LOGGING_HANDLER: Final = """
import logging as _logging
_handler = _logging.StreamHandler()
_handler.setFormatter(_logging.Formatter("[%(levelname)s]\\t%(asctime)s\\t%(message)s"))
_logging.getLogger().addHandler(_handler)
"""
# How MiniStack's worker script measures the time of an invocation, and how ours does.
_INVOCATION_TIME: Final = {
    '_deadline = time.time() + float(os.environ.get("_LAMBDA_TIMEOUT", "3"))': (
        '_deadline = _worker_time.start_invocation(float(os.environ.get("_LAMBDA_TIMEOUT", "3")))'
    ),
    "(_deadline - time.time())": "(_deadline - _worker_time.run_time())",
}
# https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html - Lambda retries
# a failed event after one minute and after two more, and a throttled event after a second and then
# after growing pauses.
_PAUSE_AFTER_FAILURE: Final = 60
_PAUSE_AFTER_THROTTLE: Final = 1
_LONGEST_PAUSE: Final = 300
# The defaults of AWS::Lambda::EventInvokeConfig.
_RETRIES: Final = 2
_EVENT_AGE: Final = 6 * 3600
_BY_CLOUDFORMATION: ContextVar[bool] = ContextVar("by_cloudformation", default=False)
_OF_FUNCTION: ContextVar[bool] = ContextVar("of_function", default=False)


def register(world: World) -> None:
    """Change MiniStack's Lambda for the whole process.

    Args:
        world: Its clock determines the age of events, its faults which one is delivered twice.
    """
    # MiniStack reads the script for each worker.
    seams.WORKER_SCRIPT.replace(lambda script: _worker_script(script, world.clock.file))
    seams.FUNCTION_ENVIRONMENT.replace(_with_log_group)
    seams.EMIT_LOGS.replace(lambda emit: _marked(emit, _OF_FUNCTION))
    seams.APPEND_LOG_EVENTS.replace(lambda append: _dated(append, world))
    seams.INVOKE_LATER.put(_in_aws_time(world))
    seams.INVOKE_CUSTOM_RESOURCE.replace(lambda invoke: _marked(invoke, _BY_CLOUDFORMATION))
    seams.EXECUTE_FOR_CLOUDFORMATION.replace(lambda execute: _asynchronous(execute, world))


def _worker_script(script: str, clock_file: Path | None) -> str:
    """Return MiniStack's worker script with logging and, given a file of the clock, AWS time."""
    if clock_file is None:
        return _LOGGING_HANDLER + script
    for of_ministack, in_aws_time in _INVOCATION_TIME.items():
        if script.count(of_ministack) != 1:
            raise RuntimeError(f"MiniStack's worker script has changed: {of_ministack!r}")
        script = script.replace(of_ministack, in_aws_time)
    install = f"_worker_time = WorkerTime(Path({str(clock_file)!r}))\n_worker_time.install()\n"
    return Path(worker_time.__file__).read_text() + install + _LOGGING_HANDLER + script


def kill_caller(access_key: str | None) -> None:
    """Kill the busy processes of the function that made a call.

    Args:
        access_key: The access key of the call.
    """
    for config, process in seams.busy_processes():
        if seams.execution_credentials(config)["AWS_ACCESS_KEY_ID"] == access_key:
            process.kill()


def _marked(act: Callable[..., Any], mark: ContextVar[bool]) -> Callable[..., Any]:
    """Return a function during whose calls a mark is set."""

    @wraps(act)
    def marked(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        token = mark.set(True)
        try:
            return act(*arguments, **more)
        finally:
            mark.reset(token)

    return marked


def _with_log_group(environment: Callable[..., dict[str, str]]) -> Callable[..., dict[str, str]]:
    """Add the name of the log group, which the context object shows.

    https://docs.aws.amazon.com/lambda/latest/dg/python-context.html
    """

    @wraps(environment)
    def with_log_group(config: dict[str, Any]) -> dict[str, str]:
        name = (config.get("LoggingConfig") or {}).get("LogGroup")
        group = {"AWS_LAMBDA_LOG_GROUP_NAME": name} if name else {}
        return environment(config) | group

    return with_log_group


def _dated(append: Callable[..., None], world: World) -> Callable[..., None]:
    """Write the lines of functions in AWS time. A client of PutLogEvents dates its own lines."""

    @wraps(append)
    def dated(stream: dict[str, Any], events: list[dict[str, Any]]) -> None:
        if _OF_FUNCTION.get():
            now = int(world.now() * 1000)
            events = [event | {"timestamp": now, "ingestionTime": now} for event in events]
        append(stream, events)

    return dated


def _asynchronous(execute: Callable[..., Any], world: World) -> Callable[..., Any]:
    """Invoke functions asynchronously for CloudFormation, and deliver an event twice on a fault."""

    @wraps(execute)
    def asynchronous(function: dict[str, Any], event: Any) -> Any:  # noqa: ANN401
        if not _BY_CLOUDFORMATION.get():
            return execute(function, event)
        fault = world.take_fault("cloudformation", "CustomResourceEvent")
        for _ in range(2 if fault and fault.duplicate else 1):
            seams.INVOKE_LATER(function, event)
        return {}

    return asynchronous


def _in_aws_time(world: World) -> Callable[[dict[str, Any], Any], None]:
    """Return an asynchronous invocation in AWS time, which also retries throttled events.

    Lambda retries a failed event MaximumRetryAttempts times, and a throttled one until the function
    runs. It gives up when the event is MaximumEventAgeInSeconds old.
    """

    def invoke(function: dict[str, Any], event: Any) -> None:  # noqa: ANN401
        delivery = (_deliver, world, function, event, world.now())
        threading.Thread(target=copy_context().run, args=delivery, daemon=True).start()

    return invoke


def _deliver(world: World, function: dict[str, Any], event: Any, sent: float) -> None:  # noqa: ANN401
    arn, configured = function["config"]["FunctionArn"], function.get("event_invoke_configs") or {}
    limits = configured.get("$LATEST") or configured.get("") or {}
    retries = int(limits.get("MaximumRetryAttempts", _RETRIES))
    expires = sent + int(limits.get("MaximumEventAgeInSeconds", _EVENT_AGE))
    failures, throttles = 0, 0
    while True:
        # The function may have changed, or may be deleted.
        known, config, name = seams.find_function(arn)
        if not config:
            return
        function = seams.execution_record(known, config)
        result = seams.execute_function(function, event)
        if not result.get("error"):
            return
        if result.get("throttle"):
            pause = min(_PAUSE_AFTER_THROTTLE * 2**throttles, _LONGEST_PAUSE)
            throttles += 1
        else:
            pause = _PAUSE_AFTER_FAILURE * 2**failures
            failures += 1
        if failures > retries:
            break
        world.clock.sleep(pause)
        if world.now() > expires:
            break
    on_failure = (limits.get("DestinationConfig") or {}).get("OnFailure") or {}
    target = on_failure.get("Destination") or config.get("DeadLetterConfig", {}).get("TargetArn")
    if target:
        seams.route_async_failure(target, name, event, result)
