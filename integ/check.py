"""A check: what it creates, costs and decides, and the record of what it saw."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from local_aws.server.knobs import Knobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from integ.run import Run

HOUR: Final = 3600
DAY: Final = 24 * HOUR
DEFAULTS: Final = Knobs().as_dict()
# Errors that are about the caller or the moment, and not about the question of a check. They appear
# as `Code STATUS: message` (see `attempt`), in stack events and in the reason of a failed image.
_INCONCLUSIVE: Final = re.compile(
    r"\w (401|403|429|5\d\d): |status code: (401|403|429|5\d\d)|denied|not ?authorized|unauthorized"
    r"|token\w* (has|have|is|are) expired|expiredtoken|requestexpired|throttl"
    r"|toomanyrequests|rate exceeded|limit ?exceeded|quota ?exceeded|slowdown|optinrequired"
    r"|unrecognizedclient|internal ?(error|failure|server)|service ?unavailable",
    re.IGNORECASE,
)


class CheckError(Exception):
    """A check cannot go on, because AWS did not do what it needs."""


class Outcome(StrEnum):
    """What an observation says about a row, a knob or a behaviour of the constructs."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    MEASURED = "measured"
    UNDECIDED = "not decided"


class Kind(StrEnum):
    """What a verdict is about."""

    ROW = "row"
    KNOB = "knob"
    BEHAVIOUR = "behaviour"


@dataclass(frozen=True)
class Verdict:
    """What a check found out about one row, knob or behaviour.

    Attributes:
        kind: What it is about.
        subject: The name of the row or knob of docs/local-aws.md, or a sentence.
        outcome: Whether the observation agrees. For a knob: whether AWS has its default value.
        seen: What was seen.
    """

    kind: Kind
    subject: str
    outcome: Outcome
    seen: str


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        function: It runs the check.
        rows: The rows of docs/local-aws.md that it decides.
        knobs: The knobs that it decides.
        minutes: How long it takes in a real account, about, if it runs alone.
        stacks: How many stacks it deploys with the CDK CLI, at most.
        imports: How many times it imports the disk, at most.
        shares_import: Whether one of these is the import that all checks of a run share.
        broken_imports: How many import tasks it starts that EC2 cannot complete, at most.
        images: How many images it creates, at most.
        recipes: How many recipes it creates outside stacks, at most.
        endpoints: How many interface endpoints it creates.
        pause: Seconds between its two halves; 0 if it has one.
        later: The second half.
    """

    function: Callable[[Run, Record], None]
    rows: tuple[str, ...] = ()
    knobs: tuple[str, ...] = ()
    minutes: int = 5
    stacks: int = 0
    imports: int = 0
    shares_import: bool = False
    broken_imports: int = 0
    images: int = 0
    recipes: int = 0
    endpoints: int = 0
    pause: int = 0
    later: Callable[[Run, Record], None] | None = None

    @property
    def name(self) -> str:
        """The name on the command line."""
        return self.function.__name__.replace("_", "-")

    @property
    def title(self) -> str:
        """What it finds out, in a sentence."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]

    @property
    def creates(self) -> str:
        """What it creates in the account at most, in words."""
        counts = {
            "stack": self.stacks,
            "import task": self.imports + self.broken_imports,
            "AMI": self.imports,
            "image": self.images,
            "recipe": self.recipes,
            "interface endpoint": self.endpoints,
        }
        return ", ".join(f"{n} {what}{'s' * (n > 1)}" for what, n in counts.items() if n)


CHECKS: Final[dict[str, Check]] = {}


def check(**about: Any) -> Callable[[Callable[[Run, Record], None]], None]:  # noqa: ANN401
    """Register a function as a check.

    Args:
        about: The attributes of `Check`.
    """

    def register(function: Callable[[Run, Record], None]) -> None:
        new = Check(function, **about)
        CHECKS[new.name] = new

    return register


