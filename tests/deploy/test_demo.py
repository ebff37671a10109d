"""`make demo`, as a new user sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import IO

import psutil
import pytest

from local_aws.client.environment import CHECKOUT

_MARK = "demo-under-test"


def start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "local_aws.client.demo"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # All processes that the demo starts inherit the mark.
        env={**os.environ, "STARTED_BY": _MARK},
    )


def marked_processes() -> list[psutil.Process]:
    """The processes that the demo started and that still run."""
    found = []
    for process in psutil.process_iter():
        # Processes of other users cannot be read, and some end meanwhile.
        with contextlib.suppress(psutil.Error):
            if process.environ().get("STARTED_BY") == _MARK:
                found.append(process)
    return found


def read_until(output: IO[str] | None, text: str) -> str:
    assert output
    seen = ""
    for line in output:
        seen += line
        if text in line:
            return seen
    raise AssertionError(seen)


def test_the_demo_passes_all_its_checks() -> None:
    process = start()

    printed, _ = process.communicate(timeout=600)

    assert process.returncode == 0, printed
    assert "no account is used" in printed.partition("1. ")[0]
    assert "28 %  converting" in printed
    assert "EC2 imported the disk once for all three images" in printed
    assert "All checks passed" in printed
    assert "Traceback" not in printed
    assert marked_processes() == []


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_an_interrupted_demo_leaves_no_process_behind(number: signal.Signals) -> None:
    process = start()
    read_until(process.stdout, "$ cdk deploy")
    # The CDK CLI starts the app, and the app starts Node.
    time.sleep(3)

    process.send_signal(number)

    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "Traceback" not in printed
    assert marked_processes() == []
