"""After any sequence of stack operations, with any faults, exactly the expected images exist.

`make soak` plays 10,000 sequences, the test run plays a few.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from contract import TAG_PREFIX, ImageProperty
from tests.lifecycle.cloudformation_driver import Policy, Resource, UpdateBack
from tests.support.aws import FAULTS, RESPONSE_FAULTS, SERVICE_TIMEOUT, shared_aws
from tests.support.step_functions import STATE_MACHINE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.lifecycle.cloudformation_driver import Event, Response
    from tests.support.local_services import Image

Change = dict[str, Any]
Trouble = dict[str, Any]

DAY = 86400.0
LATEST = 3600.0  # for how long Lambda retains an event
OTHER_STACK = "arn:aws:cloudformation:us-east-1:123456789012:stack/others/2f"
UNUSABLE = {"FAILED", "CANCELLED", "DELETED"}
AWS = shared_aws()

denials = st.sets(
    st.sampled_from(
        [
            "ListImageBuildVersions",
            "DescribeImportImageTasks",
            "ImportVmImage",
            "GetImage",
            "TagResource",
            "CreateTags",
            "UntagResource",
            "DescribeImages",
            "DescribeStacks",
            "StartExecution",
            "ListExecutions",
        ]
    ),
    max_size=1,
)
trouble = st.fixed_dictionaries(
    {
        "wrong": st.dictionaries(st.integers(0, 30), st.sampled_from(FAULTS), max_size=3),
        "wrong_responses": st.dictionaries(
            st.integers(0, 3), st.sampled_from(RESPONSE_FAULTS), max_size=2
        ),
        "denied": denials,
        "repeat": st.sampled_from(["", "", "", "after", "at once"]),
        "chance": st.integers(0, 2**16),
    }
)
rarely = st.sampled_from([False, False, True])
WAITING: dict[str, Any] = {ImageProperty.TIMEOUT_SECONDS: "600"}
# A concurrent event waits for the other one as long as that takes with a fault or two. One that
# Lambda delivers again, a minute later, is too late: see test_sequences.py.
SHORT = {"throttled", "throttled unretried", "failed", "answer lost", "not connected"}
IN_FLIGHT: Trouble = {"wrong_responses": {}, "denied": set(), "repeat": "", "in_flight": True}
LONG = {("completed", 1000), ("never", 0)}
changes = st.sampled_from(
    [
        {ImageProperty.TAGS: {"a": "1"}},
        {ImageProperty.TAGS: {"a": "2", "b": "1"}},
        {ImageProperty.DESCRIPTION: "golden"},
        {ImageProperty.DESCRIPTION: None},
        {ImageProperty.SEMANTIC_VERSION: "1.0.0"},
        {ImageProperty.SEMANTIC_VERSION: "2.0.0"},
        {ImageProperty.NAME: "RHEL_9"},  # the same slug
        {ImageProperty.VM_IMPORT_TASK_ID: ("completed", 60)},
        {ImageProperty.VM_IMPORT_TASK_ID: ("completed", 1000)},  # longer than the timeout
        {ImageProperty.VM_IMPORT_TASK_ID: ("failed", 0)},  # before the image is created
        {ImageProperty.VM_IMPORT_TASK_ID: ("failed", 60)},
        {ImageProperty.VM_IMPORT_TASK_ID: ("never", 0)},
        {ImageProperty.TIMEOUT_SECONDS: "the other way"},
        {ImageProperty.TAGS: {"a": "1"}, ImageProperty.SEMANTIC_VERSION: "2.0.0"},
    ]
)


class LifecycleMachine(RuleBasedStateMachine):
    """One resource, and two others that must never be affected."""

    def __init__(self) -> None:
        super().__init__()
        self.aws = AWS
        self.repeat = ""
        self.chance = random.Random(0)  # noqa: S311
        self.sent: list[tuple[float, Event]] = []
        self.created: dict[str, float] = {}
        self.drifted: set[str | None] = set()  # images that somebody changed by hand
        self.stripped: set[str] = set()  # images whose tags somebody removed
        # Retained images have older tags, and two concurrent events may tag an image.
        self.tagged_otherwise: set[str | None] = set()

    # --- the world ---

    @initialize(
        update_back=st.sampled_from(UpdateBack),
        policy=st.sampled_from(Policy),
        replay=st.sampled_from(["replay", "import"]),
        mismatch=st.sampled_from(["refuse", "replay"]),
        cancel=st.sampled_from(["cancel", "refuse"]),
        unknown=st.sampled_from(["empty", "not_found", "invalid"]),
        lag=st.sampled_from([0, 0, 1, 3, 6]),
        clean_up_after=st.sampled_from([0, 30, 600]),
        waits=st.booleans(),
        there=st.booleans(),
    )
    def begin(
        self,
        update_back: UpdateBack,
        policy: Policy,
        replay: str,
        mismatch: str,
        cancel: str,
        unknown: str,
        lag: int,
        clean_up_after: float,
        *,
        waits: bool,
        there: bool,
    ) -> None:
        self.aws.reset(
            idempotency_of_unusable_image=replay,
            idempotency_mismatch=mismatch,
            cancel_import=cancel,
            unknown_image_version=unknown,
        )
        self.resource = Resource(self.send, self.send_at_once, update_back, policy)
        self.resource.now = self.aws.clock.now
        self.resource.repair = self.aws.expect
        self.resource.let_pass = self.aws.let_pass
        self.resource.clean_up_after = clean_up_after
        self.resource.is_beyond_repair = self.is_beyond_repair
        self.properties: dict[str, Any] = {
            "ServiceToken": "arn:aws:lambda:us-east-1:123456789012:function:f",
            ImageProperty.NAME: "rhel-9",
            ImageProperty.SEMANTIC_VERSION: "1.0.0",
            ImageProperty.PLATFORM: "Linux",
            ImageProperty.VM_IMPORT_TASK_ID: self.aws.import_task(),
            ImageProperty.RETAIN: "false" if policy is Policy.DESTROY else "true",
            ImageProperty.STATE_MACHINE_ARN: STATE_MACHINE,
        }
        for stack_id, logical_id in (
            (self.resource.stack_id, "Another"),
            (OTHER_STACK, self.resource.logical_id),
        ):
            other = Resource(
                self.send, self.send_at_once, update_back, policy, stack_id, logical_id
            )
            other.now = self.aws.clock.now
            assert other.create(self.properties), self.aws.responses
        self.others = {arn: dict(i.tags) for arn, i in self.aws.images.items()}
        self.aws.local.change_knobs(read_lag_seconds=lag, stack_lag_seconds=lag)
        if waits:
            self.properties |= WAITING
        if there:
            assert self.resource.create(self.properties)

    def send(self, event: Event) -> Response | None:
        """Deliver an event once or twice."""
        self.aws.sleep(1)  # since the response to the one before
        self.sent.append((self.aws.clock.now(), event))
        repeat, self.repeat = self.repeat, ""
        if repeat == "at once":
            self.aws.deliver_at_once(event, event, chance=self.chance)
        else:
            self.aws.deliver(event)
        first = self.response(event)
        if repeat == "after" and first:
            self.aws.deliver(event)
        self.aws.denied = set()  # the rollback is allowed
        return first

    def send_at_once(self, running: Event, event: Event) -> Response | None:
        """Deliver an event while another one is handled."""
        now = self.aws.clock.now()
        self.sent += [(now, running), (now, event)]
        self.aws.deliver_at_once(
            running,
            event,
            chance=self.chance,
            head_start=self.chance.randrange(12),
            delay=self.chance.choice([0, 0, 20, 100, 700]),
        )
        return self.response(event)

    def response(self, event: Event) -> Response | None:
        """The response that CloudFormation accepted, if there was one in time."""
        sent = next(sent for sent, known in self.sent if known is event)
        answered = self.aws.responded.get(event["ResponseURL"])
        if answered is None or answered > sent + SERVICE_TIMEOUT:
            self.aws.sleep(max(0.0, sent + SERVICE_TIMEOUT - self.aws.clock.now()))
            return None
        return self.aws.responses[event["ResponseURL"]][0]

    def perform(
        self,
        operation: Callable[[], object],
        *,
        wrong: dict[int, str],
        wrong_responses: dict[int, str],
        denied: set[str],
        repeat: str,
        chance: int,
        in_flight: bool = False,
    ) -> None:
        """Do a stack operation with faults, and check what exists afterwards."""
        resource = self.resource
        self.aws.sleep(10)  # longer than reads lag behind
        before = {arn: image.status for arn, image in self.own.items()}
        old_id, old = resource.physical_id, self.identity(resource.properties)
        self.repeat, self.chance = repeat, random.Random(chance)  # noqa: S311
        resource.abandoned = False
        sent_before = len(self.sent)
        self.aws.expect(wrong, wrong_responses, denied)
        stays = operation()
        self.aws.expect()
        self.aws.work(lambda: False)  # executions whose response CloudFormation no longer waits for
        self.drifted |= self.failed()
        resource.abandoned |= self.had_different_luck(sent_before)
        self.tagged_otherwise |= resource.retained_ids
        if resource.abandoned:
            resource.retained_ids |= set(self.own)
        # An image that was usable stays in use, or a rollback returns to it.
        in_order = (
            old_id in before and before[old_id] not in UNUSABLE and old_id not in self.drifted
        )
        if resource.physical_id and in_order:
            unchanged = self.identity(resource.properties) == old
            assert (resource.physical_id == old_id) == unchanged
        for arn in (resource.retained_ids & set(before)) - set(self.own):
            # An event that fails before it finds the image leaves no trace on it. A rollback then
            # takes an image that is younger than a day for one that the event created.
            young = self.aws.clock.now() - self.created[arn] <= DAY
            deleted = resource.policy is Policy.DESTROY or (young and not stays)
            assert deleted or before[arn] in UNUSABLE, f"{arn} was lost"
        if in_flight:
            self.tagged_otherwise.add(resource.physical_id)
        self.check()

    def had_different_luck(self, sent_before: int) -> bool:
        """Whether two deliveries of a Create had different results.

        The next event of CloudFormation repairs that, but sometimes there is none.
        """
        statuses = [
            {response["Status"] for response in self.aws.responses.get(event["ResponseURL"], [])}
            for _, event in self.sent[sent_before:]
            if event["RequestType"] == "Create"
        ]
        return self.resource.policy is Policy.RETAIN and {"SUCCESS", "FAILED"} in statuses

    @staticmethod
    def identity(properties: Mapping[str, Any]) -> dict[str, Any]:
        no_part = {ImageProperty.TAGS, *WAITING}
        return {name: value for name, value in properties.items() if name not in no_part}

    def failed(self) -> set[str | None]:
        """The image in use, if its import failed after a deployment that did not wait."""
        task = self.aws.tasks.get(self.resource.properties.get(ImageProperty.VM_IMPORT_TASK_ID, ""))
        failed = task is not None and task.status in {"deleting", "deleted"}
        return {self.resource.physical_id} - {None} if failed else set()

    def over(self) -> list[Event]:
        """The events of the last hour whose executions were started, and those before them."""
        events = [event for _, event in self.sent]
        while events and not self.aws.step_functions.of(events[-1]):
            events.pop()
        start = self.aws.clock.now() - LATEST
        recent = [event for sent, event in self.sent if sent >= start]
        return [event for event in recent if event in events]

    def is_beyond_repair(self, properties: Mapping[str, Any]) -> bool:
        arn = str(self.resource.physical_id)
        if arn not in self.own or arn in self.stripped:
            return True
        return self.own[arn].status in UNUSABLE and ImageProperty.TIMEOUT_SECONDS in properties

    @property
    def own(self) -> dict[str, Image]:
        """The images of the resource, whatever tags they have."""
        own = {arn: i for arn, i in self.aws.images.items() if arn not in self.others}
        for arn in own:
            self.created.setdefault(arn, self.aws.clock.now())
        return own

    def cancelled_and_tags(self) -> dict[str, tuple[bool, dict[str, str]]]:
        """What an event may change of the images; an import can end meanwhile."""
        return {arn: (i.status == "CANCELLED", dict(i.tags)) for arn, i in self.own.items()}

    def check(self) -> None:
        """The invariants."""
        own, known = self.own, self.resource.physical_id
        left = set(own) - self.resource.retained_ids - self.stripped - {known}
        assert not left, f"left behind: {left}"
        if known and known not in self.drifted:
            assert known in own, "the image is lost"
            assert own[known].status not in UNUSABLE
            if ImageProperty.TIMEOUT_SECONDS in self.resource.properties:
                assert own[known].status != "PENDING", "the deployment did not wait"
            tags = {k: v for k, v in own[known].tags.items() if not k.startswith(TAG_PREFIX)}
            wanted = self.resource.properties.get(ImageProperty.TAGS, {})
            assert wanted.items() <= tags.items() or known in self.tagged_otherwise
            assert wanted == tags or known in self.tagged_otherwise
        for arn, tags in self.others.items():
            assert self.aws.images[arn].tags == tags
            assert self.aws.images[arn].status in {"PENDING", "AVAILABLE"}
        for event in self.aws.responses.values():
            assert event

    # --- what happens ---

    @rule(hours=st.sampled_from([0.01, 1, 23, 49]))
    def time_passes(self, hours: float) -> None:
        self.aws.sleep(hours * 3600)
        self.aws.work(lambda: False)
        self.drifted |= self.failed()

    @precondition(lambda self: self.resource.physical_id is None)
    @rule(change=changes, others_fail=rarely, in_flight=rarely, data=trouble)
    def add(self, change: Change, *, others_fail: bool, in_flight: bool, data: Trouble) -> None:
        properties = self.changed(change)

        def add() -> bool:
            if in_flight:
                self.resource.create_and_cancel(properties)
                return False
            return self.resource.create(properties, others_fail=others_fail)

        self.perform(add, **(self.in_flight(data) if in_flight else data))

    @precondition(lambda self: self.resource.physical_id is None)
    @rule(change=changes, deletes_first=st.booleans(), data=trouble)
    def add_without_rollback(self, change: Change, *, deletes_first: bool, data: Trouble) -> None:
        properties = self.changed(change)
        self.perform(
            lambda: self.resource.create_without_rollback(properties, deletes_first=deletes_first),
            **data,
        )

    @precondition(lambda self: self.resource.physical_id is not None)
    @rule(change=changes, others_fail=rarely, in_flight=rarely, data=trouble)
    def change(self, change: Change, *, others_fail: bool, in_flight: bool, data: Trouble) -> None:
        properties = self.changed(change)
        if properties != self.resource.properties:  # otherwise CloudFormation sends nothing
            self.perform(
                lambda: self.resource.update(
                    properties, others_fail=others_fail, in_flight=in_flight
                ),
                **(self.in_flight(data) if in_flight else data),
            )

    @precondition(lambda self: self.resource.physical_id is not None)
    @rule(data=trouble)
    def remove(self, data: Trouble) -> None:
        self.perform(self.resource.remove, **data)

    @precondition(lambda self: self.over())
    @rule(which=st.integers(0, 9))
    def deliver_again(self, which: int) -> None:
        """Lambda delivers an event again, or a delayed one for the first time."""
        events = self.over()
        before = self.cancelled_and_tags()
        self.aws.deliver_again(events[which % len(events)])
        assert self.cancelled_and_tags() == before

    @precondition(lambda self: self.resource.physical_id in self.own)
    @rule(what=st.sampled_from(["deleted", "cancelled", "deprecated", "tags removed"]))
    def drift(self, what: str) -> None:
        """Somebody changes the image by hand."""
        arn = str(self.resource.physical_id)
        match what:
            case "deleted":
                self.aws.delete(arn)
            case "cancelled":
                self.own[arn].status = "CANCELLED"
            case "deprecated":
                self.own[arn].status = "DEPRECATED"
                return
            case "tags removed":
                self.own[arn].tags.clear()
                self.stripped.add(arn)
        self.drifted.add(arn)

    @staticmethod
    def in_flight(data: Trouble) -> Trouble:
        """The faults that two concurrent events may have."""
        short = {call: fault for call, fault in data["wrong"].items() if fault in SHORT}
        return {**data, **IN_FLIGHT, "wrong": short}

    def changed(self, change: Change) -> dict[str, Any]:
        before = self.resource.properties or self.properties
        match change:
            case {ImageProperty.VM_IMPORT_TASK_ID: (ends, seconds)}:
                if self.aws.local.knobs.cancel_import == "refuse" and (ends, seconds) in LONG:
                    # see test_a_rollback_leaves_an_import_that_cannot_be_cancelled
                    ends, seconds = "completed", 60
                change = {ImageProperty.VM_IMPORT_TASK_ID: self.aws.import_task(seconds, ends)}
            case {ImageProperty.TIMEOUT_SECONDS: _}:
                change = (
                    dict.fromkeys(WAITING) if ImageProperty.TIMEOUT_SECONDS in before else WAITING
                )
        properties = {**before, **change}
        return {name: value for name, value in properties.items() if value is not None}


def play(sequences: int, seed: int = 0) -> None:
    """Play random sequences.

    Raises:
        AssertionError: A sequence leaves other images. Hypothesis prints it.
    """
    logging.disable(logging.CRITICAL)
    try:
        with AWS.installed():
            run_state_machine_as_test(
                hypothesis.seed(seed)(LifecycleMachine),
                settings=settings(
                    max_examples=sequences,
                    stateful_step_count=8,
                    phases=[Phase.generate],  # a sequence is short enough to read
                    deadline=None,
                    database=None,
                    report_multiple_bugs=False,
                    suppress_health_check=list(HealthCheck),
                ),
            )
    finally:
        logging.disable(logging.NOTSET)


def test_any_sequence_of_operations_leaves_exactly_the_expected_images() -> None:
    # make soak plays 10,000.
    play(sequences=60)
