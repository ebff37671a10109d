"""The wait for an image: shared by its own resource, the links of the chain and a follow-up."""

import logging
import math
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from amis import Amis
from aws import Aws
from cloudformation.event import Event
from cloudformation.step import Done, Pending, Response, State
from contract import (
    MAX_TIMEOUT,
    TAG_PREFIX,
    ImageAttribute,
    ImportOutcome,
    OwnTag,
    ResourceType,
    wait_limit,
)
from errors import ImageFailedError, ImageGoneError, Reason, VmImportError
from identity import Owner
from image.progress import Progress, poll, report, report_deletion, report_end

logger = logging.getLogger(__name__)

# In seconds. Imports take minutes to hours, so polls more often than this only cost money.
_SHORTEST: Final = 15
_LONGEST: Final = 90
# A late response costs at most this share of the import.
_SHARE: Final = 20
# By at most this share the jitter shortens an interval.
_JITTER: Final = 0.15
# And the first of the longest intervals of a wait: waits may begin together late in an import.
_FIRST_JITTER: Final = 1 / 3
# EC2's task is completed, and the image becomes AVAILABLE soon.
_SHORTEST_AFTER_COMPLETION: Final = 5
_SHARE_AFTER_COMPLETION: Final = 2.5
# Links that begin together hand on within this time, so that they do not poll together.
_SPREAD: Final = 30
# After so many polls in a row that did not find the image, it is gone.
_GONE: Final = 4
# How long before CloudFormation stops waiting an AMI that cannot be tagged is given up, in seconds.
_LEAST_TIME: Final = 60


def polling_interval(
    age: float, since_completion: float | None, jitter: float, *, is_first: bool = False
) -> int:
    """Return the seconds until the next poll.

    The interval grows with the age of the import, so that the response is late by at most a
    twentieth of the import and 5 seconds, but not less than 15 seconds, and by at most 90 seconds.

    Args:
        age: Seconds since the image was created.
        since_completion: Seconds since a poll found EC2's task completed; None if it is not.
        jitter: From 0 to 1. Different values keep many imports from polling at the same time.
        is_first: Whether the wait has just begun.
    """
    seconds = min(max(age / _SHARE + 5, _SHORTEST), _LONGEST)
    if since_completion is not None:
        share = since_completion / _SHARE_AFTER_COMPLETION
        seconds = min(max(share, _SHORTEST_AFTER_COMPLETION), seconds)
    share = _JITTER
    if seconds == _LONGEST:
        # Polls spread while the intervals grow, or at the beginning of the wait. After that the
        # longest intervals have no jitter, so that 12 hours take at most 520 polls.
        share = _FIRST_JITTER if is_first else 0
    return round(seconds * (1 - jitter * share))


