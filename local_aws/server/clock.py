"""AWS time: real time sped up, moved forward on demand, and what is due at a time."""

from __future__ import annotations

import heapq
import itertools
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """The time that imports, images and their tokens live in.

    Nothing runs in the background: what is due happens, in order, when somebody looks
    (`settle`), and while it happens the clock shows the time at which it was due. So moving the
    clock forward by a day gives the same history as waiting for a day.

    Args:
        speed: Seconds of AWS time in a real second, over 0.
    """

    def __init__(self, speed: float = 1.0) -> None:
        """Start at the real time of now."""
        self.speed = speed
        self._started = time.monotonic()
        self._start = time.time()
        self._shown: float | None = None
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        """Seconds since the epoch, in AWS time."""
        if self._shown is not None:
            return self._shown
        return self._start + (time.monotonic() - self._started) * self.speed

    def timestamp(self) -> str:
        """The time of now as AWS writes it: ISO 8601, milliseconds, UTC."""
        now = datetime.fromtimestamp(self.now(), UTC)
        return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def advance(self, seconds: float) -> None:
        """Move AWS time forward; what became due on the way happens."""
        self._start += seconds
        self.settle()

    def call_in(self, seconds: float, action: Callable[[], None]) -> None:
        """Have `action` done in so many seconds of AWS time."""
        heapq.heappush(self._due, (self.now() + seconds, next(self._order), action))

    def settle(self) -> None:
        """Do what is due by now."""
        if self._shown is not None:
            return  # an action looks at the clock: the loop below is on it
        now = self.now()
        while self._due and self._due[0][0] <= now:
            self._shown, _, action = heapq.heappop(self._due)
            try:
                action()
            finally:
                self._shown = None
