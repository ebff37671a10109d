"""Custom::VmAmiSettings: launch permissions, IMDS support and deprecation date of an AMI.

An event undoes what the template no longer says, then records on the AMI what exists already, then
sets what the template says. So an event that failed half-way can be undone exactly.
"""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ami_settings.properties import AmiSettingsProperties, time_of
from ami_settings.record import (
    MAX_EXISTING,
    NOTHING_SET,
    Record,
    digest,
    digest_of_all,
    records,
    tag_key,
)
from aws import Aws
from aws.ec2 import Ami, Permission
from aws.session import LAG, READS, read_until_found
from cloudformation.event import Event
from cloudformation.step import Done, Pending, Response, State
from contract import OwnTag
from errors import (
    ANOTHER_IMPORT,
    AmiSettingsError,
    NotListedError,
    Reason,
    VmImportError,
    failures_name,
)

logger = logging.getLogger(__name__)


def step(event: Event, state: State, aws: Aws) -> Pending | Done:
    """Take a step of an event of the resource.

    Args:
        event: CloudFormation's event.
        state: What is known from the steps before.
        aws: The AWS APIs.
    """
    # What is read must not be older than what the event before wrote.
    if state.elapsed < LAG:
        return Pending(state, math.ceil(LAG - state.elapsed))
    settings = AmiSettings(event, aws)
    # What an event names that has changed no AMI: the id that CloudFormation knows, or this one.
    nothing_set = event.owner.logical_id
    if event.request_type == "Delete":
        if event.physical_id == nothing_set:
            return Done(Response(nothing_set))
        named = AmiSettingsProperties.read_known(event.properties)
        return Done(Response(event.physical_id, reason=Reason("; ".join(settings.delete(named)))))
    properties = AmiSettingsProperties.read(event.properties)
    # The settings of another AMI are another resource: CloudFormation deletes the old one.
    physical_id = properties.image_id or nothing_set
    unchanged = event.physical_id or nothing_set
    with failures_name(physical_id if state.record else unchanged):
        ami = settings.find(properties.image_id)
        if ami is None:
            error: VmImportError = NotListedError("EC2 does not list the AMI", ids=[physical_id])
            if not properties.image_id:
                error = AmiSettingsError(
                    "there is no AMI: the import of the image had failed", ANOTHER_IMPORT
                )
            # A rollback to an image whose AMI is gone must succeed.
            if state.may_pass(error) or not _is_rolling_back(event, state, aws):
                raise error
            return Done(Response(physical_id, reason=error.reason))
        old = AmiSettingsProperties.read_known(event.old_properties)
        if not state.record:
            # Kept in the state first: when the step is repeated, what it added exists already.
            record = settings.record(ami, properties, old)
            return Pending(replace(state, record=record.value), 1)
        stays = settings.change(ami, properties, old, state.record)
        return Done(Response(physical_id, reason=Reason("; ".join(stays))))


def _is_rolling_back(event: Event, state: State, aws: Aws) -> bool:
    return aws.stacks.get(event.owner.stack_id, state.started).is_rolling_back


