"""Run a Lambda function in AWS time.

The source of this module comes first in the script of each worker process, so a function needs no
code for it. There, `time.time` is AWS time and `time.sleep` sleeps in AWS time. `time.monotonic`
counts AWS seconds of sleep and real seconds of work, and so does the time that an invocation has
left. So a deadline leaves a function the same time to work at each speed of the clock, and a clock
that is moved forward takes no time from it.

`datetime` stays real, because the server compares the signatures of requests with real time.
Waiting in the standard library's own threads and sockets also takes real time.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

# A sleeping function sees after so many real seconds that the clock was moved forward.
_POLLING_INTERVAL = 0.05


class WorkerTime:
    """AWS time in a worker process, and the time that an invocation has left.

    Args:
        clock_file: The file in which the server's clock says what time it is.
    """

    def __init__(self, clock_file: Path) -> None:
        """Keep the real functions."""
        self._clock_file = clock_file
        self._real_monotonic = time.monotonic
        self._real_sleep = time.sleep
        # What AWS seconds of sleep took longer than the real seconds that passed meanwhile.
        self._gained = 0.0
        self._timeout = 0.0
        self._deadline = float("inf")

    def install(self) -> None:
        """Replace the functions of `time` for the whole process."""
        replacements = {
            "time": self.now,
            "time_ns": lambda: int(self.now() * 1e9),
            "monotonic": self.run_time,
            "monotonic_ns": lambda: int(self.run_time() * 1e9),
            "sleep": self.sleep,
        }
        for name, replacement in replacements.items():
            setattr(time, name, replacement)

    def now(self) -> float:
        """Return AWS time in seconds since the epoch."""
        return self._now(*self._read())

    def sleep(self, seconds: float) -> None:
        """Sleep in AWS time, shorter if the clock is moved forward.

        End the process if the invocation's time ends first, as Lambda does.
        """
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        if threading.current_thread() is not threading.main_thread():
            self._sleep(seconds)
            return
        allowed = min(seconds, max(0.0, self._deadline - self.run_time()))
        begin = self._real_monotonic()
        self._sleep(allowed)
        self._gained += allowed - (self._real_monotonic() - begin)
        if allowed < seconds:
            sys.stderr.write(f"Task timed out after {self._timeout:.2f} seconds\n")
            sys.stderr.flush()
            os._exit(1)

    def start_invocation(self, timeout: float) -> float:
        """Start the time of an invocation.

        Args:
            timeout: The function's timeout, in seconds.

        Returns:
            When the time ends, as `run_time` counts.
        """
        self._timeout = timeout
        self._deadline = self.run_time() + timeout
        return self._deadline

    def run_time(self) -> float:
        """Return seconds since an arbitrary moment: AWS seconds of sleep and real ones of work."""
        return self._real_monotonic() + self._gained

    def _sleep(self, seconds: float) -> None:
        base, speed = self._read()
        end = self._now(base, speed) + seconds
        self._real_sleep(0)
        while (left := end - self._now(base, speed)) > 0:
            self._real_sleep(min(left / speed, _POLLING_INTERVAL))
            base, speed = self._read()

    def _now(self, base: float, speed: float) -> float:
        return base + self._real_monotonic() * speed

    def _read(self) -> tuple[float, float]:
        base, speed = json.loads(self._clock_file.read_text())
        return base, speed