@dataclass(frozen=True)
class Wait:
    """The wait for an image until it is AVAILABLE and its AMI is tagged.

    Attributes:
        event: The event that waits.
        state: What is known from the steps before: the image, and the attributes to respond.
        task_id: The import task of the image.
        physical_id: The physical id to respond.
        tags: The tags for AMI and snapshots. Default: those of the image.
        previous: The keys of the tags that the template named before.
    """

    event: Event
    state: State
    task_id: str
    physical_id: str
    tags: Mapping[str, str] | None = None
    previous: Iterable[str] = ()

    def step(self, aws: Aws) -> Pending | Done:
        """Poll the image once.

        Returns:
            When to poll again. Or the response: with the id of the AMI; or without, if the time of
            this wait is over and another resource waits on.

        Raises:
            ImageFailedError: The image can never be AVAILABLE, or was not in time.
        """
        state, elapsed = self.state, self.state.elapsed
        remaining = self._limit - elapsed
        progress = self._poll(aws)
        # A link does not know how long the chain has waited before.
        has_duration = progress.image or self.event.raw["ResourceType"] != ResourceType.WAIT
        age = progress.image.age if progress.image else math.inf
        # Without a date, or with one in the future, it is at least as old as the wait. A link
        # continues a wait that began earlier.
        age = elapsed if math.isinf(age) else max(age, elapsed)
        end = partial(
            report_end,
            progress,
            duration=round(age) if has_duration else None,
            image=state.image,
            task=self.task_id,
        )
        try:
            if progress.failure:
                raise ImageFailedError.because(progress.failure)
            state = self._confirm(progress)
        except ImageFailedError as error:
            if state.follow_up and isinstance(error, ImageGoneError):
                # CloudFormation may have deleted it, and nobody waits for it.
                report_deletion(progress)
                return Done(Response(self.physical_id))
            end(ImportOutcome.FAILED, error.reason.cause)
            raise
        if progress.ami:
            if state.follow_up and state.waited:
                # The outcome does not wait for the tags, which may take hours if they are denied.
                end(ImportOutcome.AVAILABLE, f"the image is AVAILABLE: {progress.ami}")
                return Pending(replace(state, waited=False), 1)
            is_new = self._tag(progress, aws)
            # Otherwise it was AVAILABLE before, and no import has ended. If one ends just after a
            # resource of the chain has handed on, the first poll of the next link finds its end.
            if state.waited or (is_new and self.event.raw["ResourceType"] == ResourceType.WAIT):
                end(ImportOutcome.AVAILABLE, f"the image is AVAILABLE: {progress.ami}")
            data = {**state.attributes, ImageAttribute.IMAGE_ID: progress.ami}
            return Done(Response(self.physical_id, data))
        if remaining > 0:
            if progress.task and progress.task.is_completed and not state.completed:
                # What a wait finds completed when it begins was completed long before.
                state = replace(state, completed=time.time() - (age if elapsed < _SHORTEST else 0))
            completed = time.time() - state.completed if state.completed else None
            is_unknown = progress.image is None and not progress.is_missing
            interval = polling_interval(
                MAX_TIMEOUT if is_unknown else age,
                completed,
                random.random(),  # noqa: S311 - not cryptography
                is_first=elapsed < _SHORTEST,
            )
            state = report(progress, replace(state, waited=True))
            return Pending(state, max(1, min(interval, round(remaining))))
        if self.event.continues:
            return Done(
                Response(self.physical_id, state.attributes, Reason(f"still waiting: {progress}"))
            )
        cause = f"the image is not AVAILABLE after {age / 60:.0f} minutes: {progress}"
        end(ImportOutcome.TIMEOUT, cause)
        hint = (
            "EC2's import continues, and the next deployment uses it; set a longer timeout, up to "
            "12 hours, or wait_for_available=False"
        )
        ids = [f"image {state.image}", f"import task {self.task_id}"]
        raise ImageFailedError(cause, hint, ids)

    def _poll(self, aws: Aws) -> Progress:
        """Poll the image. The log names the resource of its tags, also when it is gone later."""
        state = self.state
        progress = poll(aws, state.image, self.task_id, continues_if_denied=state.follow_up)
        tags = progress.image.tags if progress.image else {}
        return replace(progress, resource=tags.get(OwnTag.RESOURCE, state.resource))

    @property
    def _limit(self) -> int:
        """After how many seconds the wait ends."""
        if self.state.follow_up:
            return MAX_TIMEOUT
        limit = wait_limit(self.event.timeout)
        if self.event.continues:
            # The same for all steps of an event.
            limit -= round(random.Random(self.event.raw["RequestId"]).random() * _SPREAD)  # noqa: S311
        return limit

    def _confirm(self, progress: Progress) -> State:
        """Count the polls in a row that did not find the image: reads may lag behind.

        Raises:
            ImageGoneError: The image is gone.
        """
        missed = self.state.missed + 1 if progress.is_missing else 0
        if missed == _GONE:
            raise ImageGoneError(
                "the image is gone: it was deleted outside the stack",
                ids=[f"image {self.state.image}"],
            )
        return replace(self.state, missed=missed, resource=progress.resource)

    def _tag(self, progress: Progress, aws: Aws) -> bool:
        """Tag AMI and snapshots. The image is usable without that too.

        Returns:
            Whether the AMI had no tag of the stack before.

        Raises:
            VmImportError: Tagging failed, and may succeed when the step is repeated.
        """
        own = progress.image.tags if progress.image else {}
        logical_id = own.get(OwnTag.RESOURCE, self.event.owner.logical_id)
        tags = self.tags
        if tags is None:
            tags = {key: value for key, value in own.items() if not key.startswith(TAG_PREFIX)}
        try:
            owner = Owner(self.event.owner.stack_id, logical_id)
            return Amis(owner, aws).tag(self.task_id, progress.ami, tags, self.previous)
        except VmImportError as error:
            limit = MAX_TIMEOUT if self.state.follow_up else self.event.retry_limit
            if self.state.elapsed < limit - _LEAST_TIME and self.state.may_pass(error):
                raise
            logger.warning("the AMI is not tagged: %s", error)
            return False