@dataclass
class Record:
    """What a check saw, and its verdicts. It can be written as JSON.

    Attributes:
        check: The name of the check.
        status: `completed`, `failed`, `interrupted`, `running` or `waiting`.
        error: Why it failed.
        due: When the second half of a check can run, in seconds since 1970.
        kept: What the second half needs from the first one.
        clock: It returns AWS time.
    """

    check: str
    status: str = "running"
    error: str = ""
    started: float = 0.0
    ended: float = 0.0
    due: float = 0.0
    kept: dict[str, Any] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    observations: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    stack_events: list[dict[str, Any]] = field(default_factory=list)
    clock: Callable[[], float] = field(default=time.time, compare=False, repr=False)

    def row(self, name: str, holds: object, seen: object) -> None:
        """Say whether a row of docs/local-aws.md describes what was seen.

        Args:
            name: The row.
            holds: Whether it does; None if what was seen does not decide it.
            seen: What was seen. It contains the error of a call, if there was one: an error that
                says nothing about the row, such as a denied call, makes it not decided.
        """
        self._declared(name, CHECKS[self.check].rows)
        self._add(Kind.ROW, name, _outcome(holds), seen)

    def knob(self, name: str, value: object, seen: object = "") -> None:
        """Say which value of a knob describes what was seen.

        Args:
            name: The knob.
            value: Its value; None if what was seen does not decide it.
            seen: What was seen.
        """
        self._declared(name, CHECKS[self.check].knobs)
        default = DEFAULTS[name]
        outcome = _outcome(None if value is None else value == default)
        is_time = isinstance(default, (int, float)) and not isinstance(default, bool)
        if is_time and value is not None:
            outcome = Outcome.MEASURED
        found = "no value" if value is None else f"{value!r}, the default is {default!r}"
        self._add(Kind.KNOB, name, outcome, f"{found}; {seen}" if seen else found)

    def expect(self, sentence: str, holds: object, seen: object = "") -> None:
        """Say whether the constructs behave as this project promises.

        Args:
            sentence: The promise.
            holds: Whether it was kept; None if what was seen does not decide it.
            seen: What was seen.
        """
        self._add(Kind.BEHAVIOUR, sentence, _outcome(holds), seen)

    def observe(self, what: str, value: object) -> None:
        """Record something that was seen.

        Args:
            what: What it is.
            value: What was seen, as JSON.
        """
        self.observations.append({"at": self.clock(), "what": what, "value": value})

    def end(self, status: str, error: str = "") -> None:
        """Set the status, and give a verdict about what the check did not decide.

        Args:
            status: `completed`, `failed` or `interrupted`.
            error: Why it failed or was interrupted.
        """
        self.status, self.error = status, error
        *_, last_line = ["", *error.splitlines()]
        reasons = {
            "completed": "what was seen does not decide it",
            "failed": f"the check failed: {last_line}",
        }
        self.decide_rest(reasons.get(status, error))

    def decide_rest(self, reason: str) -> None:
        """Give a verdict about what the check should have decided and did not.

        Args:
            reason: Why it did not.
        """
        about, decided = CHECKS[self.check], {verdict.subject for verdict in self.verdicts}
        for kind, names in ((Kind.ROW, about.rows), (Kind.KNOB, about.knobs)):
            for name in names:
                if name not in decided:
                    self._add(kind, name, Outcome.UNDECIDED, reason)

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON."""
        # asdict copies deeply, which a clock need not survive.
        fields = asdict(replace(self, clock=time.time))
        del fields["clock"]
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Record:
        """Return the record that `as_json` returned."""
        verdicts = [
            Verdict(Kind(v["kind"]), v["subject"], Outcome(v["outcome"]), v["seen"])
            for v in fields["verdicts"]
        ]
        return cls(**{**fields, "verdicts": verdicts})

    def _declared(self, name: str, names: tuple[str, ...]) -> None:
        if name not in names:
            raise ValueError(f"check {self.check} does not declare {name!r}: add it to its rows")

    def _add(self, kind: Kind, subject: str, outcome: Outcome, seen: object) -> None:
        # A denied or throttled call, or an error of AWS itself, does not decide anything.
        if _INCONCLUSIVE.search(str(seen)):
            outcome = Outcome.UNDECIDED
        self.verdicts.append(Verdict(kind, subject, outcome, str(seen)))


def _outcome(holds: object) -> Outcome:
    if holds is None:
        return Outcome.UNDECIDED
    return Outcome.CONFIRMED if holds else Outcome.REFUTED
