"""The names of executions and the order of events."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from cloudformation import executions
from cloudformation.event import Event
from cloudformation.step import State
from contract import ImageProperty, ResourceType, Step
from errors import SupersededError
from tests.support.cloudformation import SIGNATURE

STATE_MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:events"


class Fake:
    """The executions of a state machine, as Step Functions lists them."""

    def __init__(self) -> None:
        self.listed: list[dict[str, Any]] = []
        self.stopped: list[str] = []

    def add(self, event: Event, started: float, stopped: float | None = None) -> str:
        name = executions.execution_name(event)
        execution: dict[str, Any] = {
            "name": name,
            "executionArn": f"arn:{name}",
            "startDate": datetime.fromtimestamp(started, UTC),
        }
        if stopped is not None:
            execution["stopDate"] = datetime.fromtimestamp(stopped, UTC)
        self.listed.append(execution)
        return name

    def running(self) -> list[dict[str, Any]]:
        return [execution for execution in self.listed if "stopDate" not in execution]

    def ended_since(self, seconds: float) -> list[dict[str, Any]]:
        ended = [execution for execution in self.listed if "stopDate" in execution]
        return [e for e in ended if e["stopDate"].timestamp() >= seconds]

    def stop(self, arn: str, _cause: str) -> None:
        self.stopped.append(arn.removeprefix("arn:"))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    monkeypatch.setattr(executions, "StateMachine", lambda _arn: fake)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    return fake


def event(request_id: str, sent: float | None = 1_700_000_000, logical_id: str = "Image") -> Event:
    date = "" if sent is None else datetime.fromtimestamp(sent, UTC).strftime("%Y%m%dT%H%M%SZ")
    return Event(
        {
            "RequestType": "Create",
            "RequestId": request_id,
            "StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/images/1f",
            "ResponseURL": f"https://example.com/?X-Amz-Date={date}&{SIGNATURE}",
            "ResourceType": ResourceType.IMAGE,
            "LogicalResourceId": logical_id,
            "ResourceProperties": {ImageProperty.STATE_MACHINE_ARN: STATE_MACHINE},
        }
    )


def test_the_name_of_an_execution_is_the_same_when_the_event_is_delivered_again() -> None:
    name = executions.execution_name(event("0f9e0a52-4b51-4c53-a0b3-0d5c5a3fd2f0"))

    assert name == executions.execution_name(event("0f9e0a52-4b51-4c53-a0b3-0d5c5a3fd2f0"))
    assert name.endswith("-20231114T221320Z-0f9e0a52-4b51-4c53-a0b3-0d5c5a3fd2f0-C")
    assert len(f"follow-{name}") <= 80


def test_events_of_different_resources_have_names_that_begin_differently() -> None:
    one, other = (executions.execution_name(event("r", logical_id=name)) for name in "ab")

    assert one[:17] != other[:17]


@pytest.mark.parametrize("date", ["", "yesterday", "20231114"])
def test_an_event_without_a_date_is_named_after_its_request(date: str) -> None:
    raw = {**event("r").raw, "ResponseURL": f"https://example.com/?X-Amz-Date={date}"}

    assert executions.execution_name(Event(raw)).count("-") == 2


@pytest.mark.parametrize(
    ("own", "other", "superseded"),
    [
        # when the two events were sent, and when their executions were started
        ((100, 100), (200, 200), True),
        ((200, 200), (100, 100), False),
        ((100, 300), (200, 200), True),  # Lambda delivered the earlier one later
        ((200, 200), (100, 300), False),
        ((100, 100), (103, 103), True),
        ((103, 100), (100, 103), False),  # also if it is only some seconds
        ((100, 100), (100, 103), True),  # in the same second: the delivery decides
        ((100, 103), (100, 100), False),
        ((None, 100), (None, 200), True),
        ((None, 200), (None, 100), False),
        ((100, 200), (None, 100), False),
    ],
)
@pytest.mark.parametrize("ended", [False, True], ids=["running", "ended"])
def test_an_event_is_superseded_by_one_that_was_sent_later(
    fake: Fake,
    own: tuple[int | None, int],
    other: tuple[int | None, int],
    *,
    superseded: bool,
    ended: bool,
) -> None:
    mine, theirs = event("mine", own[0]), event("theirs", other[0])
    fake.add(mine, own[1])
    name = fake.add(theirs, other[1], 1000 if ended else None)

    if superseded:
        with pytest.raises(SupersededError, match="has sent a later event for Image"):
            executions.put_in_order(mine, own[1])
        assert fake.stopped == []
    else:
        executions.put_in_order(mine, own[1])
        assert fake.stopped == ([] if ended else [name])


def test_executions_of_other_resources_are_not_stopped(fake: Fake) -> None:
    fake.add(event("theirs", 100, "Other"), 100)
    mine = event("mine", 200)
    fake.add(mine, 200)

    executions.put_in_order(mine, 200)

    assert fake.stopped == []


def test_the_data_of_an_execution_is_json() -> None:
    data = executions.data(event("r"), State(started=1.5), 15)

    assert json.loads(json.dumps(data)) == {
        Step.EVENT: event("r").raw,
        Step.STATE: data[Step.STATE],
        Step.SECONDS: 15,
    }
    assert State.read(data[Step.STATE]) == State(started=1.5)


def test_a_state_of_a_later_release_is_read_without_what_it_added() -> None:
    assert State.read({"started": 1.5, "new": "x"}) == State(started=1.5)


def test_a_failure_that_an_older_release_kept_as_one_text_is_the_reason() -> None:
    state = State.read({"started": 1.5, "failure": "no. Hint: change it"})

    assert str(state.reason) == "no. Hint: change it"
