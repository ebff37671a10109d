"""Image Builder and EC2 of the simulated AWS, in the thread of the test and on a virtual clock.

This is the only file of the handler and lifecycle tests that imports internals of local_aws.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from local_aws import seams
from local_aws.server.clock import Clock
from local_aws.server.faults import ImportFailure
from local_aws.server.knobs import Knobs
from local_aws.server.world import World
from local_aws.services.ec2 import descriptions as ec2_descriptions
from local_aws.services.ec2 import images as ec2_images
from local_aws.services.ec2 import tags as ec2_tags
from local_aws.services.ec2 import vm_import
from local_aws.services.ec2.disk_images import DiskError
from local_aws.services.ec2.image_attributes import ImageAttributes
from local_aws.services.ec2.vm_import import ImportTask, VmImport
from local_aws.services.imagebuilder.image_builder import Image, ImageBuilder
from local_aws.services.service_model import Ec2QueryService, RestJsonService, problems

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    Response = tuple[int, dict[str, str], bytes]

__all__ = ["Image", "ImportTask", "LocalServices", "VirtualClock", "problems"]

ACCOUNT: Final = "123456789012"
REGION: Final = "us-east-1"
BUCKET: Final = "my-vm-disks"
DISK: Final = "disk.raw"
ABSENT_DISK: Final = "absent.raw"
ABSENT_ROLE: Final = "no-such-role"
UNLICENSED_ROLE: Final = "no-licenses"
_BOOT_RECORD: Final = b"\0" * 510 + b"\x55\xaa"


class VirtualClock(Clock):
    """A clock that stands still until a test or a sleeping handler moves it."""

    seconds = 1_700_000_000.0

    def now(self) -> float:
        return self.seconds if self._shown is None else self._shown

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        self.settle()


class LocalServices:
    """Image Builder, VM Import, and the AMIs, snapshots and tags of EC2."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self._world = World(self.clock)
        self._vm_import = VmImport(self._world)
        self._image_builder = ImageBuilder(self._world, self._vm_import)
        ec2_operations = (
            self._vm_import.operations
            | ImageAttributes(self._world).operations
            | ec2_descriptions.OPERATIONS
            | ec2_images.OPERATIONS
            | ec2_tags.OPERATIONS
        )
        self._services: dict[str, RestJsonService | Ec2QueryService] = {
            "imagebuilder": RestJsonService(
                "imagebuilder",
                self._image_builder.operations,
                self._world,
                lambda *_: None,
                self._image_builder.resources,
            ),
            "ec2": Ec2QueryService(
                ec2_operations,
                self._world,
                lambda *_: None,
                self._vm_import.resources,
                seams.handle_ec2_request,
            ),
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The services, by botocore's names."""
        return tuple(self._services)

    def reset(self, **knobs: object) -> None:
        """Delete everything, set the clock back and the knobs to their defaults and `knobs`."""
        self._image_builder.reset()
        self._vm_import.reset()
        for store in (seams.AMIS, seams.SNAPSHOTS, seams.VOLUMES, seams.EC2_TAGS):
            store.clear()
        self.clock = self._world.clock = VirtualClock()
        self._world.knobs = Knobs().changed(knobs)
        self._world.import_failures.clear()
        self._world.calls.clear()
        for service in self._services.values():
            service.forget_the_past()

    @contextmanager
    def permitted(self) -> Iterator[None]:
        """Let VM Import use every role but ABSENT_ROLE and read every disk but ABSENT_DISK.

        UNLICENSED_ROLE may not use license configurations.
        """

        def may_use_licenses(request: dict[str, Any]) -> bool:
            has_licenses = bool(request.get("LicenseSpecifications"))
            return not has_licenses or request.get("RoleName") != UNLICENSED_ROLE

        def disk(_task: ImportTask, detail: dict[str, Any]) -> bytes:
            if detail.get("UserBucket", {}).get("S3Key") == ABSENT_DISK:
                raise DiskError("ClientError: Disk validation failed [403 Forbidden]")
            return _BOOT_RECORD

        with ExitStack() as stack:
            for name, replacement in (
                ("_role_is_sufficient", lambda role, _request: role != ABSENT_ROLE),
                ("_may_use_licenses", may_use_licenses),
                ("_pass_role", lambda _role: SimpleNamespace(refusal=None)),
                ("_disk_data", disk),
            ):
                stack.enter_context(patch.object(vm_import, name, replacement))
            yield

    # --- requests ---

    def handle(
        self, service: str, method: str, path: str, body: bytes, query: dict[str, list[str]]
    ) -> Response:
        """Answer a request as the service does."""
        self.clock.settle()
        with seams.request_scope(ACCOUNT, REGION):
            return _run(self._services[service].handle_request(method, path, {}, body, query))

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The calls so far: each has `service`, `operation`, `request` and `error`."""
        return self._world.calls

    # --- settings ---

    @property
    def knobs(self) -> Knobs:
        return self._world.knobs

    def change_knobs(self, **changes: object) -> None:
        self._world.knobs = self._world.knobs.changed(changes)

    def fail_import(
        self, message: str | None, *, task_id: str | None = None, fail_at_progress: int = 28
    ) -> None:
        """Have a disk import fail with EC2's message, or never end if that is None."""
        failure = ImportFailure(message, task_id=task_id, fail_at_progress=fail_at_progress)
        self._world.import_failures.append(failure)

    # --- what exists ---

    def add_task(self, task_id: str, seconds: float, ends: str) -> None:
        """Add an import task that is `completed` or `failed` after a time, or `never` ends."""
        task = ImportTask(
            task_id=task_id,
            request={"DiskContainers": []},
            details=[{"DeviceName": "/dev/sda1", "DiskImageSize": 1.0}],
        )
        with seams.request_scope(ACCOUNT, REGION):
            self._vm_import._make_snapshots(task)
            self._vm_import._tasks[task_id] = task
            if ends == "completed":
                self._world.call_in(seconds, lambda: self._vm_import._complete(task))
            if ends == "failed":
                why = "ClientError: Unknown OS / Missing OS files."
                self._world.call_in(seconds, lambda: self._vm_import.fail(task, why))

    @property
    def images(self) -> dict[str, Image]:
        """All images, by ARN."""
        with seams.request_scope(ACCOUNT, REGION):
            self.clock.settle()
            return dict(self._image_builder._images.items())

    def put_images(self, images: dict[str, Image]) -> None:
        """Replace all images."""
        with seams.request_scope(ACCOUNT, REGION):
            self._image_builder._images.clear()
            self._image_builder._images.update(images)

    def copy_of_images(self) -> dict[str, Image]:
        """The images as they are now, whatever happens to them later."""
        with seams.request_scope(ACCOUNT, REGION):
            return copy.deepcopy(dict(self._image_builder._images.items()))

    def delete_image(self, arn: str) -> None:
        """Delete an image whatever its state, as if somebody had done it by hand."""
        with seams.request_scope(ACCOUNT, REGION):
            del self._image_builder._images[arn]

    @property
    def tasks(self) -> dict[str, ImportTask]:
        """All import tasks, by id, also those that EC2 no longer shows."""
        with seams.request_scope(ACCOUNT, REGION):
            self.clock.settle()
            return dict(self._vm_import._tasks.items())

    @property
    def amis(self) -> dict[str, dict[str, Any]]:
        """All AMIs, by id."""
        with seams.request_scope(ACCOUNT, REGION):
            self.clock.settle()
            return dict(seams.AMIS.items())

    @property
    def snapshots(self) -> dict[str, dict[str, Any]]:
        """All snapshots, by id."""
        with seams.request_scope(ACCOUNT, REGION):
            self.clock.settle()
            return dict(seams.SNAPSHOTS.items())

    def ec2_tags(self, resource_id: str) -> dict[str, str]:
        """The tags of an AMI, a snapshot or an import task."""
        with seams.request_scope(ACCOUNT, REGION):
            return {tag["Key"]: tag["Value"] for tag in seams.EC2_TAGS.get(resource_id, [])}


def _run(coroutine: Coroutine[Any, Any, Response]) -> Response:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("the service waits for something")
