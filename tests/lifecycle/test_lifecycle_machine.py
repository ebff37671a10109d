"""Any sequence of stack operations, with any faults, leaves the images that it should.

`make soak` plays 10,000 sequences; the test run plays a few hundred.
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

from tests.lifecycle.aws_in_process import ANSWER_FAULTS, FAULTS, Aws
from tests.lifecycle.cloudformation_driver import Order, Policy, Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from local_aws.imagebuilder import Image
    from tests.lifecycle.cloudformation_driver import Answer, Event

Change = dict[str, Any]
Trouble = dict[str, Any]

DAY = 86400.0
DEAD = {"FAILED", "CANCELLED", "DELETED"}
AWS = Aws()

denials = st.sets(
    st.sampled_from(
        [
            "ListImageBuildVersions",
            "DescribeImportImageTasks",
            "ImportVmImage",
            "GetImage",
            "TagResource",
        ]
    ),
    max_size=1,
)
trouble = st.fixed_dictionaries(
    {
        "wrong": st.dictionaries(st.integers(0, 30), st.sampled_from(FAULTS), max_size=3),
        "wrong_answers": st.dictionaries(
            st.integers(0, 3), st.sampled_from(ANSWER_FAULTS), max_size=2
        ),
        "denied": denials,
        "repeat": st.sampled_from(["", "", "", "after", "at once"]),
        "chance": st.integers(0, 2**16),
    }
)
rarely = st.sampled_from([False, False, True])
# An event that overtakes another is trouble enough.
QUIET: Trouble = {
    "wrong": {},
    "wrong_answers": {},
    "denied": set(),
    "repeat": "",
    "in_flight": True,
}
changes = st.sampled_from(
    [
        {"Tags": {"a": "1"}},
        {"Tags": {"a": "2", "b": "1"}},
        {"Description": "golden"},
        {"Description": None},
        {"SemanticVersion": "1.0.0"},
        {"SemanticVersion": "2.0.0"},
        {"Name": "RHEL_9"},  # the same slug
        {"VmImportTaskId": "another"},
        {"Tags": {"a": "1"}, "SemanticVersion": "2.0.0"},
    ]
)


class LifecycleMachine(RuleBasedStateMachine):
    """One resource, and two neighbours that must never notice it."""

    def __init__(self) -> None:
        super().__init__()
        self.aws = AWS
        self.repeat = ""
        self.chance = random.Random(0)  # noqa: S311
        self.created: dict[str, float] = {}
        self.drifted: set[str] = set()  # images that somebody's hand was at
        self.stripped: set[str] = set()  # of their tags
        # retained ones, with tags of their time before; and what two events tagged at once
        self.tagged_otherwise: set[str | None] = set()

    # --- the world ---

    @initialize(
        order=st.sampled_from(Order),
        policy=st.sampled_from(Policy),
        replay=st.sampled_from(["replay", "import"]),
        mismatch=st.sampled_from(["refuse", "replay"]),
        cancel=st.sampled_from(["cancel", "refuse"]),
        unknown=st.sampled_from(["empty", "not_found"]),
        there=st.booleans(),
    )
    def begin(
        self,
        order: Order,
        policy: Policy,
        replay: str,
        mismatch: str,
        cancel: str,
        unknown: str,
        *,
        there: bool,
    ) -> None:
        self.aws.reset(
            idempotency_of_dead_image=replay,
            idempotency_mismatch=mismatch,
            cancel_import=cancel,
            unknown_image_version=unknown,
        )
        self.resource = Resource(self.send, self.send_at_once, order, policy)
        self.resource.repair = self.aws.expect
        self.properties: dict[str, Any] = {
            "ServiceToken": "arn:aws:lambda:us-east-1:123456789012:function:f",
            "Name": "rhel-9",
            "SemanticVersion": "1.0.0",
            "Platform": "Linux",
            "VmImportTaskId": self.aws.import_task(),
            "Retain": "false" if policy is Policy.DESTROY else "true",
        }
        for stack_id, logical_id in (
            (self.resource.stack_id, "Another"),
            ("arn:aws:cloudformation:us-east-1:x", self.resource.logical_id),
        ):
            neighbour = Resource(self.send, self.send_at_once, order, policy, stack_id, logical_id)
            assert neighbour.create(self.properties), self.aws.answers
        self.neighbours = {arn: dict(i.tags) for arn, i in self.aws.images.items()}
        if there:
            assert self.resource.create(self.properties)

    def send(self, event: Event) -> Answer | None:
        """Deliver an event, as often as drawn."""
        repeat, self.repeat = self.repeat, ""
        if self.resource.order is Order.MINISTACK:
            repeat = ""  # it calls the function itself, and once
        if repeat == "at once":
            self.aws.deliver_at_once(event, event, chance=self.chance)
        else:
            self.aws.deliver(event)
        answers = self.aws.answers.get(event["ResponseURL"], [])
        first = next(iter(answers), None)
        if repeat == "after" and first:
            self.aws.deliver(event)
        if {answer["Status"] for answer in answers} == {"SUCCESS", "FAILED"}:
            # Two deliveries had different luck, and CloudFormation took the worse: that is mended
            # by what it sends next, but sometimes nothing comes after a Create.
            last = self.resource.policy is Policy.RETAIN or self.resource.order is Order.MINISTACK
            self.resource.abandoned |= last and event["RequestType"] == "Create"
        self.aws.denied = set()  # what made an event fail does not stop the rollback
        if first is None:
            self.aws.sleep(3600)  # the service timeout
        return first

    def send_at_once(self, running: Event, event: Event) -> Answer | None:
        """Deliver an event while another one is handled."""
        self.aws.deliver_at_once(
            running, event, chance=self.chance, head_start=self.chance.randrange(12)
        )
        return next(iter(self.aws.answers.get(event["ResponseURL"], [])), None)

    def perform(
        self,
        operation: Callable[[], object],
        *,
        wrong: dict[int, str],
        wrong_answers: dict[int, str],
        denied: set[str],
        repeat: str,
        chance: int,
        in_flight: bool = False,
    ) -> None:
        """Do a stack operation while things go wrong, and look what it leaves."""
        resource = self.resource
        before = {arn: image.status for arn, image in self.own.items()}
        old_id, old = resource.physical_id, self.identity(resource.properties)
        self.repeat, self.chance = repeat, random.Random(chance)  # noqa: S311
        resource.abandoned = False
        self.aws.expect(wrong, wrong_answers, denied)
        stays = operation()
        self.aws.expect()
        self.tagged_otherwise |= resource.let_go
        if resource.abandoned or (old_id in self.drifted and not stays):
            # Nobody can tell any more what an update made whose image was taken away before it.
            resource.let_go |= set(self.own)
        # what was in order stays, or goes back, to the very image
        in_order = old_id in before and before[old_id] not in DEAD and old_id not in self.drifted
        if resource.physical_id and in_order:
            unchanged = self.identity(resource.properties) == old
            assert (resource.physical_id == old_id) == unchanged
        # what was retained stays; but a rollback may take it for its newcomer while it is young
        for arn in (resource.let_go & set(before)) - set(self.own):
            young = self.aws.clock.now() - self.created[arn] <= DAY
            deleted = resource.policy is Policy.DESTROY or (young and not stays)
            assert deleted or before[arn] in DEAD, f"{arn} was lost"
        if in_flight:
            self.tagged_otherwise.add(resource.physical_id)
        self.check()

    @staticmethod
    def identity(properties: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in properties.items() if name != "Tags"}

    @property
    def own(self) -> dict[str, Image]:
        """The images of the resource, whatever their tags."""
        own = {arn: i for arn, i in self.aws.images.items() if arn not in self.neighbours}
        for arn in own:
            self.created.setdefault(arn, self.aws.clock.now())
        return own

    def check(self) -> None:
        """The invariants."""
        own, known = self.own, self.resource.physical_id
        left = set(own) - self.resource.let_go - self.stripped - {known}
        assert not left, f"left behind: {left}"
        if known and known not in self.drifted:
            assert known in own, "the image is lost"
            assert own[known].status not in DEAD
            tags = {k: v for k, v in own[known].tags.items() if not k.startswith("cdk-vm-import:")}
            wanted = self.resource.properties.get("Tags", {})
            assert wanted.items() <= tags.items() or known in self.tagged_otherwise
            assert wanted == tags or known in self.tagged_otherwise
        for arn, tags in self.neighbours.items():
            assert self.aws.images[arn].tags == tags
            assert self.aws.images[arn].status in {"PENDING", "AVAILABLE"}
        for event in self.aws.answers.values():
            assert event

    # --- what happens ---

    @rule(hours=st.sampled_from([0.01, 1, 23, 49]))
    def time_passes(self, hours: float) -> None:
        self.aws.sleep(hours * 3600)

    @precondition(lambda self: self.resource.physical_id is None)
    @rule(change=changes, others_fail=rarely, in_flight=rarely, data=trouble)
    def add(self, change: Change, *, others_fail: bool, in_flight: bool, data: Trouble) -> None:
        properties = self.changed(change)

        def add() -> bool:
            if in_flight:
                self.resource.create_and_cancel(properties)
                return False
            return self.resource.create(properties, others_fail=others_fail)

        self.perform(add, **({**data, **QUIET} if in_flight else data))

    @precondition(lambda self: self.resource.physical_id is not None)
    @rule(change=changes, others_fail=rarely, in_flight=rarely, data=trouble)
    def change(self, change: Change, *, others_fail: bool, in_flight: bool, data: Trouble) -> None:
        properties = self.changed(change)
        if properties != self.resource.properties:  # else CloudFormation sends nothing
            self.perform(
                lambda: self.resource.update(
                    properties, others_fail=others_fail, in_flight=in_flight
                ),
                **({**data, **QUIET} if in_flight else data),
            )

    @precondition(lambda self: self.resource.physical_id is not None)
    @rule(data=trouble)
    def remove(self, data: Trouble) -> None:
        self.perform(self.resource.remove, **data)

    @precondition(lambda self: self.resource.physical_id in self.own)
    @rule(what=st.sampled_from(["deleted", "cancelled", "deprecated", "tags removed"]))
    def drift(self, what: str) -> None:
        """Somebody's hand."""
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

    def changed(self, change: Change) -> dict[str, Any]:
        if change.get("VmImportTaskId"):
            change = {"VmImportTaskId": self.aws.import_task()}
        properties = {**(self.resource.properties or self.properties), **change}
        return {name: value for name, value in properties.items() if value is not None}


def play(sequences: int, seed: int = 0) -> None:
    """Play random sequences.

    Raises:
        AssertionError: One leaves what it should not. Hypothesis prints the shortest such.
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


def test_any_sequence_of_operations_leaves_just_the_images_that_it_should() -> None:
    play(sequences=120)
