"""What MiniStack's Lambda lacks: logging, asynchronous events of CloudFormation, sudden death."""

from __future__ import annotations

from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from ministack.core import lambda_runtime
from ministack.services import lambda_svc
from ministack.services.cloudformation import custom_resource

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_aws.world import World

# https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html - what `logging` writes goes
# to the function's log, by a handler on the root logger, there before the function's modules.
_LOGGING_HANDLER: Final = """
import logging as _logging
_handler = _logging.StreamHandler()
_handler.setFormatter(_logging.Formatter("[%(levelname)s]\\t%(asctime)s\\t%(message)s"))
_logging.getLogger().addHandler(_handler)
"""
# https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html - a failed
# event comes again after one minute, and after two more.
_FIRST_PAUSE: Final = 60
_SECOND_PAUSE: Final = 120
_BY_CLOUDFORMATION: ContextVar[bool] = ContextVar("by_cloudformation", default=False)


def register(world: World) -> None:
    """Teach MiniStack's Lambda these things; for the whole process.

    Args:
        world: The clock says how long a pause is, the faults which event comes twice.
    """
    lambda_runtime._PYTHON_WORKER_SCRIPT = (  # noqa: SLF001 - read for each worker it starts
        _LOGGING_HANDLER + lambda_runtime._PYTHON_WORKER_SCRIPT  # noqa: SLF001
    )
    speed = world.clock.speed
    lambda_svc._LAMBDA_ASYNC_RETRY_BASE_SECONDS = _FIRST_PAUSE / speed  # noqa: SLF001
    lambda_svc._LAMBDA_ASYNC_RETRY_MAX_SECONDS = _SECOND_PAUSE / speed  # noqa: SLF001
    custom_resource.invoke_custom_resource = _marked(custom_resource.invoke_custom_resource)
    lambda_svc._execute_function_with_config_scope = _asynchronous(  # noqa: SLF001
        lambda_svc._execute_function_with_config_scope,  # noqa: SLF001
        world,
    )


def kill_caller(access_key: str | None) -> None:
    """Kill the processes of the function that a call came from.

    Args:
        access_key: The access key of the call.
    """
    with lambda_runtime._lock:  # noqa: SLF001
        busy = [
            worker
            for workers in lambda_runtime._workers.values()  # noqa: SLF001
            for worker in workers
            if worker.in_use and worker._proc  # noqa: SLF001
        ]
    for worker in busy:
        credentials = lambda_runtime.execution_credentials(worker.config)
        if credentials["AWS_ACCESS_KEY_ID"] == access_key:
            worker._proc.kill()  # noqa: SLF001


def _marked(invoke: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(invoke)
    def marked(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        token = _BY_CLOUDFORMATION.set(True)
        try:
            return invoke(*arguments, **more)
        finally:
            _BY_CLOUDFORMATION.reset(token)

    return marked


def _asynchronous(execute: Callable[..., Any], world: World) -> Callable[..., Any]:
    """CloudFormation invokes asynchronously: Lambda repeats what failed, and sometimes what not."""

    @wraps(execute)
    def asynchronous(function: dict[str, Any], event: Any) -> Any:  # noqa: ANN401
        if not _BY_CLOUDFORMATION.get():
            return execute(function, event)
        fault = world.take_fault("cloudformation", "CustomResourceEvent")
        for _ in range(2 if fault and fault.duplicate else 1):
            lambda_svc.invoke_async_with_retry(function, event)
        return {}

    return asynchronous
