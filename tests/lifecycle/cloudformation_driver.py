"""CloudFormation's side of one custom resource: which events it sends, in which order.

Nobody documents all rules. Sources are sections of CloudFormation's user guide and public issues.

1. Delete always follows a failed Create, with the id of the FAILED response (user guide, crpg-ref).
2. A Create that is cancelled, or gets no response, is deleted by an id that CloudFormation invents,
   while the Create may still run (cloudformation-coverage-roadmap 1814, aws-cdk pull 5525).
3. An Update whose response has another physical id is a replacement: Delete of the old id, with the
   old properties, follows in the clean-up after everything else succeeded (resource type Custom::).
4. A rollback of an Update is an Update with the properties swapped, then Delete of the id that the
   Update created. A FAILED response with a new id counts as created, too (aws-cdk 30012). Nobody
   says whether the Update back has the old or the new id: both are played.
5. Delete has the properties that belong to the id.
6. A Delete that fails is tried up to three times, then the resource is retained (AWS's own handler,
   DeleteHandler.java of aws-cloudformation-resource-providers-imagebuilder).
7. Policies: Retain retains what was replaced or removed, and what a rolled back operation created;
   RetainExceptOnCreate, with UpdateReplacePolicy Retain, all but the last (user guide,
   aws-attribute-deletionpolicy).
8. An event without a response within the service timeout has failed (crpg-ref).
"""

from __future__ import annotations

import enum
import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from contract import ResourceType
from tests.support.aws import ROLLS_BACK, STACK_CHANGED, STACK_STATUS
from tests.support.cloudformation import response_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Properties = Mapping[str, Any]
    Response = dict[str, Any]
    Event = dict[str, Any]

_numbers = itertools.count()
# How long after an event CloudFormation cancels it at the earliest, in seconds.
_IN_FLIGHT: Final = 10


class UpdateBack(enum.Enum):
    """Which id the Update of a rollback has."""

    WITH_NEW_ID = "new"
    WITH_OLD_ID = "old"


class Policy(enum.Enum):
    """The removal policies of the CDK, by CloudFormation's DeletionPolicy."""

    DESTROY = "Delete"
    RETAIN = "Retain"
    RETAIN_ON_UPDATE_OR_DELETE = "RetainExceptOnCreate"


