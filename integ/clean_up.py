"""Find and delete everything that a run created, by its prefix and its tag.

It needs no file of the run, so it also works after the run was killed.
"""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from contract import OwnTag
from integ.output import warn
from integ.run import LOG_GROUPS, attempt, raise_unless_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from integ.run import Run

_MINUTES: Final = 60
# Seconds until a second attempt: EC2 shows deleted resources for a while, and snapshots as in use.
_PAUSE: Final = 30
# What the constructs create by themselves. The clean-up finds it without its stack.
_OWN_TYPES: Final = "Custom::"
_TERMINAL: Final = ("AVAILABLE", "FAILED", "CANCELLED", "DEPRECATED", "DISABLED")


class CleanUp:
    """The resources of a run.

    Args:
        run: The run.
        kept: ARNs and ids that stay, because a check needs them later.
    """

    def __init__(self, run: Run, kept: Iterable[str] = ()) -> None:
        """Create the clients."""
        self._run = run
        self._kept = set(kept)
        self._wait = run.account.wait
        client = run.account.client
        self._cloudformation, self._ec2 = client("cloudformation"), client("ec2")
        self._images, self._logs = client("imagebuilder"), client("logs")
        self._s3, self._iam = client("s3"), client("iam")

    def delete_all(self) -> dict[str, list[str]]:
        """Delete everything, and return what is left."""
        self._run.end_processes()
        self._delete_each()
        if self.left():
            self._delete_each(after_seconds=_PAUSE)
        return self.left()

    def _delete_each(self, after_seconds: float = 0) -> None:
        # Stacks first: their deletion is the clean-up that the constructs themselves do.
        steps: list[Callable[[], None]] = [
            partial(self._run.account.sleep, after_seconds),
            self._delete_stacks,
            self._cancel_tasks,
            self._delete_recipes,
            self._delete_images,
            self._delete_amis,
            self._delete_log_groups,
            self._delete_buckets,
            self._delete_roles,
        ]
        for step in steps:
            try:
                step()
            except Exception as error:  # noqa: BLE001 - the rest must still be deleted
                warn(f"clean-up: {error}")

    def left(self) -> dict[str, list[str]]:
        """Return what exists of the run, by kind, without what is kept."""
        finders: dict[str, Callable[[], list[str]]] = {
            "stacks": self._stacks,
            "active import tasks": self._active_tasks,
            "recipes": self._recipes,
            "images": lambda: list(self._all_images()),
            "AMIs": self._amis,
            "snapshots": self._snapshots,
            "log groups": self._log_groups,
            "buckets": self._buckets,
            "roles": self._roles,
        }
        found: dict[str, list[str]] = {}
        for kind, find in finders.items():
            try:
                found[kind] = [one for one in find() if one not in self._kept]
            except Exception as error:  # noqa: BLE001 - the other kinds must still be listed
                found[kind] = [f"unknown: {error}"]
        return {kind: names for kind, names in found.items() if names}

    @staticmethod
    def _try(call: Any, **request: object) -> None:  # noqa: ANN401 - an operation of boto3
        """Call an operation; print its error, because the rest must still be deleted."""
        if error := attempt(call, **request)[1]:
            warn(f"clean-up: {error}")

    # --- stacks ---

    def _stacks(self) -> list[str]:
        pages = self._cloudformation.get_paginator("describe_stacks").paginate()
        return [
            stack["StackId"]
            for page in pages
            for stack in page["Stacks"]
            if stack["StackName"].startswith(self._run.prefix)
            and stack["StackStatus"] != "DELETE_COMPLETE"
        ]

    def _delete_stacks(self) -> None:
        stacks, delete = self._stacks(), self._cloudformation.delete_stack
        for stack in stacks:
            if self._status(stack).startswith("UPDATE_") and self._in_progress(stack):
                # This fails if it is rolled back or cleaned up already.
                self._try(self._cloudformation.cancel_update_stack, StackName=stack)
                self._end_operation(stack)
            self._try(delete, StackName=stack)
        for stack in stacks:
            self._end_operation(stack)
            # What still used a resource at the first attempt may have ended.
            if self._status(stack) != "DELETE_COMPLETE":
                self._try(delete, StackName=stack)
                self._end_operation(stack)
            # By force, CloudFormation would forget what it cannot delete, so nobody could find it.
            if self._status(stack) == "DELETE_FAILED" and not self._foreign_resources(stack):
                self._try(delete, StackName=stack, DeletionMode="FORCE_DELETE_STACK")
                self._end_operation(stack)

    def _foreign_resources(self, stack: str) -> list[str]:
        """Return what cannot be deleted and what the clean-up would not find without the stack."""
        pages = self._cloudformation.get_paginator("list_stack_resources")
        return [
            resource["LogicalResourceId"]
            for page in pages.paginate(StackName=stack)
            for resource in page["StackResourceSummaries"]
            if resource["ResourceStatus"] == "DELETE_FAILED"
            and not resource["ResourceType"].startswith(_OWN_TYPES)
        ]

    def _end_operation(self, stack: str) -> None:
        self._wait(lambda: not self._in_progress(stack), _MINUTES)

    def _status(self, stack: str) -> str:
        try:
            found = self._cloudformation.describe_stacks(StackName=stack)["Stacks"]
        except ClientError as error:
            raise_unless_missing(error)
            return "DELETE_COMPLETE"
        return str(found[0]["StackStatus"])

    def _in_progress(self, stack: str) -> bool:
        return self._status(stack).endswith("_IN_PROGRESS")

    # --- import tasks, AMIs and snapshots ---

    def _tasks(self) -> list[dict[str, Any]]:
        pages = self._ec2.get_paginator("describe_import_image_tasks").paginate()
        tasks = [task for page in pages for task in page["ImportImageTasks"]]
        return [task for task in tasks if self._is_own(task.get("Tags", []))]

    def _is_own(self, tags: list[dict[str, str]]) -> bool:
        found = {tag["Key"]: tag["Value"] for tag in tags}
        ours = self._run.tags.items() <= found.items()
        return ours or f":stack/{self._run.prefix}-" in found.get(OwnTag.STACK, "")

    def _active_tasks(self) -> list[str]:
        return [task["ImportTaskId"] for task in self._tasks() if task["Status"] == "active"]

    def _cancel_tasks(self) -> None:
        for task_id in self._active_tasks():
            self._try(self._ec2.cancel_import_task, ImportTaskId=task_id)
        # A cancelled task may still create snapshots until it is deleted.
        self._wait(lambda: all(t["Status"] != "deleting" for t in self._tasks()), _MINUTES)

    def _described_amis(self) -> list[dict[str, Any]]:
        tasks = {task["ImportTaskId"]: task.get("ImageId", "") for task in self._tasks()}
        tasks |= {task: ami for task, ami in self._run.tasks.items() if ami or task not in tasks}
        pages = self._ec2.get_paginator("describe_images").paginate(Owners=["self"])
        return [
            ami
            for page in pages
            for ami in page["Images"]
            if ami["ImageId"] in tasks.values()
            or ami["Name"] in tasks
            or self._is_own(ami.get("Tags", []))
        ]

    def _amis(self) -> list[str]:
        return [ami["ImageId"] for ami in self._described_amis()]

    def _delete_amis(self) -> None:
        for ami in self._described_amis():
            if ami["ImageId"] in self._kept:
                continue
            mappings = [m["Ebs"]["SnapshotId"] for m in ami["BlockDeviceMappings"] if "Ebs" in m]
            self._try(self._ec2.deregister_image, ImageId=ami["ImageId"])
            # A user without a newer version of boto3 has no DeleteAssociatedSnapshots.
            self._delete_snapshots(mappings)
        self._delete_snapshots(self._snapshots())

    def _snapshots(self) -> list[str]:
        tasks = {*self._run.tasks, *(task["ImportTaskId"] for task in self._tasks())}
        kept = {
            mapping["Ebs"]["SnapshotId"]
            for ami in self._described_amis()
            if ami["ImageId"] in self._kept
            for mapping in ami["BlockDeviceMappings"]
            if "Ebs" in mapping
        }
        pages = self._ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"])
        return [
            snapshot["SnapshotId"]
            for page in pages
            for snapshot in page["Snapshots"]
            if snapshot["SnapshotId"] not in kept
            and (
                self._is_own(snapshot.get("Tags", []))
                or any(task in snapshot.get("Description", "") for task in tasks)
            )
        ]

    def _delete_snapshots(self, snapshots: list[str]) -> None:
        for snapshot in snapshots:
            error = attempt(self._ec2.delete_snapshot, SnapshotId=snapshot)[1]
            if error and "NotFound" not in error:
                warn(f"clean-up: {error}")

    # --- Image Builder ---

    def _all_images(self) -> dict[str, str]:
        found = self._images.get_paginator("list_images").paginate(owner="Self")
        versions = [
            version["arn"]
            for page in found
            for version in page["imageVersionList"]
            if version["name"].startswith(self._run.prefix)
        ]
        return {
            build["arn"]: build["state"]["status"]
            for version in versions
            for page in self._images.get_paginator("list_image_build_versions").paginate(
                imageVersionArn=version
            )
            for build in page["imageSummaryList"]
        }

    def _delete_images(self) -> None:
        for arn, status in self._all_images().items():
            if status not in _TERMINAL:
                # This fails if it ends by itself, because its task is cancelled.
                self._try(
                    self._images.cancel_image_creation,
                    imageBuildVersionArn=arn,
                    clientToken=str(uuid.uuid4()),
                )
        self._wait(lambda: set(self._all_images().values()) <= set(_TERMINAL), _MINUTES)
        for arn in self._all_images():
            if arn not in self._kept:
                self._try(self._images.delete_image, imageBuildVersionArn=arn)

    def _recipes(self) -> list[str]:
        # A check creates one recipe. Those of stacks are deleted with the stacks.
        account, principal = self._run.account, self._run.account.identity()
        partition = principal["principal"].split(":")[1]
        arn = (
            f"arn:{partition}:imagebuilder:{account.region}:{principal['account']}:image-recipe/"
            f"{self._run.recipe_name}/1.0.0"
        )
        try:
            self._images.get_image_recipe(imageRecipeArn=arn)
        except ClientError as error:
            raise_unless_missing(error)
            return []
        return [arn]

    def _delete_recipes(self) -> None:
        for recipe in self._recipes():
            self._images.delete_image_recipe(imageRecipeArn=recipe)

    # --- what else has the prefix in its name ---

    def _log_groups(self) -> list[str]:
        return [
            group["logGroupName"]
            for start in LOG_GROUPS
            for page in self._logs.get_paginator("describe_log_groups").paginate(
                logGroupNamePrefix=f"{start}{self._run.prefix}"
            )
            for group in page["logGroups"]
        ]

    def _delete_log_groups(self) -> None:
        for group in self._log_groups():
            self._try(self._logs.delete_log_group, logGroupName=group)

    def _buckets(self) -> list[str]:
        names = [bucket["Name"] for bucket in self._s3.list_buckets()["Buckets"]]
        return [name for name in names if name.startswith(self._run.prefix)]

    def _delete_buckets(self) -> None:
        for bucket in self._buckets():
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for found in page.get("Contents", []):
                    self._s3.delete_object(Bucket=bucket, Key=found["Key"])
            self._s3.delete_bucket(Bucket=bucket)

    def _roles(self) -> list[str]:
        pages = self._iam.get_paginator("list_roles").paginate()
        names = [role["RoleName"] for page in pages for role in page["Roles"]]
        return [name for name in names if name.startswith(self._run.prefix)]

    def _delete_roles(self) -> None:
        for role in self._roles():
            for policy in self._iam.list_role_policies(RoleName=role)["PolicyNames"]:
                self._iam.delete_role_policy(RoleName=role, PolicyName=policy)
            self._iam.delete_role(RoleName=role)
