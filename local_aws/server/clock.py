"""AWS time: real time at a speed, moved forward on demand, and the actions that are due in it."""

from __future__ import annotations

import heapq
import itertools
import json
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Clock:
    """The time that imports, images, client tokens, functions and state machines live in.

    Nothing runs in the background. `settle` runs what is due, in order, and while an action runs
    the clock shows the time at which it was due. So moving the clock forward by a day gives the
    same history as waiting for a day.

    Args:
        speed: Seconds of AWS time in a real second, greater than 0.
        file: Where other processes read the time: AWS time is the first number of the file, plus
            `time.monotonic()` times the second. Default: no file.
    """

    def __init__(self, speed: float = 1.0, file: Path | None = None) -> None:
        """Start at the present real time."""
        self.speed = speed
        self._base = time.time() - time.monotonic() * speed
        self.file = file
        self._moved = threading.Condition()
        self._shown: float | None = None
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._write()

    def now(self) -> float:
        """Return AWS time in seconds since the epoch."""
        return self._running() if self._shown is None else self._shown

    def timestamp(self) -> str:
        """Return AWS time as AWS writes it: ISO 8601, milliseconds, UTC."""
        now = datetime.fromtimestamp(self.now(), UTC)
        return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def advance(self, seconds: float) -> None:
        """Move AWS time forward, run what became due, and wake what sleeps until then."""
        with self._moved:
            self._base += seconds
            self._write()
            self._moved.notify_all()
        self.settle()

    def sleep(self, seconds: float) -> None:
        """Sleep for so many seconds of AWS time, in a thread that holds no lock."""
        with self._moved:
            end = self._running() + seconds
            while (left := end - self._running()) > 0:
                self._moved.wait(left / self.speed)

    def call_in(self, seconds: float, action: Callable[[], None]) -> None:
        """Run `action` in so many seconds of AWS time."""
        heapq.heappush(self._due, (self.now() + seconds, next(self._order), action))

    def settle(self) -> None:
        """Run what is due by now."""
        if self._shown is not None:
            return  # an action asks for the time; the loop below continues after it
        now = self.now()
        while self._due and self._due[0][0] <= now:
            self._shown, _, action = heapq.heappop(self._due)
            try:
                action()
            finally:
                self._shown = None

    def _running(self) -> float:
        return self._base + time.monotonic() * self.speed

    def _write(self) -> None:
        if self.file is None:
            return
        # Another process never reads half a file.
        written = self.file.with_suffix(".new")
        written.write_text(json.dumps([self._base, self.speed]))
        written.replace(self.file)
