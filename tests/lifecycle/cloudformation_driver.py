"""CloudFormation's side of one custom resource: which events it sends, in which order.

Rules of the documented order; sources are sections of CloudFormation's user guide and public issue
threads, for nobody documents them all:

1. Delete always follows a failed Create, with the id of the FAILED answer (user guide, crpg-ref).
2. A Create that is cancelled, or never answered, is deleted by an id that CloudFormation invents,
   while the Create may still run (cloudformation-coverage-roadmap 1814, aws-cdk pull 5525).
3. An Update that answers another physical id replaces: Delete of the old id, with the old
   properties, in the clean-up after all else succeeded (resource type Custom::).
4. A rollback of an Update is an Update with the properties swapped, then Delete of the newcomer's
   id; a FAILED answer with a new id is a newcomer, too (aws-cdk 30012). Whether the Update back
   carries the old or the new id then is not said: both are played.
5. Delete carries the properties that go with the id.
6. A Delete that fails is tried up to three times, then the resource is let go (AWS's own handler,
   DeleteHandler.java of aws-cloudformation-resource-providers-imagebuilder).
7. Policies: Retain keeps the replaced, the removed and the newcomer of a rollback;
   RetainExceptOnCreate, with UpdateReplacePolicy Retain, all but the newcomer (user guide,
   aws-attribute-deletionpolicy).
8. An event whose answer did not come within the service timeout has failed (crpg-ref).

MiniStack 1.5.33 (services/cloudformation/stacks.py) has another order: no Delete after a failed
Create; after a failed Update an Update back with the old id, and no Delete; after a successful
Update that is rolled back Delete of the newcomer, and no Update back; Delete is tried once.
"""

from __future__ import annotations

import enum
import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Properties = Mapping[str, Any]
    Answer = dict[str, Any]
    Event = dict[str, Any]

_numbers = itertools.count()
# How long after an event CloudFormation gives it up at the earliest, in seconds.
_IN_FLIGHT: Final = 10


def signature_date(seconds: float) -> str:
    """A time as the signature of a ResponseURL has it."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


class Order(enum.Enum):
    """Whose order of events is played."""

    DOCUMENTED = "documented"
    DOCUMENTED_OLD_ID = "documented, the old id in an Update back"
    MINISTACK = "MiniStack"


class Policy(enum.Enum):
    """The removal policies of the CDK, by CloudFormation's DeletionPolicy."""

    DESTROY = "Delete"
    RETAIN = "Retain"
    RETAIN_ON_UPDATE_OR_DELETE = "RetainExceptOnCreate"


