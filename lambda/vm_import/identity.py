"""Who created an image or a task, and under which tokens: how the handler recognises its own."""

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
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
class Existing(ABC):
    """An image or an import task that exists in AWS."""

    id: str
    """Its physical id: the ARN of an image, or the id of a task."""
    status: str
    """Its state, in AWS's words."""
    tags: Mapping[str, str]

    @property
    def token(self) -> str:
        """The idempotency token under which the handler created it."""
        return self.tags.get(OwnTag.TOKEN, "")

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

    @classmethod
    def of_placeholder(cls, physical_id: str) -> Self | None:
        """Read a placeholder; None if the physical id is not one."""
        scope, _, token = physical_id.rpartition("/")
        try:
            uuid.UUID(token)
        except ValueError:
            return None
        return cls(scope, _chain(token)) if scope else None

    @property
    def placeholder(self) -> str:
        """The physical id of what may or may not exist: enough to find and delete it."""
        return f"{self.scope}/{self.tokens[0]}"


def tokens_of(owner: Owner, identity: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the idempotency tokens of what a resource creates for an identity.

    They depend on nothing else: a retry, a duplicate event and a rollback find the same image.
    """
    text = json.dumps([owner.stack_id, owner.logical_id, identity], sort_keys=True)
    return _chain(str(uuid.uuid5(_NAMESPACE, text)))


def token_tag(token: str) -> dict[str, str]:
    """Return the tag that records a token."""
    return {OwnTag.TOKEN: token}


def _chain(first: str) -> tuple[str, ...]:
    later = (str(uuid.uuid5(_NAMESPACE, f"{first}/{n}")) for n in range(1, MAX_TOKENS))
    return (first, *later)
