"""Find or create, update and delete: the lifecycle of a resource, whatever its type.

A resource has an identity: what AWS cannot change on an existing image or task. The reconciler
finds what exists for an identity by its tags, and creates it if nothing usable exists. A retry, a
duplicate event and a rollback therefore end with the same image or task.
"""

import logging
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Generic, TypeVar

from aws import Aws
from aws.session import LAG, READS, READS_WHILE_OTHERS_WORK, read_until_found
from aws.stacks import Stack
from cloudformation import executions
from cloudformation.event import Event, seconds_of
from cloudformation.properties import Properties
from cloudformation.step import State
from contract import OwnTag
from errors import (
    AwsError,
    ClientTokenError,
    ImportTaskError,
    NotListedError,
    VmImportError,
    failures_name,
    tolerated,
)
from identity import Existing, Lookup, Owner, Placeholder, Record
from tags import change_tags

logger = logging.getLogger(__name__)

# For how many seconds the steps of an event are repeated until leftovers are deleted.
_CLEAN_UP_LIMIT: Final = 600
# By how many seconds the date of an event may be older than the event: it is that of its
# ResponseURL, in whole seconds, and CloudFormation may use a URL for several events.
_OLDEST_DATE: Final = 65

P = TypeVar("P", bound=Properties)
E = TypeVar("E", bound=Existing)


class ResourceType(ABC, Generic[P, E]):
    """What differs between images and import tasks."""

    noun: str
    """What error messages call it."""
    id_format: re.Pattern[str]
    """The form of the id of one that exists."""
    next_token_hint: str
    """What a user changes to get other tokens."""

    def __init__(self, event: Event, state: State, aws: Aws) -> None:
        """Work for one CloudFormation resource, during one step.

        Args:
            event: CloudFormation's event.
            state: What is known from the steps before.
            aws: The AWS APIs.
        """
        self.event = event
        self.state = state
        self.owner: Owner = event.owner
        self.aws = aws

    def repeats(self, error: VmImportError) -> bool:
        """Return whether the step is repeated after an error, instead of leaving something."""
        return self.state.may_pass(error, _CLEAN_UP_LIMIT)

    def stack(self) -> Stack | None:
        """Return the stack; None if the function may not describe it."""
        try:
            return self.aws.stacks.get(self.owner.stack_id, self.state.started)
        except AwsError as error:
            if not error.is_denied or self.repeats(error):
                raise
            logger.warning("the status of the stack is not known: %s", error)
            return None

    @abstractmethod
    def get(self, physical_id: str) -> E | None:
        """Return it by its id, whoever owns it."""

    @abstractmethod
    def find(self, lookup: Lookup) -> Sequence[E]:
        """Return those of this resource that carry one of the tokens, the oldest first."""

    def check(self, properties: P) -> None:
        """Raise ImportTaskError if it cannot be created."""

    @abstractmethod
    def create(self, properties: P, token: str) -> E | None:
        """Create it under a token; None if AWS used the token for one that is gone."""

    @abstractmethod
    def tag(self, existing: E, tags: Mapping[str, str]) -> None:
        """Add tags, or change their values."""

    @abstractmethod
    def untag(self, existing: E, keys: Sequence[str]) -> None:
        """Remove tags."""

    @abstractmethod
    def delete(self, existing: E, properties: P | None) -> Sequence[str]:
        """Delete it; return what stays of it, each with the reason."""


