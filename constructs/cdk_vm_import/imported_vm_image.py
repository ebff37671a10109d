"""A virtual machine, imported into EC2 Image Builder by the stack."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

import aws_cdk as cdk
import jsii
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_logs as logs
from constructs import Construct

from cdk_vm_import import _validation
from cdk_vm_import._contract import LOG_GROUP_NAME, RESOURCE_TYPE, Attribute, Property, slug
from cdk_vm_import.platform import Platform
from cdk_vm_import.vm_image import IVmImage, VmImageBase
from cdk_vm_import.vm_import_provider import VmImportProvider
from cdk_vm_import.vm_import_task import VmImportTask

# Paths of the images of each stack, by what makes two of them builds of one version.
_versions: WeakKeyDictionary[cdk.Stack, dict[tuple[str, str], str]] = WeakKeyDictionary()

# CloudFormation waits no longer for the answer of a custom resource.
_LONGEST_SERVICE_TIMEOUT: Final = 3600
# What CloudFormation waits longer than the function: for the answer, and for the last clean-up.
_GRACE: Final = 120
# A deletion may have to wait for an import to be cancelled, however short the timeout is.
_LEAST_SERVICE_TIMEOUT: Final = 900
# CloudFormation waits no longer for a signal.
_LONGEST_WAIT_CONDITION: Final = 43200


@jsii.implements(cdk.ITaggableV2)
class ImportedVmImage(VmImageBase):
    """An EC2 VM import task, turned into an image that Image Builder recipes can build on.

    Image Builder follows the task itself and makes the image AVAILABLE when the task is done. The
    deployment waits for that, up to `timeout`, and fails at once, with EC2's own reason, when the
    import does. Recipes may name the image before: with `wait_for_available=False` the deployment
    does not wait.

    `Tags.of()` reaches the image. A change of tags is made in place. A change of any other
    argument that describes the image imports a new one and lets go of the old one as
    `removal_policy` says.

    Example:
        ```python
        image = ImportedVmImage(
            self,
            "GoldenImage",
            image_name="rhel9-golden",
            semantic_version="1.0.0",
            platform=Platform.LINUX,
            vm_import_task_id="import-ami-0123456789abcdef0",
        )
        ```

    See https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_ImportVmImage.html and, on
    waiting,
    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-waitcondition.html
    """

    def __init__(  # noqa: PLR0913 - the request has nine fields
        self,
        scope: Construct,
        construct_id: str,
        *,
        image_name: str,
        semantic_version: str,
        platform: Platform,
        vm_import_task_id: str | None = None,
        vm_import_task: VmImportTask | None = None,
        description: str | None = None,
        os_version: str | None = None,
        log_group: logs.ILogGroup | None = None,
        tags: Mapping[str, str] | None = None,
        client_token: str | None = None,
        wait_for_available: bool = True,
        timeout: cdk.Duration = cdk.Duration.hours(1),  # noqa: B008 - never changes
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
        delete_ami: bool = False,
        export_name: str | None = None,
        provider: VmImportProvider | None = None,
    ) -> None:
        """Import the image of a VM import task.

        Every argument may be, or hold, an unresolved token, but for `platform`,
        `wait_for_available`, `timeout`, `removal_policy` and `provider`.

        Args:
            scope: The construct to put this one in.
            construct_id: Its id there.
            image_name: Name of the image, 3 to 128 letters, digits, `-`, `_` or inner spaces.
                Names that differ only in case, spaces and underscores are one image.
            semantic_version: Version of the image, `X.Y.Z`, each node 0 to 1073741823 and without
                leading zeros. The same name and version again make a new build of that version.
            platform: Operating system of the virtual machine.
            vm_import_task_id: Id of the EC2 ImportImage task, `import-ami-...`. It need not be
                completed, but EC2 forgets tasks after about 7 days. Default: that of
                `vm_import_task`; one of the two must be given.
            vm_import_task: The task, of the same stack. Default: one from elsewhere.
            description: Description of the image, 1 to 1024 characters. Default: it has none.
            os_version: Version of the operating system, 1 to 1024 characters. Default: Image
                Builder is told only the platform.
            log_group: Log group that Image Builder logs the import to. Its name must start with
                `/aws/imagebuilder/`. Default: the log group that Image Builder chooses.
            tags: Tags of the image, at most 47: keys of 1 to 128 letters, digits, spaces or any of
                `_.:/=+-@`, not starting with `aws:` or `cdk-vm-import:`; values of up to 256
                characters. `Tags.of()` adds to them, and wins. Default: only those of `Tags.of()`.
            client_token: Idempotency token of the import, 1 to 36 characters. Once an image of
                this token failed or was deleted, AWS gives no other for it. Default: a token made
                of the stack, the resource and the properties, and a new one when it is used up.
            wait_for_available: Whether the deployment waits until the image is AVAILABLE. Without,
                it goes on as soon as the import has begun, a failed import does not fail it, and
                there is no `image_id`; the function looks on for 12 hours, tags the AMI and its
                snapshots, and logs a failure. Default: it waits.
            timeout: How long the deployment waits, 1 minute to 12 hours. Then it fails and rolls
                back; EC2's import goes on, and the next deployment takes it up. Over an hour
                (from which two minutes are kept for the clean-up) CloudFormation waits by a wait
                condition, of which each import needs a new one: with such a timeout, what
                describes the image may change only with the template, not by a parameter alone.
                Default: an hour.
            removal_policy: What becomes of the image when it is replaced or removed from the stack
                (its AMI and snapshots: see `delete_ami`). `RETAIN` also keeps it when its first
                deployment fails elsewhere; `SNAPSHOT` is not possible. Default: keep an image that
                was in use, clean up after a failed create.
            delete_ami: Whether the AMI and its snapshots are deleted with the image; with a
                `vm_import_task` they go with the task. While another image uses them, or they are
                shared, they are kept, and the function's log says why. Default: they stay.
            export_name: Name under which the image ARN is exported from the stack, for
                `Fn.import_value`. Default: the ARN is an output, but not exported.
            provider: The function that does the import, of the same stack. Default: the one
                function of the stack, see `VmImportProvider.get_or_create`.

        Raises:
            ValueError: Arguments are wrong. The message lists them all.
        """
        problems = [
            *_validation.image_name(image_name),
            *_validation.semantic_version(semantic_version),
            *_validation.platform(platform),
            *_task(vm_import_task_id, vm_import_task, platform, cdk.Stack.of(scope)),
            *_validation.text("description", description, 1024),
            *_validation.text("os_version", os_version, 1024),
            *_log_group(log_group),
            *_validation.tags(tags),
            *_validation.text("client_token", client_token, 36),
            *_validation.timeout(timeout),
            *_removal_policy(removal_policy),
            *_validation.provider(provider, cdk.Stack.of(scope)),
        ]
        if problems:
            path = f"{scope.node.path}/{construct_id}"
            raise ValueError("\n- ".join([f"wrong arguments for the image {path}:", *problems]))

        super().__init__(scope, construct_id)
        self._tags = cdk.TagManager(cdk.TagType.MAP, RESOURCE_TYPE, dict(tags or {}))
        self.node.add_validation(_validation.TagValidation(self._tags))
        self._platform = platform
        self._provider = provider or VmImportProvider.get_or_create(self)
        if delete_ami:
            self._provider.allow_deletion_of_amis()
            if vm_import_task:
                vm_import_task.delete_ami()

        identity: dict[str, Any] = {
            Property.NAME: image_name,
            Property.SEMANTIC_VERSION: semantic_version,
            Property.DESCRIPTION: description,
            Property.PLATFORM: platform.value,
            Property.OS_VERSION: os_version,
            Property.VM_IMPORT_TASK_ID: vm_import_task.import_task_id
            if vm_import_task
            else vm_import_task_id,
            Property.LOGGING_CONFIGURATION: log_group
            and {LOG_GROUP_NAME: log_group.log_group_name},
            Property.CLIENT_TOKEN: client_token,
        }
        seconds = int(timeout.to_seconds()) if wait_for_available else 0
        in_the_resource = 0 < seconds <= _LONGEST_SERVICE_TIMEOUT
        handle = None
        if seconds > _LONGEST_SERVICE_TIMEOUT:
            # The task's id is only known when it is started, but what it imports is known now.
            imported = vm_import_task.identity if vm_import_task else {}
            name = f"Wait{self._hash({**identity, **imported}, seconds)}"
            handle = cdk.CfnWaitConditionHandle(self, f"{name}Handle")
        self._resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type=RESOURCE_TYPE,
            service_token=self._provider.service_token,
            properties={
                **identity,
                Property.TAGS: self._tags.rendered_tags,
                Property.WAITER: self._provider.waiter,
                Property.TIMEOUT_SECONDS: seconds or None,
                Property.WAIT_HANDLE: handle and handle.ref,
                # Of a task of this stack, the task's: it goes after the image.
                Property.DELETE_AMI: (delete_ami and not vm_import_task) or None,
                Property.RETAIN: removal_policy is not cdk.RemovalPolicy.DESTROY or None,
            },
            service_timeout=cdk.Duration.seconds(_service_timeout(seconds))
            if in_the_resource
            else None,
            removal_policy=removal_policy,
        )
        self._image_arn = self._attribute(Attribute.IMAGE_ARN)
        self._image_version_arn = self._attribute(Attribute.IMAGE_VERSION_ARN)
        self._latest_image_arn = self._attribute(Attribute.LATEST_IMAGE_ARN)
        self._image_name = self._attribute(Attribute.IMAGE_NAME)
        self._image_version = self._attribute(Attribute.IMAGE_VERSION)
        self._image_id: str | None = None
        if handle:
            condition = cdk.CfnWaitCondition(
                self,
                name,
                handle=handle.ref,
                timeout=str(min(seconds + _GRACE, _LONGEST_WAIT_CONDITION)),
            )
            # Before, there is nothing to wait for; and a failed import fails the resource.
            condition.node.add_dependency(self._resource)
            # {"available":"||ami-0123456789abcdef0|"}: who uses a part depends on the condition.
            signal = cdk.Fn.split("|", condition.attr_data.to_string())
            self._image_arn = cdk.Fn.join("", [self._image_arn, cdk.Fn.select(1, signal)])
            self._image_id = cdk.Fn.select(2, signal)
        elif seconds:
            self._image_id = self._attribute(Attribute.IMAGE_ID)

        cdk.CfnOutput(
            self,
            "ImageArn",
            description="ARN of the imported Image Builder image",
            # Outputs come last in any case. And CDK warns of the wait condition's data in outputs,
            # which are text but objects by their schema.
            value=self._attribute(Attribute.IMAGE_ARN),
            export_name=export_name,
        )
        self._warn_of_same_version(image_name, semantic_version)

    @staticmethod
    def from_image_arn(scope: Construct, construct_id: str, image_arn: str) -> IVmImage:
        """Take an image that was imported elsewhere.

        Args:
            scope: The construct to put the image in.
            construct_id: Its id there.
            image_arn: ARN of the image build, as in the output of the stack that imported it; may
                be an unresolved token.

        Returns:
            The image. Its name is spelled as in the ARN.

        Raises:
            ValueError: It is not the ARN of an image build.
        """
        return _ImageFromArn(scope, construct_id, image_arn)

    @property
    def image_id(self) -> str:
        """Id of the AMI that the import made.

        Raises:
            ValueError: The deployment does not wait for the image, so that nobody knows the id.
        """
        if self._image_id is None:
            raise ValueError(
                f"{self.node.path} has no image_id: with wait_for_available=False the deployment "
                "ends before there is an AMI; let it wait, or read the AMI from Image Builder "
                "once the image is AVAILABLE"
            )
        return self._image_id

    def to_machine_image(self) -> ec2.IMachineImage:
        """Give the AMI in the form that instances and launch templates of CDK launch from.

        Returns:
            The machine image. It brings empty user data, of the shell of the image's platform.

        Raises:
            ValueError: The deployment does not wait for the image.
        """
        return _MachineImage(self.image_id, self._platform)

    @property
    def client_token(self) -> str:
        """Idempotency token under which the image was imported."""
        return self._attribute(Attribute.CLIENT_TOKEN)

    @property
    def vm_import_task_id(self) -> str:
        """Id of the EC2 task that the image was imported from."""
        return self._attribute(Attribute.VM_IMPORT_TASK_ID)

    @property
    def request_id(self) -> str:
        """Id of the ImportVmImage request that made the image, for AWS support."""
        return self._attribute(Attribute.REQUEST_ID)

    @property
    def cdk_tag_manager(self) -> cdk.TagManager:
        """The tags of the image; what `Tags.of()` adds to."""
        return self._tags

    def _hash(self, identity: Mapping[str, Any], seconds: int) -> str:
        """Tell waits apart: CloudFormation can neither change a wait condition nor use it twice."""
        resolved = self.stack.resolve([identity, seconds])
        return hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()[:8]

    def _attribute(self, attribute: Attribute) -> str:
        return self._resource.get_att_string(attribute.value)

    def _warn_of_same_version(self, image_name: str, semantic_version: str) -> None:
        if cdk.Token.is_unresolved(image_name) or cdk.Token.is_unresolved(semantic_version):
            return
        versions = _versions.setdefault(self.stack, {})
        first = versions.setdefault((slug(image_name), semantic_version), self.node.path)
        if first != self.node.path:
            cdk.Annotations.of(self).add_warning_v2(
                "cdk-vm-import:sameImageVersion",
                f"{first} imports {slug(image_name)} {semantic_version} too, so the two become "
                "builds of one image version, in no certain order; "
                "change image_name or semantic_version to tell them apart",
            )


@jsii.implements(ec2.IMachineImage)
class _MachineImage:
    def __init__(self, image_id: str, platform: Platform) -> None:
        self._image_id = image_id
        self._windows = platform is Platform.WINDOWS

    @jsii.member(jsii_name="getImage")
    def get_image(self, _scope: Construct) -> ec2.MachineImageConfig:
        if self._windows:
            system, data = ec2.OperatingSystemType.WINDOWS, ec2.UserData.for_windows()
        else:
            system, data = ec2.OperatingSystemType.LINUX, ec2.UserData.for_linux()
        return ec2.MachineImageConfig(image_id=self._image_id, os_type=system, user_data=data)


class _ImageFromArn(VmImageBase):
    def __init__(self, scope: Construct, construct_id: str, image_arn: str) -> None:
        if problems := [*_validation.image_arn(image_arn)]:
            raise ValueError(f"{scope.node.path}/{construct_id}: {problems[0]}")
        super().__init__(scope, construct_id, environment_from_arn=image_arn)
        prefix, self._image_name, self._image_version = (
            cdk.Fn.select(index, cdk.Fn.split("/", image_arn)) for index in range(3)
        )
        self._image_arn = image_arn
        self._image_version_arn = f"{prefix}/{self._image_name}/{self._image_version}"
        self._latest_image_arn = f"{prefix}/{self._image_name}/x.x.x"


def _service_timeout(seconds: int) -> int:
    return min(max(seconds + _GRACE, _LEAST_SERVICE_TIMEOUT), _LONGEST_SERVICE_TIMEOUT)


def _log_group(log_group: logs.ILogGroup | None) -> Iterator[str]:
    if log_group is None:
        return
    name = log_group.log_group_name
    # The name of a log group of this app is a token; its template tells the name itself.
    if isinstance(cfn := log_group.node.default_child, logs.CfnLogGroup):
        name = cdk.Stack.of(cfn).resolve(cfn.log_group_name)
    yield from _validation.log_group_name(name)


def _removal_policy(removal_policy: cdk.RemovalPolicy) -> Iterator[str]:
    if removal_policy is cdk.RemovalPolicy.SNAPSHOT:
        yield (
            "removal_policy SNAPSHOT is not possible for an image: give DESTROY, RETAIN or "
            "RETAIN_ON_UPDATE_OR_DELETE"
        )


def _task(
    task_id: str | None, task: VmImportTask | None, platform: Platform, stack: cdk.Stack
) -> Iterator[str]:
    if (task_id is None) is (task is None):
        yield "give either vm_import_task or vm_import_task_id"
    if task_id is not None:
        yield from _validation.vm_import_task_id(task_id)
    if task is None:
        return
    if task.stack is not stack:
        yield (
            f"vm_import_task {task.node.path} belongs to another stack: give its import_task_id "
            "as vm_import_task_id"
        )
    if task.platform not in {None, platform}:
        yield f"platform {platform} is not that of vm_import_task, {task.platform}: give the same"
