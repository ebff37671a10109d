"""Find or create, update and delete: the lifecycle of a resource, whatever its type.

A resource has an identity: what AWS cannot change on an existing image or task. The reconciler
finds what exists for an identity by its tags, and creates it if nothing usable exists. A retry, a
duplicate event and a rollback therefore end with the same image or task.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from aws.deadline import Deadline
from errors import AwsError, ClientTokenError, ImportTaskError, VmImportError, failures_name
from identity import Lookup, Owner, token_tag

logger = logging.getLogger(__name__)

# Reads may lag behind writes: attempts, within about 5 seconds.
_READS: Final = 4
# Another event may be creating it right now: attempts, within 30 to 60 seconds. That is longer than
# a Create takes that finds four tokens used.
_READS_WHILE_OTHERS_CREATE: Final = 8


class Properties(Protocol):
    """What a template says of a resource."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What AWS cannot change: another identity is another image or task."""

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags that the template names."""

    @property
    def client_token(self) -> str | None:
        """The client token that the template names."""

    def lookup(self, owner: Owner) -> Lookup:
        """Return where to find what the resource created for the identity."""


class Resource(Protocol):
    """What exists in AWS: an image or a task."""

    @property
    def id(self) -> str:
        """Its physical id."""

    @property
    def token(self) -> str:
        """The token under which it was created."""

    @property
    def tags(self) -> Mapping[str, str] | None:
        """Its tags."""

    @property
    def status(self) -> str:
        """Its state, in AWS's words."""

    @property
    def is_usable(self) -> bool:
        """Whether it serves its purpose, now or once the import ends."""


P = TypeVar("P", bound=Properties)
R = TypeVar("R", bound=Resource)
P_contra = TypeVar("P_contra", bound=Properties, contravariant=True)


class ResourceType(Protocol[P_contra, R]):
    """What differs between images and tasks."""

    noun: str
    """What error messages call it."""
    next_token_hint: str
    """What a user changes to get other tokens."""

    def is_id(self, physical_id: str) -> bool:
        """Return whether this is the id of one that was created, not a placeholder."""

    def get(self, physical_id: str) -> R | None:
        """Return it by its id, whoever owns it."""

    def find(self, lookup: Lookup) -> Sequence[R]:
        """Return those of this resource that carry one of the tokens."""

    def earlier_failures(self, physical_id: str, properties: P_contra) -> Sequence[R]:
        """Return those that failed, have the same identity and were created before an id."""

    def check(self, properties: P_contra) -> None:
        """Raise ImportTaskError if it cannot be created."""

    def create(self, properties: P_contra, token: str) -> R | None:
        """Create it under a token; None if AWS used the token for one that is gone."""

    def tag(self, resource: R, properties: P_contra, previous: Mapping[str, str]) -> None:
        """Apply the template's tags. Tags that the template never named stay."""

    def delete(self, resource: R, properties: P_contra | None) -> Sequence[str]:
        """Delete it; return what stays of it, each with the reason."""


