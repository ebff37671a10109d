"""What readers still see after a change: AWS is eventually consistent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

State = TypeVar("State")


@dataclass
class Past(Generic[State]):
    """The states before the last changes.

    Attributes:
        now: AWS time.
        lag: How many seconds readers are late. Without a lag they see the present.
    """

    now: Callable[[], float]
    lag: Callable[[], float]
    _states: list[tuple[float, State]] = field(default_factory=list)

    def keep(self, state: State) -> None:
        """Keep the state before a change that happens now."""
        self._states.append((self.now(), state))

    def shown(self) -> State | None:
        """Return the state that readers see, or None if they see the present one."""
        then = self.now() - self.lag()
        self._states = [(changed, state) for changed, state in self._states if changed > then]
        return self._states[0][1] if self._states else None

    def forget(self) -> None:
        """Show the present state."""
        self._states.clear()
