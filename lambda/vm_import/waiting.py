"""The wait for an image, in steps that a state machine takes: how long, and how often to look.

The state machine calls the function with the event of CloudFormation, and what is here beside it.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY: Final = "Waiting"
"""Where the state of the wait stands in the event."""

# What the construct has CloudFormation wait longer than the function, for the last clean-up.
GRACE: Final = 120
# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-cloudformation-customresource.html
LONGEST_ANSWER: Final = 3600
# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-cloudformation-waitcondition.html
LONGEST_SIGNAL: Final = 43200
# How long CloudFormation waits for a deletion at least, however short the timeout.
LEAST_ANSWER: Final = 900

_SHORTEST_PAUSE: Final = 5
_LONGEST_PAUSE: Final = 60
_SHARE: Final = 20


def pause(elapsed: float, remaining: float) -> int:
    """Seconds until the next look: a twentieth of the time waited, from 5 to 60 seconds.

    So the delay of the answer is in proportion to the wait, and a long wait takes few looks.

    Args:
        elapsed: Seconds waited so far.
        remaining: Seconds until the wait is given up; a last look is taken then.

    Returns:
        Whole seconds, as Step Functions wants them; 0 when no time remains.
    """
    if remaining <= 0:
        return 0
    seconds = min(max(elapsed / _SHARE, _SHORTEST_PAUSE), _LONGEST_PAUSE)
    return math.ceil(min(seconds, remaining))


@dataclass
class Waiting:
    """What is known of a wait from step to step; its form is that of the executions' data."""

    started: float
    waited: int = 0
    seconds: int = 0
    image: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    answered: bool = False

    @classmethod
    def begin(cls) -> Waiting:
        """Begin to wait, now."""
        return cls(started=time.time())

    @classmethod
    def resume(cls, state: Mapping[str, Any]) -> Waiting:
        """Go on after a pause."""
        waiting = cls(**{name.lower(): value for name, value in state.items()})
        waiting.waited += waiting.seconds
        waiting.seconds = 0
        return waiting

    def state(self) -> dict[str, Any]:
        """The state as the state machine carries it; its `Seconds` are the next pause."""
        return {name.capitalize(): value for name, value in asdict(self).items()}

    @property
    def elapsed(self) -> float:
        """Seconds since the wait began, by the clock, or by the pauses if those are more.

        The local AWS is faster than the clock: its pauses are shorter than they say.
        """
        return max(time.time() - self.started, self.waited)

    def wait_until(self, limit: float) -> bool:
        """Set the next pause; whether there is one, or the limit is reached."""
        self.seconds = pause(self.elapsed, limit - self.elapsed)
        return self.seconds > 0


def import_limit(timeout: float, *, after_answer: bool) -> float:
    """Seconds after which the wait for an import is given up: before CloudFormation gives up."""
    return min(timeout, (LONGEST_SIGNAL if after_answer else LONGEST_ANSWER) - GRACE)


def delete_limit(timeout: float, *, after_answer: bool) -> float:
    """Seconds after which the wait for a deletion is given up: before CloudFormation gives up."""
    if after_answer:  # the resource has CloudFormation's own ServiceTimeout
        return LONGEST_ANSWER - GRACE
    return min(max(timeout + GRACE, LEAST_ANSWER), LONGEST_ANSWER) - GRACE
