"""Who created an image or a task, and under which tokens: how the handler recognises its own."""

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Final, Self

from contract import OwnTag

# AWS may replay a token whose image is gone. Then the next token of the chain is used.
MAX_TOKENS: Final = 5
# Never changes: the tokens of deployed images are derived from it.
_NAMESPACE: Final = uuid.UUID("5b0f7e0c-6f5d-5a43-9a39-0d3c1d1c8a52")


@dataclass(frozen=True)
class Owner:
    """A CloudFormation resource, which owns what the handler creates for it."""

    stack_id: str
    logical_id: str

    @property
    def tags(self) -> dict[str, str]:
        """The tags by which the resource recognises what it owns."""
        return {OwnTag.STACK: self.stack_id, OwnTag.RESOURCE: self.logical_id}

    def owns(self, tags: Mapping[str, str]) -> bool:
        """Return whether something carries all tags of this resource."""
        return self.tags.items() <= tags.items()

    def is_another(self, tags: Mapping[str, str]) -> bool:
        """Return whether something carries the tags of another resource."""
        return any(tags.get(key, value) != value for key, value in self.tags.items())


@dataclass(frozen=True)
class Record:
    """What the tag OwnTag.TOKEN records of an image or a task. The token alone is its beginning."""

    token: str = ""
    """The idempotency token under which the handler created it."""
    request_id: str = ""
    """The id of the request that created it."""
    created_by: str = ""
    """The event that created it."""
    adopted_by: str = ""
    """The last event that found it instead of creating another one."""

    @property
    def tag(self) -> dict[str, str]:
        """The tag that records it."""
        return {OwnTag.TOKEN: "/".join(astuple(self)).rstrip("/")}

    @property
    def belongs_to(self) -> str:
        """The last event whose result it is."""
        return self.adopted_by or self.created_by


@dataclass(frozen=True)
class Existing(ABC):
    """An image or an import task that exists in AWS."""

    id: str
    """Its physical id: the ARN of an image, or the id of a task."""
    status: str
    """Its state, in AWS's words."""
    tags: Mapping[str, str]
    request_id: str = ""
    """The id of the request that created it, or else of the request that described it."""

    @property
    def record(self) -> Record:
        """What its tags record of its creation."""
        return Record(*self.tags.get(OwnTag.TOKEN, "").split("/")[:4])

    @property
    def token(self) -> str:
        """The idempotency token under which the handler created it."""
        return self.record.token

    @property
    @abstractmethod
    def is_usable(self) -> bool:
        """Whether it serves its purpose, now or once the import ends."""


@dataclass(frozen=True)
class Lookup:
    """Where to find what a resource created for an identity, and under which tokens."""

    scope: str
    """For an image its slug and version, `rhel9-golden/1.0.0`; for a task `import-task`."""
    tokens: tuple[str, ...]
    """In the order in which they are used."""

    def placeholder(self, event_id: str) -> str:
        """Return the physical id of what an event may have created: enough to find and delete it.

        Args:
            event_id: The event. What belongs to a later event is not deleted by the placeholder.
        """
        return f"{self.scope}/{self.tokens[0]}/{event_id}"


@dataclass(frozen=True)
class Placeholder:
    """A physical id that Lookup.placeholder returned."""

    lookup: Lookup
    event_id: str

    @classmethod
    def read(cls, physical_id: str) -> Self | None:
        """Read a physical id; None if it is not a placeholder."""
        scope, _, rest = physical_id.rpartition("/")
        scope, _, token = scope.rpartition("/")
        try:
            uuid.UUID(token)
        except ValueError:
            return None
        return cls(Lookup(scope, _chain(token)), rest) if scope else None


def tokens_of(owner: Owner, identity: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the idempotency tokens of what a resource creates for an identity.

    They depend on nothing else: a retry, a duplicate event and a rollback find the same image.
    """
    text = json.dumps([owner.stack_id, owner.logical_id, identity], sort_keys=True)
    return _chain(str(uuid.uuid5(_NAMESPACE, text)))


def _chain(first: str) -> tuple[str, ...]:
    later = (str(uuid.uuid5(_NAMESPACE, f"{first}/{n}")) for n in range(1, MAX_TOKENS))
    return (first, *later)
