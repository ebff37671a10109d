"""What MiniStack's Lambda lacks: the logging handler of the Python runtime."""

from __future__ import annotations

from typing import Final

from ministack.core import lambda_runtime

# https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html - what `logging` writes goes
# to the function's log, by a handler on the root logger, there before the function's modules.
_LOGGING_HANDLER: Final = """
import logging as _logging
_handler = _logging.StreamHandler()
_handler.setFormatter(_logging.Formatter("[%(levelname)s]\\t%(asctime)s\\t%(message)s"))
_logging.getLogger().addHandler(_handler)
"""


def register() -> None:
    """Teach MiniStack's Lambda these things; for the whole process."""
    lambda_runtime._PYTHON_WORKER_SCRIPT = (  # noqa: SLF001 - read for each worker it starts
        _LOGGING_HANDLER + lambda_runtime._PYTHON_WORKER_SCRIPT  # noqa: SLF001
    )