class Reconciler(Generic[P, E]):
    """Makes AWS agree with the properties of one CloudFormation resource."""

    def __init__(self, resource_type: ResourceType[P, E]) -> None:
        """Work for one resource, during one step."""
        self._type = resource_type
        self._owner = resource_type.owner
        self._event = resource_type.event

    def create(self, properties: P) -> E:
        """Return what the properties describe; create it if it does not exist."""
        return self._find_or_create(properties, properties.tags)

    def update(self, properties: P, old: P | None) -> E:
        """Change tags in place; for another identity, return another image or task.

        What is in use is never deleted here. CloudFormation does that in its clean-up.

        Args:
            properties: What the template says now.
            old: What it said before; None if nothing was ever created for that.
        """
        previous, physical_id = old.tags if old else {}, self._event.physical_id
        if old and old.identity == properties.identity:
            current = self._type.get(physical_id) if self._is_id(physical_id) else None
            if current and current.is_usable and not self._owner.is_another(current.tags):
                self._tag(current, properties, previous)
                return current
            return self._find_or_create(properties, previous, physical_id)
        placeholder = properties.lookup(self._owner).placeholder(self._event.id)
        try:
            result = self._find_or_create(properties, previous, physical_id, placeholder)
        except ImportTaskError:
            # What was deleted by hand cannot be imported again.
            self._clean_up_after("", old)
            raise
        self._clean_up_after(result.id, old)
        return result

    def delete(self, properties: P | None) -> list[str]:
        """Delete what the event's physical id names. If that does not exist, this is a success.

        Args:
            properties: What goes with the id; None if nothing was ever created for that.

        Returns:
            What stays, each with the reason.
        """
        physical_id = self._event.physical_id
        if self._is_id(physical_id):
            existing = read_until_found(lambda: self._type.get(physical_id), READS)
            return self.delete_existing(existing, properties) if existing else []
        try:
            found = self._named_by(physical_id, properties)
        except AwsError as error:
            # What AWS denies now it also denied to the Create, which therefore created nothing.
            if not error.is_denied or self._type.repeats(error):
                raise
            logger.warning("nothing is deleted: %s", error)
            return [f"nothing was found to delete: {error}"]
        kept = [one for one in found if self._belongs_to_another_event(one, physical_id)]
        stays = [
            stay
            for one in found
            if one not in kept
            for stay in self.delete_existing(one, properties)
        ]
        return stays + [f"{one.id} is retained: a later event uses it" for one in kept]

    def delete_existing(self, existing: E, properties: P | None) -> list[str]:
        """Delete an image or a task, unless it belongs to another resource.

        Args:
            existing: The image or the task.
            properties: What the template says of it; None if that is not known.

        Returns:
            What stays, each with the reason.
        """
        if not self._owner.owns(existing.tags):
            return [f"{existing.id} is retained: it does not have the tags of this resource"]
        return list(self._type.delete(existing, properties))

    def _named_by(self, physical_id: str, properties: P | None) -> Sequence[E]:
        """Return what a placeholder, or an id that CloudFormation invented, may stand for."""
        if placeholder := Placeholder.read(physical_id):
            lookup, reads = placeholder.lookup, READS
        elif properties:
            # The Create was cancelled, and may still run.
            lookup, reads = properties.lookup(self._owner), READS_WHILE_OTHERS_WORK
        else:
            return ()
        found = {one.id: one for one in self._find(lookup, reads)}
        if found:
            # What was read may be older than the record of the event that it belongs to now.
            time.sleep(LAG)
            found |= {one.id: one for one in self._type.find(lookup)}
        return list(found.values())

    def _belongs_to_another_event(self, existing: E, physical_id: str) -> bool:
        """Return whether a Delete of a failed or cancelled event must not delete it.

        After a deployment without a rollback, CloudFormation may send that Delete when a later
        event has used what the failed one left.
        """
        record = existing.record
        if placeholder := Placeholder.read(physical_id):
            return record.belongs_to not in {"", placeholder.event_id}
        # The id does not say which event was cancelled.
        sent = seconds_of(record.belongs_to)
        if sent is None:
            return False
        stack = self._type.stack()
        if stack and stack.is_deleted:
            return False
        if stack and sent + _OLDEST_DATE >= stack.changed.timestamp():
            return stack.is_updated
        return bool(record.adopted_by)

    def _is_left(self, existing: E) -> bool:
        """Return whether it is older than this event, and CloudFormation does not delete it."""
        created, own = seconds_of(existing.record.belongs_to), seconds_of(self._event.id)
        # If this is the update, and the rollback runs at the same time, that created it.
        is_later = created is not None and own is not None and created > own
        return existing.id != self._event.physical_id and not is_later

    def _clean_up_after(self, result_id: str, old: P | None) -> None:
        """Delete what an update created that this event undoes; CloudFormation does not."""
        if old and self._rolls_back_to(result_id, old):
            # The update may still run, and create something right now.
            lookup = old.lookup(self._owner)
            with tolerated("leftovers are not known", unless=self._type.repeats):
                found = self._find(lookup, READS_WHILE_OTHERS_WORK)
                # If this is the update, its rollback may run already, and have created this.
                executions.put_in_order(self._event, self._type.state.started)
                self._clean_up([one for one in found if self._is_left(one)], old)

    def _rolls_back_to(self, result_id: str, old: P) -> bool:
        """Return whether the event undoes an update that failed, was cancelled or never responded.

        Args:
            result_id: The id of what the event found or created; empty if it did not.
            old: What the template said before the event.
        """
        physical_id = self._event.physical_id
        placeholder = Placeholder.read(physical_id)
        if physical_id == result_id or (
            placeholder and placeholder.lookup == old.lookup(self._owner)
        ):
            return True
        # What CloudFormation knows may have been changed by hand, so its id does not tell.
        stack = self._type.stack()
        return stack is not None and stack.is_rolling_back

    def _find_or_create(
        self, properties: P, previous: Mapping[str, str], physical_id: str = "", failed_id: str = ""
    ) -> E:
        """Return what the properties describe, and delete what failed for the same identity.

        Args:
            properties: What the template says now.
            previous: The tags that it named before.
            physical_id: What CloudFormation knows the resource by, and deletes itself.
            failed_id: What a failed response names once something may have been created.
        """
        found = self._type.find(properties.lookup(self._owner))
        failed = [one for one in found if not one.is_usable and one.id != physical_id]
        try:
            if current := next((one for one in found if one.is_usable), None):
                self._tag(current, properties, previous, is_new=current.id != physical_id)
                return current
            self._type.check(properties)
            with failures_name(failed_id):
                return self._create(properties, previous, {one.token for one in found})
        except ImportTaskError:
            if not physical_id:
                raise
            # One read may have missed it.
            found = self._find(properties.lookup(self._owner), READS)
            if not found:
                raise
            if current := next((one for one in found if one.is_usable), None):
                self._tag(current, properties, previous, is_new=current.id != physical_id)
                return current
            # Rolling back to an image that had already failed must succeed, or the stack ends in
            # UPDATE_ROLLBACK_FAILED.
            current = next((one for one in found if one.id == physical_id), found[-1])
            logger.warning("%s is %s and cannot be replaced", current.id, current.status)
            failed = [one for one in failed if one != current]
            return current
        finally:
            self._clean_up(failed, properties)

    def _create(self, properties: P, previous: Mapping[str, str], used: set[str]) -> E:
        """Create it under the first token that AWS has not used."""
        lookup, own_token = properties.lookup(self._owner), properties.client_token
        for token in lookup.tokens[: 1 if own_token else None]:
            created = None if token in used else self._create_under(properties, lookup, token)
            if created and created.is_usable:
                requested = {**properties.tags, **self._owner.tags, **Record(token).tag}
                # Otherwise it existed with other tags, and was not listed yet.
                is_as_requested = created.tags == requested
                before = properties.tags if is_as_requested else previous
                self._tag(created, properties, before, is_new=True)
                return created
        if own_token:
            raise ClientTokenError(
                f"client token {own_token!r} was used for an {self._type.noun} that is gone, that "
                "has other properties or that belongs to another resource, and AWS creates no "
                "other one under it",
                "leave client_token out, or change it",
            )
        raise ClientTokenError(
            f"{len(lookup.tokens)} {self._type.noun}s of this identity are gone, and AWS still "
            "remembers their client tokens",
            f"change {self._type.next_token_hint}",
        )

    def _create_under(self, properties: P, lookup: Lookup, token: str) -> E | None:
        """Create it under a token; None if AWS used the token for something else."""
        try:
            created = self._type.create(properties, token)
        except AwsError as error:
            # A fault may hide a success. And AWS refuses a token that was used with other tags,
            # although what was created under it may exist.
            reads = READS if error.is_token_used or error.is_transient else 1
            found = self._find(Lookup(lookup.scope, (token,)), reads)
            existing = next((one for one in found if one.is_usable), None)
            if existing or error.is_token_used:
                return existing
            # What it is created from may have failed a moment ago, for a reason that says more.
            self._type.check(properties)
            raise
        if created and self._owner.is_another(created.tags):
            return None
        if created and created.token not in {"", token}:
            return None
        return created

    def _tag(
        self,
        existing: E,
        properties: P,
        previous: Mapping[str, str],
        *,
        is_new: bool = False,
    ) -> None:
        """Apply the template's tags. Tags that the template never named stay.

        Args:
            existing: The image or the task.
            properties: What the template says now.
            previous: The tags that it named before.
            is_new: Whether it becomes the result of this event, and was not that of the last one.
        """
        try:
            self._change_tags(existing, properties, previous, is_new=is_new)
        except AwsError as error:
            if not error.is_not_found:
                raise
            # What was read was older than its deletion, or than its creation.
            raise NotListedError(f"AWS does not find {existing.id}") from error

    def _change_tags(
        self, existing: E, properties: P, previous: Mapping[str, str], *, is_new: bool
    ) -> None:
        record = self._record(existing, properties, is_new=is_new)
        expected = {**properties.tags, **self._owner.tags, **record.tag}
        changed = {k: v for k, v in expected.items() if existing.tags.get(k) != v}
        # What was read may be older than the change that this one reverts.
        changed |= dict(properties.tags.items() - previous.items())
        removed = previous.keys() - expected.keys()
        if {*changed} == {OwnTag.TOKEN} and existing.token and not removed:
            # Without the record it is usable, too.
            with tolerated(f"{existing.id} has no record of the event", unless=self._repeats):
                self._type.tag(existing, changed)
            return
        add, remove = partial(self._type.tag, existing), partial(self._type.untag, existing)
        change_tags(existing.tags, changed, removed, add, remove)

    def _repeats(self, error: VmImportError) -> bool:
        is_not_found = isinstance(error, AwsError) and error.is_not_found
        return is_not_found or self._type.repeats(error)

    def _record(self, existing: E, properties: P, *, is_new: bool) -> Record:
        record, event_id = existing.record, self._event.id
        if not record.token:
            record = Record(properties.lookup(self._owner).tokens[0])
        if not is_new or event_id == record.created_by:
            return record
        if not record.created_by:
            return replace(record, request_id=existing.request_id, created_by=event_id)
        return replace(record, adopted_by=event_id)

    def _find(self, lookup: Lookup, attempts: int) -> Sequence[E]:
        """Find those of this resource; repeat that until a usable one is among them."""
        found: Sequence[E] = ()

        def is_found() -> bool:
            nonlocal found
            found = self._type.find(lookup)
            return any(one.is_usable for one in found)

        read_until_found(is_found, attempts)
        return found

    def _clean_up(self, leftovers: Iterable[E], properties: P) -> None:
        """Delete leftovers as far as possible: the event is about something else."""
        for one in leftovers:
            with tolerated(f"{one.id} is left behind", unless=self._type.repeats):
                for stays in self._type.delete(one, properties):
                    logger.warning(stays)

    def _is_id(self, physical_id: str) -> bool:
        return self._type.id_format.fullmatch(physical_id) is not None