class Reconciler(Generic[P, R]):
    """Makes AWS agree with the properties of one CloudFormation resource."""

    def __init__(self, owner: Owner, resource_type: ResourceType[P, R], deadline: Deadline) -> None:
        """Work for one resource, during one step.

        Args:
            owner: The CloudFormation resource.
            resource_type: What differs between images and tasks.
            deadline: Ends retries.
        """
        self._owner = owner
        self._type = resource_type
        self._deadline = deadline

    def create(self, properties: P) -> R:
        """Return what the properties describe; create it if it does not exist."""
        # A duplicate of this event may have created it: whatever fails, its Delete must find it.
        with failures_name(properties.lookup(self._owner).placeholder):
            return self._find_or_create(properties)

    def update(self, physical_id: str, properties: P, old: P | None) -> R:
        """Change tags in place; for another identity, return another image or task.

        What is in use is never deleted here. CloudFormation does that in its clean-up.

        Args:
            physical_id: What CloudFormation knows the resource by.
            properties: What the template says now.
            old: What it said before; None if nothing was ever created for that.
        """
        previous = old.tags if old else {}
        if old and old.identity == properties.identity:
            current = self._type.get(physical_id) if self._type.is_id(physical_id) else None
            if current and current.is_usable and not self._owner.is_another(current.tags):
                self._type.tag(current, properties, previous)
                return current
            return self._find_or_create(properties, physical_id, previous)
        lookup = properties.lookup(self._owner)
        result = self._find_or_create(properties, physical_id, previous, lookup.placeholder)
        # CloudFormation already knows what the properties describe, or knows the old ones only by
        # a placeholder: this is a rollback of an update that failed or never responded.
        if old and physical_id in {result.id, old.lookup(self._owner).placeholder}:
            self._delete_leftovers(old)
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
        to_delete: list[R] = []
        if self._type.is_id(physical_id):
            found = self._deadline.until_found(
                physical_id, _READS, lambda: self._type.get(physical_id)
            )
            if found and self._owner.owns(found.tags):
                to_delete.append(found)
            elif found:
                logger.warning("%s has no tags of this resource and is retained", physical_id)
            if properties:
                to_delete += self._type.earlier_failures(physical_id, properties)
        elif lookup := Lookup.of_placeholder(physical_id):
            to_delete += self._find_repeatedly(_READS, lookup)
        elif properties:
            lookup = properties.lookup(self._owner)
            to_delete += self._find_repeatedly(_READS_WHILE_OTHERS_CREATE, lookup)
        return [stays for found in to_delete for stays in self._type.delete(found, properties)]

    def _find_or_create(
        self,
        properties: P,
        physical_id: str = "",
        previous: Mapping[str, str] | None = None,
        failed_id: str = "",
    ) -> R:
        """Return what the properties describe, and delete what failed for the same identity.

        Args:
            properties: What the template says now.
            physical_id: What CloudFormation knows the resource by, and deletes itself.
            previous: The tags that the template named before. Default: the same as now.
            failed_id: What a failed response names once something may have been created.
        """
        found = self._type.find(properties.lookup(self._owner))
        failed = [one for one in found if not one.is_usable and one.id != physical_id]
        previous = properties.tags if previous is None else previous
        try:
            if current := next((one for one in found if one.is_usable), None):
                self._type.tag(current, properties, previous)
                return current
            self._type.check(properties)
            with failures_name(failed_id):
                return self._create(properties, found, previous)
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

    def _create(self, properties: P, found: Sequence[R], previous: Mapping[str, str]) -> R:
        """Create it under the first token that AWS has not used."""
        lookup = properties.lookup(self._owner)
        used = {one.token for one in found}
        own_token = properties.client_token
        for token in lookup.tokens[: 1 if own_token else None]:
            if token in used:
                continue
            created = self._create_under(properties, lookup, token)
            if created and created.is_usable:
                if created.tags != {**properties.tags, **self._owner.tags, **token_tag(token)}:
                    # It existed with other tags, and was not listed yet.
                    self._type.tag(created, properties, previous)
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

    def _create_under(self, properties: P, lookup: Lookup, token: str) -> R | None:
        """Create it under a token; None if AWS used the token for something else."""
        try:
            created = self._type.create(properties, token)
        except AwsError as error:
            # A fault may hide a success. And AWS refuses a token that was used with other tags,
            # although what was created under it may exist.
            reads = _READS if error.is_token_used or error.is_transient else 1
            same = Lookup(lookup.scope, (token,))
            existing = next(
                (one for one in self._find_repeatedly(reads, same) if one.is_usable), None
            )
            if existing or error.is_token_used:
                return existing
            raise
        if created and (self._owner.is_another(created.tags) or created.token not in {"", token}):
            return None
        return created

    def _find_repeatedly(self, attempts: int, lookup: Lookup) -> Sequence[R]:
        """Find those of this resource, and repeat that until a usable one is among them."""
        found: Sequence[R] = []

        def is_found() -> bool:
            nonlocal found
            found = self._type.find(lookup)
            return any(one.is_usable for one in found)

        self._deadline.until_found(lookup.scope, attempts, is_found)
        return found

    def _delete_leftovers(self, old: P) -> None:
        """Delete what an update created that failed or never responded. It may still run."""
        try:
            lookup = old.lookup(self._owner)
            leftovers = self._find_repeatedly(_READS_WHILE_OTHERS_CREATE, lookup)
        except VmImportError as error:
            logger.warning("what the failed update created may be left behind: %s", error)
        else:
            self._clean_up(leftovers, old)

    def _clean_up(self, leftovers: Iterable[R], properties: P) -> None:
        """Delete leftovers as far as possible: the event is about something else."""
        for one in leftovers:
            try:
                self._type.delete(one, properties)
            except VmImportError as error:
                logger.warning("%s is left behind: %s", one.id, error)