@dataclass
class Resource:
    """One resource of one stack.

    Attributes:
        send: Delivers an event; returns the first response, or None if none came in time.
        send_at_once: Delivers an event, and another one while the first is still handled.
        physical_id: The id that CloudFormation knows; None while the resource does not exist.
        retained_ids: Ids that CloudFormation retained, or failed to delete, and no longer manages.
        abandoned: Whether CloudFormation stopped to manage something whose id it does not know.
        now: Returns the time, in seconds since 1970.
        began: When the last stack operation began.
        clean_up_after: How many seconds after an update CloudFormation deletes what it replaced.
        let_pass: Lets time pass, in seconds.
        repair: Ends the faults, before the rollback that failed because of them is continued.
        is_beyond_repair: Whether no rollback to these properties can succeed, because their image
            and its import task have failed.
    """

    send: Callable[[Event], Response | None]
    send_at_once: Callable[[Event, Event], Response | None]
    update_back: UpdateBack
    policy: Policy
    stack_id: str = "arn:aws:cloudformation:us-east-1:123456789012:stack/images/1f"
    logical_id: str = "GoldenImageF00D"
    physical_id: str | None = None
    properties: Properties = field(default_factory=dict)
    retained_ids: set[str] = field(default_factory=set)
    abandoned: bool = False
    now: Callable[[], float] = time.time
    let_pass: Callable[[float], None] = lambda _: None
    repair: Callable[[], None] = lambda: None
    is_beyond_repair: Callable[[Properties], bool] = lambda _: False
    began: float = 0.0
    clean_up_after: float = 0.0

    def event(
        self, request_type: str, properties: Properties, *, later: float = 0, **more: Any
    ) -> Event:
        """An event that CloudFormation sends now, or some seconds later."""
        number = next(_numbers)
        return {
            "RequestType": request_type,
            "RequestId": f"request-{number}",
            "StackId": self.stack_id,
            "ResponseURL": response_url(self.now() + later),
            "ResourceType": ResourceType.IMAGE.value,
            "LogicalResourceId": self.logical_id,
            "ResourceProperties": dict(properties),
            STACK_CHANGED: self.began,
            **more,
        }

    def create(self, properties: Properties, *, others_fail: bool = False) -> bool:
        """Add the resource to the stack; return whether it stays."""
        self.began = self.now()
        response = self.send(self.event("Create", properties))
        if response and response["Status"] == "SUCCESS":
            if not others_fail:
                self.physical_id, self.properties = response["PhysicalResourceId"], properties
                return True
            self._delete_created(response["PhysicalResourceId"], properties)
        else:
            self._delete_created(
                response["PhysicalResourceId"] if response else self._invented(), properties
            )
        return False

    def create_without_rollback(self, properties: Properties, *, deletes_first: bool) -> bool:
        """Create the resource; if that fails, deploy again, as with `cdk deploy --no-rollback`.

        The second stack operation deletes what the first one left. Whether it does so before or
        after it creates the resource is not documented.
        """
        self.began = self.now()
        response = self.send(self.event("Create", properties))
        if response and response["Status"] == "SUCCESS":
            self.physical_id, self.properties = response["PhysicalResourceId"], properties
            return True
        failed_id = response["PhysicalResourceId"] if response else self._invented()
        self.repair()
        self.let_pass(self.clean_up_after)
        if deletes_first:
            self.began = self.now()
            self._delete(failed_id, properties, retained=False)
            return self.create(properties)
        stays = self.create(properties)
        cleans_up = {STACK_STATUS: "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"}
        self._delete(failed_id, properties, retained=False, marks=cleans_up)
        return stays

    def create_and_cancel(self, properties: Properties) -> None:
        """Create the resource, and cancel that because another resource fails."""
        self.began = self.now()
        create = self.event("Create", properties)
        if self.policy is not Policy.RETAIN:
            invented: Any = {"PhysicalResourceId": self._invented(), **ROLLS_BACK}
            delete = self.event("Delete", properties, later=_IN_FLIGHT, **invented)
            self.send_at_once(create, delete)

    def update(
        self, properties: Properties, *, others_fail: bool = False, in_flight: bool = False
    ) -> bool:
        """Change the resource; return whether the change stays.

        Args:
            properties: The new properties.
            others_fail: Whether another resource fails, so that the stack is rolled back.
            in_flight: Whether it fails while this one is still being updated.
        """
        assert self.physical_id
        self.began = self.now()
        old_id, old = self.physical_id, self.properties
        update = self._update(old_id, properties, old)
        if in_flight:
            back = self._update_back(old_id, old, properties, _IN_FLIGHT)
            response = self.send_at_once(update, back)
            if not response or response["Status"] != "SUCCESS":
                response = self._continue_rollback(old_id, old, properties)
            self._come_back(response, old_id)
            return False
        response = self.send(update)
        if response and response["Status"] == "SUCCESS" and not others_fail:
            self.physical_id, self.properties = response["PhysicalResourceId"], properties
            if self.physical_id != old_id:
                self.let_pass(self.clean_up_after)
                self._delete(old_id, old, retained=self.policy is not Policy.DESTROY)
            return True
        self._roll_back(response, old_id, properties, old)
        return False

    def remove(self) -> None:
        """Take the resource out of the template, or delete the stack."""
        assert self.physical_id
        self.began = self.now()
        retained = self.policy is not Policy.DESTROY
        self._delete(self.physical_id, self.properties, retained=retained)
        self.physical_id = None

    def _roll_back(
        self, response: Response | None, old_id: str, properties: Properties, old: Properties
    ) -> None:
        new_id = response["PhysicalResourceId"] if response else old_id
        known_id = old_id if self.update_back is UpdateBack.WITH_OLD_ID else new_id
        back = self.send(self._update_back(known_id, old, properties))
        if not back or back["Status"] != "SUCCESS":
            back = self._continue_rollback(known_id, old, properties)
        self._come_back(back, old_id)
        if new_id not in {self.physical_id, old_id}:
            self._delete_created(new_id, properties)

    def _continue_rollback(
        self, known_id: str, old: Properties, properties: Properties
    ) -> Response:
        """Continue the rollback of a stack in UPDATE_ROLLBACK_FAILED when the faults are over.

        A resource that cannot be rolled back is skipped (user guide, ContinueUpdateRollback,
        ResourcesToSkip).
        """
        self.repair()
        response = self.send(self._update_back(known_id, old, properties))
        assert response
        if response["Status"] != "SUCCESS":
            assert self.is_beyond_repair(old), response["Reason"]
            self.abandoned = True
            return {"PhysicalResourceId": self.physical_id}
        return response

    def _come_back(self, response: Response, old_id: str) -> None:
        self.physical_id = response["PhysicalResourceId"]
        if self.physical_id != old_id:
            self.retained_ids.add(old_id)  # deleted, or the rollback returned to another one

    def _update(
        self, physical_id: str, properties: Properties, old: Properties, later: float = 0
    ) -> Event:
        more: Any = {"PhysicalResourceId": physical_id, "OldResourceProperties": dict(old)}
        return self.event("Update", properties, later=later, **more)

    def _update_back(
        self, physical_id: str, old: Properties, properties: Properties, later: float = 0
    ) -> Event:
        return self._update(physical_id, old, properties, later) | ROLLS_BACK

    def _delete_created(self, physical_id: str, properties: Properties) -> None:
        self.abandoned |= self.policy is Policy.RETAIN and not physical_id.startswith("arn:")
        is_retained = self.policy is Policy.RETAIN
        self._delete(physical_id, properties, retained=is_retained, marks=ROLLS_BACK)

    def _delete(
        self,
        physical_id: str,
        properties: Properties,
        *,
        retained: bool,
        marks: Mapping[str, str] | None = None,
    ) -> None:
        if not retained:
            for _ in range(3):
                more: Any = {"PhysicalResourceId": physical_id, **(marks or {})}
                event = self.event("Delete", properties, **more)
                response = self.send(event)
                if response and response["Status"] == "SUCCESS":
                    assert response["PhysicalResourceId"] == physical_id
                    return
            self.abandoned = True
        self.retained_ids.add(physical_id)

    def _invented(self) -> str:
        return f"images-{self.logical_id}-1ABCDEFGHIJKL"
