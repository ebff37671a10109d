"""Find or create, update and delete: the lifecycle of a resource, whatever its type.

A resource has an identity: what AWS cannot change on an existing image or task. The reconciler
finds what exists for an identity by its tags, and creates it if nothing usable exists. A retry, a
duplicate event and a rollback therefore end with the same image or task.
"""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from aws import Aws
from aws.session import read_until_found
from cloudformation.properties import Properties
from errors import AwsError, ClientTokenError, ImportTaskError, failures_name, tolerated
from identity import Existing, Lookup, Owner, token_tag

logger = logging.getLogger(__name__)

# Reads may lag behind writes: attempts, within about 5 seconds.
READS: Final = 4
# Another event, or AWS itself, may need time: attempts, within 30 to 60 seconds. That is longer
# than a Create takes that finds four tokens used, and shorter than contract.GRACE.
READS_WHILE_OTHERS_WORK: Final = 8
# For how many seconds the steps of an event are repeated until leftovers are deleted.
_CLEAN_UP_LIMIT: Final = 600

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

    def __init__(self, owner: Owner, aws: Aws) -> None:
        """Work for one CloudFormation resource.

        Args:
            owner: The resource.
            aws: The AWS APIs.
        """
        self.owner = owner
        self.aws = aws

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
    def change_tags(self, existing: E, changed: Mapping[str, str], removed: Sequence[str]) -> None:
        """Add tags or change their values, and remove tags; both may be empty."""

    @abstractmethod
    def delete(self, existing: E, properties: P | None) -> Sequence[str]:
        """Delete it; return what stays of it, each with the reason."""


class Reconciler(Generic[P, E]):
    """Makes AWS agree with the properties of one CloudFormation resource."""

    def __init__(self, resource_type: ResourceType[P, E], elapsed: float = 0) -> None:
        """Work for one resource, during one step.

        Args:
            resource_type: The resource.
            elapsed: Seconds since the first step.
        """
        self._type = resource_type
        self._owner = resource_type.owner
        self._waits_for_clean_up = elapsed < _CLEAN_UP_LIMIT

    def create(self, properties: P) -> E:
        """Return what the properties describe; create it if it does not exist."""
        # A duplicate of this event may have created it: whatever fails, its Delete must find it.
        with failures_name(properties.lookup(self._owner).placeholder):
            return self._find_or_create(properties, properties.tags)

    def update(self, physical_id: str, properties: P, old: P | None) -> E:
        """Change tags in place; for another identity, return another image or task.

        What is in use is never deleted here. CloudFormation does that in its clean-up.

        Args:
            physical_id: What CloudFormation knows the resource by.
            properties: What the template says now.
            old: What it said before; None if nothing was ever created for that.
        """
        previous = old.tags if old else {}
        if old and old.identity == properties.identity:
            current = self._type.get(physical_id) if self._is_id(physical_id) else None
            if current and current.is_usable and not self._owner.is_another(current.tags):
                self._tag(current, properties, previous)
                return current
            return self._find_or_create(properties, previous, physical_id)
        placeholder = properties.lookup(self._owner).placeholder
        result = self._find_or_create(properties, previous, physical_id, placeholder)
        # CloudFormation already knows what the properties describe, or knows the old ones only by
        # a placeholder: this is a rollback of an update that failed or never responded.
        if old and physical_id in {result.id, old.lookup(self._owner).placeholder}:
            # The update may still run, and create something right now.
            lookup = old.lookup(self._owner)
            with tolerated("leftovers are not known", except_transient=self._waits_for_clean_up):
                self._clean_up(self._find(lookup, READS_WHILE_OTHERS_WORK), old)
        return result

    def delete(self, physical_id: str, properties: P | None) -> list[str]:
        """Delete what a physical id names. If that does not exist, this is a success.

        Args:
            physical_id: The id of an image or task; or a placeholder; or, after a Create that was
                cancelled, an id that CloudFormation invented. Then the properties are used.
            properties: What goes with the id; None if nothing was ever created for that.

        Returns:
            What stays, each with the reason.
        """
        to_delete: Sequence[E] = ()
        if self._is_id(physical_id):
            found = read_until_found(lambda: self._type.get(physical_id), READS)
            if found and self._owner.owns(found.tags):
                to_delete = [found]
            elif found:
                logger.warning("%s has no tags of this resource and is retained", physical_id)
        elif lookup := Lookup.of_placeholder(physical_id):
            to_delete = self._find(lookup, READS)
        elif properties:
            lookup = properties.lookup(self._owner)
            to_delete = self._find(lookup, READS_WHILE_OTHERS_WORK)
        return [stays for one in to_delete for stays in self._type.delete(one, properties)]

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
                self._tag(current, properties, previous)
                return current
            self._type.check(properties)
            with failures_name(failed_id):
                return self._create(properties, previous, {one.token for one in found})
        except ImportTaskError:
            if not (physical_id and found):
                raise
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
                if created.tags != {**properties.tags, **self._owner.tags, **token_tag(token)}:
                    # It existed with other tags, and was not listed yet.
                    self._tag(created, properties, previous)
                return created
        if own_token:
            raise ClientTokenError(
                f"client token {own_token!r} was used for an {self._type.noun} that is gone, that "
                "has other properties or that belongs to another resource, and AWS creates no "
                "other one under it. Hint: leave client_token out, or change it"
            )
        raise ClientTokenError(
            f"{len(lookup.tokens)} {self._type.noun}s of this identity are gone, and AWS still "
            f"remembers their client tokens. Hint: change {self._type.next_token_hint}"
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
            raise
        if created and (self._owner.is_another(created.tags) or created.token not in {"", token}):
            return None
        return created

    def _tag(self, existing: E, properties: P, previous: Mapping[str, str]) -> None:
        """Apply the template's tags. Tags that the template never named stay."""
        token = existing.token or properties.lookup(self._owner).tokens[0]
        expected = {**properties.tags, **self._owner.tags, **token_tag(token)}
        changed = {k: v for k, v in expected.items() if existing.tags.get(k) != v}
        # What was read may be older than the change that this one reverts.
        changed |= dict(properties.tags.items() - previous.items())
        self._type.change_tags(existing, changed, sorted(previous.keys() - expected.keys()))

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
            with tolerated(f"{one.id} is left behind", except_transient=self._waits_for_clean_up):
                self._type.delete(one, properties)

    def _is_id(self, physical_id: str) -> bool:
        return self._type.id_format.fullmatch(physical_id) is not None