class AmiSettings:
    """The settings of AMIs, as far as one CloudFormation resource may change them."""

    def __init__(self, event: Event, aws: Aws) -> None:
        """Work for the resource of an event."""
        self._owner = event.owner
        self._ec2 = aws.ec2
        self._key = tag_key(event.owner)

    def find(self, ami_id: str) -> Ami | None:
        """Return an AMI; None if EC2 does not list it, or if the image has none."""
        return next(iter(self._ec2.amis("image-id", [ami_id])), None) if ami_id else None

    def record(
        self, ami: Ami, properties: AmiSettingsProperties, old: AmiSettingsProperties
    ) -> Record:
        """Return what to record before the settings are changed.

        Args:
            ami: The AMI.
            properties: What the template says now.
            old: What it said before.

        Raises:
            AmiSettingsError: The AMI is not of this stack, or too much exists already.
        """
        stack_id = ami.tags.get(OwnTag.STACK, self._owner.stack_id)
        if stack_id != self._owner.stack_id:
            raise AmiSettingsError(
                "the AMI belongs to another stack, so its settings cannot be changed here",
                "use AmiSettings in that stack; if that stack is deleted, remove its tag with "
                f"'aws ec2 delete-tags --resources {ami.id} --tags Key={OwnTag.STACK}' and deploy "
                "again",
                [ami.id, f"its tag {OwnTag.STACK} is {stack_id}"],
            )
        previous = Record.read(ami.tags, self._key)
        known = previous.existing if previous else frozenset()
        applied: frozenset[Permission] = frozenset()
        for named in (properties.permissions, old.permissions):
            if previous and previous.describes(named):
                applied = named
        present = self._ec2.launch_permissions(ami.id)
        # What a person has removed since is new, unless it may be another resource that added it.
        if not records(ami.tags).keys() <= {self._key}:
            present |= applied
        existing = frozenset(
            digest(permission)
            for permission in properties.permissions & present
            if permission not in applied or digest(permission) in known
        )
        if len(existing) > MAX_EXISTING:
            raise AmiSettingsError(
                f"{len(existing)} of the launch permissions exist on the AMI already: at most "
                f"{MAX_EXISTING} can be recorded",
                "leave some of them out of the template, or remove them with "
                "'aws ec2 modify-image-attribute'",
                [ami.id],
            )
        deprecate_at = None
        if properties.deprecate_at:
            deprecate_at = previous.deprecate_at if previous else None
            if deprecate_at is None:
                deprecate_at = _text(time_of(ami.deprecate_at))
        return Record(
            digest_of_all(properties.permissions), existing, deprecate_at, properties.is_retained
        )

    def change(
        self, ami: Ami, properties: AmiSettingsProperties, old: AmiSettingsProperties, value: str
    ) -> list[str]:
        """Undo what the template no longer says, and set what it says.

        Args:
            ami: The AMI.
            properties: What the template says now.
            old: What it said before.
            value: What to record.

        Returns:
            What stays although the template no longer says it, each with the reason.
        """
        previous = Record.read(ami.tags, self._key)
        undone = AmiSettingsProperties()
        # An event that failed before its record was written changed nothing.
        if previous and previous.describes(old.permissions):
            undone = replace(undone, permissions=old.permissions - properties.permissions)
        if not properties.deprecate_at:
            undone = replace(undone, deprecate_at=old.deprecate_at)
        tags = {**self._undo(ami, undone, previous), self._key: value}
        if not tags.items() <= ami.tags.items():
            self._tag(ami, tags)
        missing = properties.permissions - self._ec2.launch_permissions(ami.id)
        self._ec2.change_launch_permissions(ami.id, missing, ())
        if properties.deprecate_at:
            self._deprecate(ami, properties.deprecate_at)
        # Last, because EC2 cannot undo it.
        if properties.imds_support not in {"", ami.imds_support}:
            self._ec2.set_imds_support(ami.id, properties.imds_support)
        return [] if properties.imds_support else _imds_support_stays(ami, old)

    def delete(self, named: AmiSettingsProperties) -> list[str]:
        """Undo what the resource set. If the AMI is gone, this is a success.

        Args:
            named: What the template said.

        Returns:
            What stays, each with the reason.
        """
        ami = read_until_found(lambda: self.find(named.image_id), READS) if named.image_id else None
        if ami is None:
            return []
        record = Record.read(ami.tags, self._key)
        if record is None:
            return [f"the settings of {ami.id} stay: the resource changed none of them"]
        undone = named
        if record.describes(()):
            undone = replace(undone, permissions=frozenset())
        if others := self._undo(ami, undone, record):
            # In one call, so that a repeated step does not undo what was left to another resource.
            self._tag(ami, {**others, self._key: NOTHING_SET.value})
        self._ec2.untag([ami.id], [self._key])
        return _imds_support_stays(ami, named)

    def _undo(
        self, ami: Ami, undone: AmiSettingsProperties, record: Record | None
    ) -> dict[str, str]:
        """Undo settings of the resource, except what existed before.

        What another resource of the stack names too is left to that. For example, when a construct
        gets another id, CloudFormation creates the new resource before it deletes the old one.

        Args:
            ami: The AMI.
            undone: The settings.
            record: What existed before; None if the resource changed nothing.

        Returns:
            The tags with which other resources of the stack record that they have taken over.
        """
        if record is None:
            return {}
        removed = {
            digest(permission): permission
            for permission in undone.permissions
            if digest(permission) not in record.existing
        }
        date = undone.deprecate_at if record.deprecate_at is not None else None
        tags = {}
        for key, other in records(ami.tags).items():
            shared = other.existing & removed.keys()
            takes_date = date is not None and _are_same(time_of(other.deprecate_at or ""), date)
            if key == self._key or not (shared or takes_date):
                continue
            removed = {one: removed[one] for one in removed.keys() - shared}
            taken = replace(other, existing=other.existing - shared)
            if takes_date:
                taken, date = replace(taken, deprecate_at=record.deprecate_at), None
            tags[key] = taken.value
        if removed:
            present = self._ec2.launch_permissions(ami.id) & {*removed.values()}
            self._ec2.change_launch_permissions(ami.id, (), present)
        # Somebody else may have changed the date since.
        if date and _are_same(time_of(ami.deprecate_at), date):
            if before := time_of(record.deprecate_at or ""):
                self._deprecate(ami, before)
            else:
                self._ec2.deprecate(ami.id, "")
        return tags

    def _deprecate(self, ami: Ami, when: datetime) -> None:
        """Deprecate an AMI, at once if the date is over: EC2 accepts no date in the past."""
        if not _are_same(time_of(ami.deprecate_at), when):
            self._ec2.deprecate(ami.id, _text(_effective(when, time.time())))

    def _tag(self, ami: Ami, tags: Mapping[str, str]) -> None:
        # The function may tag only with the tag of its stack.
        self._ec2.tag([ami.id], {**tags, OwnTag.STACK: self._owner.stack_id})


def _effective(when: datetime | None, now: float) -> datetime | None:
    """Return a date, or for a date in the past the next one that EC2 accepts, in whole minutes."""
    if when is None:
        return None
    soon = datetime.fromtimestamp(now, UTC) + timedelta(minutes=2)
    return max(when, soon).replace(second=0, microsecond=0)


def _are_same(first: datetime | None, second: datetime | None) -> bool:
    """Return whether two dates deprecate an AMI alike: all dates in the past do."""
    now = time.time()
    return _effective(first, now) == _effective(second, now)


def _text(when: datetime | None) -> str:
    return when.isoformat() if when else ""


def _imds_support_stays(ami: Ami, old: AmiSettingsProperties) -> list[str]:
    if not (old.imds_support and ami.imds_support):
        return []
    return [f"ImdsSupport {ami.imds_support} of {ami.id} stays: EC2 cannot undo it"]
