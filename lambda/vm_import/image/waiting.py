"""The wait for an image: shared by its own resource, the links of the chain and a follow-up."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from amis import Amis
from aws import Aws
from cloudformation.event import Event
from cloudformation.step import Pending, State
from contract import MAX_TIMEOUT, TAG_PREFIX, OwnTag
from errors import ImageFailedError, VmImportError
from identity import Owner
from image.progress import Progress, next_poll, poll, report

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wait:
    """The wait for an image until it is AVAILABLE, and its AMI tagged.

    Attributes:
        event: The event that waits.
        state: What is known from the steps before.
        task_id: The import task of the image.
        tags: The tags for AMI and snapshots. Default: those of the image.
        previous: The keys of the tags that the template named before.
    """

    event: Event
    state: State
    task_id: str
    tags: Mapping[str, str] | None = None
    previous: Iterable[str] = ()

    def step(self, aws: Aws) -> Pending | Progress:
        """Poll the image once.

        Returns:
            When to poll again; or what the last poll found: the AMI, or how far the import is if
            the time of the wait is over.

        Raises:
            ImageFailedError: The image can never be AVAILABLE.
        """
        try:
            progress = poll(aws, self.state.image, self.task_id)
        except VmImportError:
            self._report(Progress(), "failed")
            raise
        state = self.state
        if progress.task and progress.task.is_completed and not state.completed:
            state = replace(state, completed=time.time())
        is_tagged = bool(progress.ami) and self._tag(progress, aws)
        remaining = self._limit - self._elapsed
        if not is_tagged and remaining > 0:
            seconds = next_poll(progress, self._elapsed, state.completed)
            seconds = min(seconds, max(1, round(remaining)))
            self._report(progress, "waiting", seconds)
            return Pending(state, seconds)
        self._report(progress, "available" if progress.ami else "timeout")
        return progress

    def timed_out(self, progress: Progress) -> ImageFailedError:
        """Return the error of a wait whose time is over."""
        return ImageFailedError(
            f"{self.state.image} was not AVAILABLE after {self._elapsed / 60:.0f} minutes: "
            f"{progress}. Hint: EC2's import continues, and the next deployment uses it; set a "
            "longer timeout, up to 12 hours, or wait_for_available=False"
        )

    def _tag(self, progress: Progress, aws: Aws) -> bool:
        """Tag AMI and snapshots. The image is usable without that too.

        Returns:
            False if it may succeed later.
        """
        image = progress.image
        assert image  # noqa: S101 - it has an AMI
        tags = {k: v for k, v in image.tags.items() if not k.startswith(TAG_PREFIX)}
        owner = Owner(
            self.event.owner.stack_id,
            image.tags.get(OwnTag.RESOURCE, self.event.owner.logical_id),
        )
        try:
            Amis(owner, aws).tag(
                self.task_id, tags if self.tags is None else self.tags, self.previous
            )
        except VmImportError as error:
            logger.warning("the AMI is not tagged: %s", error)
            return not error.is_transient
        return True

    @property
    def _limit(self) -> int:
        return MAX_TIMEOUT if self.state.follow_up else self.event.wait_limit

    @property
    def _elapsed(self) -> float:
        return time.time() - self.state.started

    def _report(self, progress: Progress, outcome: str, seconds: int = 0) -> None:
        report(
            self.event.owner,
            self.state.image,
            self.task_id,
            progress,
            outcome=outcome,
            elapsed=self._elapsed,
            seconds=seconds,
        )
