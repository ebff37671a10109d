"""Waits, retry intervals and timestamps of Step Functions in AWS time.

MiniStack sleeps in real time, which it can scale but not wake when the clock is moved forward.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from local_aws import seams

if TYPE_CHECKING:
    from local_aws.server.world import World


def register(world: World) -> None:
    """Let Step Functions use the clock of the world, for the whole process."""

    def sleep_until(timestamp: str) -> None:
        end = datetime.fromisoformat(timestamp)
        # A timestamp without a time zone is UTC.
        end = end if end.tzinfo else end.replace(tzinfo=UTC)
        world.clock.sleep(end.timestamp() - world.now())

    seams.SLEEP.put(world.clock.sleep)
    seams.SLEEP_UNTIL.put(sleep_until)
    seams.EXECUTION_TIME.put(world.timestamp)