@dataclass
class Resource:
    """One resource of one stack.

    Attributes:
        send: Delivers an event; returns the first answer, or None if none came in time.
        send_at_once: Delivers an event, and another one while the first is still handled.
        physical_id: As CloudFormation knows it; None while the resource is not there.
        let_go: Ids that CloudFormation retained, or failed to delete, and cares for no more.
        abandoned: Whether CloudFormation gave up something without an id to tell what.
        now: The time, in seconds since 1970.
        repair: What stands between the faults and a rollback that failed because of them.
        is_beyond_repair: Whether nobody can go back to these properties, as their image is dead,
            and its import task too.
    """

    send: Callable[[Event], Answer | None]
    send_at_once: Callable[[Event, Event], Answer | None]
    order: Order
    policy: Policy
    stack_id: str = "arn:aws:cloudformation:us-east-1:123456789012:stack/images/1f"
    logical_id: str = "GoldenImageF00D"
    physical_id: str | None = None
    properties: Properties = field(default_factory=dict)
    let_go: set[str] = field(default_factory=set)
    abandoned: bool = False
    now: Callable[[], float] = time.time
    repair: Callable[[], None] = lambda: None
    is_beyond_repair: Callable[[Properties], bool] = lambda _: False

    def event(
        self, request_type: str, properties: Properties, *, later: float = 0, **more: Any
    ) -> Event:
        """An event, as CloudFormation writes it now, or some seconds later."""
        number, date = next(_numbers), signature_date(self.now() + later)
        return {
            "RequestType": request_type,
            "RequestId": f"request-{number}",
            "StackId": self.stack_id,
            "ResponseURL": f"https://cloudformation.invalid/{number}?X-Amz-Date={date}",
            "ResourceType": "Custom::ImportedVmImage",
            "LogicalResourceId": self.logical_id,
            "ResourceProperties": dict(properties),
            **more,
        }

    def create(self, properties: Properties, *, others_fail: bool = False) -> bool:
        """Add the resource to the stack; whether it stays."""
        answer = self.send(self.event("Create", properties))
        if answer and answer["Status"] == "SUCCESS":
            if not others_fail:
                self.physical_id, self.properties = answer["PhysicalResourceId"], properties
                return True
            self._delete_newcomer(answer["PhysicalResourceId"], properties)
        elif self.order is not Order.MINISTACK:
            self._delete_newcomer(
                answer["PhysicalResourceId"] if answer else self._invented(), properties
            )
        elif not answer:
            self.abandoned = True
        return False

    def create_and_cancel(self, properties: Properties) -> None:
        """Another resource fails while the Create is in flight."""
        create = self.event("Create", properties)
        if self.order is Order.MINISTACK:  # one after the other
            self.create(properties, others_fail=True)
        elif self.policy is not Policy.RETAIN:
            invented: Any = {"PhysicalResourceId": self._invented()}
            delete = self.event("Delete", properties, later=_IN_FLIGHT, **invented)
            self.send_at_once(create, delete)

    def update(
        self, properties: Properties, *, others_fail: bool = False, in_flight: bool = False
    ) -> bool:
        """Change the resource; whether the change stays.

        Args:
            properties: The new ones.
            others_fail: Whether another resource fails, so that all is rolled back.
            in_flight: Whether it does so while this one is still updated.
        """
        assert self.physical_id
        old_id, old = self.physical_id, self.properties
        update = self._update(old_id, properties, old)
        if in_flight and self.order is not Order.MINISTACK:
            back = self._update(old_id, old, properties, _IN_FLIGHT)
            answer = self.send_at_once(update, back)
            if not answer or answer["Status"] != "SUCCESS":
                answer = self._continue_rollback(old_id, old, properties)
            self._come_back(answer, old_id)
            return False
        answer = self.send(update)
        if answer and answer["Status"] == "SUCCESS" and not (others_fail or in_flight):
            self.physical_id, self.properties = answer["PhysicalResourceId"], properties
            if self.physical_id != old_id:
                self._delete(old_id, old, retained=self.policy is not Policy.DESTROY)
            return True
        self._roll_back(answer, old_id, properties, old)
        return False

    def remove(self) -> None:
        """Take the resource out of the template, or delete the stack."""
        assert self.physical_id
        retained = self.policy is not Policy.DESTROY
        self._delete(self.physical_id, self.properties, retained=retained)
        self.physical_id = None

    def _roll_back(
        self, answer: Answer | None, old_id: str, properties: Properties, old: Properties
    ) -> None:
        new_id = answer["PhysicalResourceId"] if answer else old_id
        if self.order is Order.MINISTACK:
            if answer and answer["Status"] == "SUCCESS" and new_id != old_id:
                self._delete_newcomer(new_id, properties)
                return
            new_id = old_id
        known_id = old_id if self.order is Order.DOCUMENTED_OLD_ID else new_id
        back = self.send(self._update(known_id, old, properties))
        if not back or back["Status"] != "SUCCESS":
            back = self._continue_rollback(known_id, old, properties)
        self._come_back(back, old_id)
        if new_id not in {self.physical_id, old_id}:
            self._delete_newcomer(new_id, properties)

    def _continue_rollback(self, known_id: str, old: Properties, properties: Properties) -> Answer:
        """Somebody mends what made the stack UPDATE_ROLLBACK_FAILED, and goes on.

        What nobody can mend is skipped (user guide, ContinueUpdateRollback, ResourcesToSkip).
        """
        self.repair()
        answer = self.send(self._update(known_id, old, properties))
        assert answer
        if answer["Status"] != "SUCCESS":
            assert self.is_beyond_repair(old), answer["Reason"]
            self.abandoned = True
            return {"PhysicalResourceId": self.physical_id}
        return answer

    def _come_back(self, answer: Answer, old_id: str) -> None:
        self.physical_id = answer["PhysicalResourceId"]
        if self.physical_id != old_id:
            self.let_go.add(old_id)  # gone, or it had come back to it

    def _update(
        self, physical_id: str, properties: Properties, old: Properties, later: float = 0
    ) -> Event:
        more: Any = {"PhysicalResourceId": physical_id, "OldResourceProperties": dict(old)}
        return self.event("Update", properties, later=later, **more)

    def _delete_newcomer(self, physical_id: str, properties: Properties) -> None:
        self.abandoned |= self.policy is Policy.RETAIN and not physical_id.startswith("arn:")
        self._delete(physical_id, properties, retained=self.policy is Policy.RETAIN)

    def _delete(self, physical_id: str, properties: Properties, *, retained: bool) -> None:
        if not retained:
            for _ in range(1 if self.order is Order.MINISTACK else 3):
                event = self.event("Delete", properties, PhysicalResourceId=physical_id)
                answer = self.send(event)
                if answer and answer["Status"] == "SUCCESS":
                    assert answer["PhysicalResourceId"] == physical_id
                    return
            self.abandoned = True
        self.let_go.add(physical_id)

    def _invented(self) -> str:
        return f"images-{self.logical_id}-1ABCDEFGHIJKL"
