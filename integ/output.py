"""What the command prints."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO


def say(text: str) -> None:
    """Print a line to stdout."""
    _write(sys.stdout, text)


def warn(text: str) -> None:
    """Print a line to stderr."""
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except OSError:
        # The terminal or the other program of a pipe has ended. The clean-up must still run.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
