"""An image in EC2 Image Builder that the stack imports from a virtual machine."""

from collections.abc import Iterator, Mapping
from typing import cast
from weakref import WeakKeyDictionary, WeakSet

import aws_cdk as cdk
import jsii
from aws_cdk import aws_events as events
from aws_cdk import aws_logs as logs
from constructs import Construct, IConstruct

from cdk_vm_import import _log_queries, _retained, _tagging, _validation, _wait_chain
from cdk_vm_import._existing_image import ImageFromAttributes, ImageFromName
from cdk_vm_import._handler import contract
from cdk_vm_import._signature import shows_arguments
from cdk_vm_import.platform import Platform
from cdk_vm_import.vm_image import IVmImage, VmImageBase, split_image_arn
from cdk_vm_import.vm_import_provider import ProviderConfig, VmImportProvider
from cdk_vm_import.vm_import_task import VmImportTask

# Paths of the images of each stack, by the slug and the version that make two images one.
_versions: WeakKeyDictionary[cdk.Stack, dict[tuple[str, str], str]] = WeakKeyDictionary()
# The last settings of each stack that change the AMI of an import task, by the id of the task.
_last_settings: WeakKeyDictionary[cdk.Stack, dict[str, Construct]] = WeakKeyDictionary()
# Stacks whose outputs are counted at synthesis.
_counted: WeakSet[cdk.Stack] = WeakSet()


@shows_arguments(timeout="Duration.hours(1)")
@jsii.implements(cdk.ITaggableV2)
class ImportedVmImage(VmImageBase):
    """An image in EC2 Image Builder, imported from an EC2 VM import task, for image recipes.

    Image Builder follows the task and makes the image AVAILABLE when the task is completed. The
    deployment waits for that, up to `timeout`. If the import fails, the deployment fails at the
    next poll and reports the reason that EC2 gives.

    `Tags.of()` reaches the image. A change of tags applies in place. A change of any other
    argument that describes the image imports a new image, and `removal_policy` decides what
    CloudFormation does with the old one.

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

    See https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_ImportVmImage.html
    """

    _no_image_id = (
        "because with wait_for_available=False the deployment ends before the AMI exists: let the "
        "deployment wait, or read the AMI id from Image Builder when the image is AVAILABLE."
    )

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
        stack_output: bool = True,
        export_name: str | None = None,
        provider: VmImportProvider | None = None,
    ) -> None:
        """Import an image from a VM import task.

        Every argument may be or contain an unresolved token, except `platform`,
        `wait_for_available`, `timeout`, `removal_policy`, `delete_ami` and `provider`.

        Args:
            scope: The construct to create this one in.
            construct_id: The id of this construct in the scope.
            image_name: Name of the image, 3 to 128 letters, digits, hyphens, underscores or inner
                spaces. Names that differ only in case, spaces, hyphens and underscores are one
                image.
            semantic_version: Version of the image, `X.Y.Z`. Each number is 0 to 1073741823 without
                leading zeros. Another import with the same name and version creates a new build of
                that version.
            platform: Operating system of the virtual machine.
            vm_import_task_id: Id of the EC2 ImportImage task, `import-ami-...`. The task may still
                run. EC2 forgets a task about 7 days after its end. Default: the id of
                `vm_import_task`. One of the two is required.
            vm_import_task: The task, if the same stack starts it. Default: none.
            description: Description of the image, 1 to 1024 characters. Default: none.
            os_version: Version of the operating system, 1 to 1024 characters. Default: none.
            log_group: Log group that Image Builder logs the import to. Its name must start with
                `/aws/imagebuilder/`. Default: Image Builder chooses the log group.
            tags: Tags of the image, at most 46 with those of the stack. A key has 1 to 128 letters,
                digits, spaces or `_.:/=+-@`, and does not start with `aws:` or `cdk-vm-import:`. A
                value has at most 256 characters. These tags take precedence over those of the
                stack, and `Tags.of()` over both. Default: only tags from these.
            client_token: Idempotency token of the import, 1 to 36 characters. If the image of a
                used token failed or was deleted, AWS imports no other image for the token. Default:
                a token derived from the stack, the resource and the properties, or the next token
                if that one is used.
            wait_for_available: Whether the deployment waits until the image is AVAILABLE. If False,
                the deployment continues as soon as the image exists. A failed import then does not
                fail the deployment, and there is no `image_id`. The function polls for 12 hours in
                the background, tags the AMI and its snapshots, and logs a failure. Default: True.
            timeout: How long the deployment waits, 1 minute to 12 hours. Then the deployment fails
                and rolls back. EC2 continues the import, and the next deployment finds it. Each
                hour after the first adds a custom resource that waits, and a stack has at most 500
                resources: 493 images of up to 1 hour, 41 of 12 hours. Of each full hour, the last
                two minutes are reserved for the response to CloudFormation. Default: 1 hour.
            removal_policy: What happens to the image when it is replaced or removed from the stack.
                `apply_removal_policy`, `RemovalPolicies.of()` and Aspects can change it.
                `delete_ami` decides about the AMI and its snapshots. `RETAIN` also retains the
                image when its first deployment fails elsewhere. `SNAPSHOT` is not possible.
                Default: RETAIN_ON_UPDATE_OR_DELETE, which retains an image after a successful
                deployment and cleans up after a failed creation.
            delete_ami: Whether the AMI and its snapshots are deleted with the image, or with the
                `vm_import_task` if one is given. They are retained while another image uses them
                or while anyone but `AmiSettings` shares them, and the function logs why. With a
                `removal_policy` that retains the image, a warning at synthesis says that they stay.
                Default: False.
            stack_output: Whether the image ARN is an output of the stack. A stack has at most 200
                outputs. Default: True.
            export_name: Name under which the stack exports the image ARN, for `Fn.import_value`,
                1 to 255 letters, digits, colons or hyphens. Default: the output has no export name.
            provider: Provider whose function imports the image. It must belong to the same stack.
                Default: the shared provider of the stack, see `VmImportProvider.get_or_create`.

        Raises:
            ValueError: Arguments are not valid. The message lists all problems. At synthesis: the
                stack has more than 200 outputs.
        """
        _validation.place(scope, construct_id)
        _validation.check(
            scope,
            construct_id,
            [
                *_validation.image_name(image_name),
                *_validation.semantic_version(semantic_version),
                *_validation.platform(platform),
                *_task(vm_import_task_id, vm_import_task, platform, cdk.Stack.of(scope)),
                *_validation.text("description", description, 1024),
                *_validation.text("os_version", os_version, 1024),
                *_log_group(log_group),
                *_validation.tags(tags),
                *_validation.text("client_token", client_token, 36),
                *_validation.flag("wait_for_available", wait_for_available),
                *_validation.timeout(timeout),
                *_validation.removal_policy(removal_policy),
                *_validation.flag("delete_ami", delete_ami),
                *_output(stack_output, export_name),
                *_validation.provider(provider, VmImportProvider, cdk.Stack.of(scope)),
            ],
        )
        super().__init__(scope, construct_id)
        resource_type = contract.ResourceType.IMAGE.value
        self._tags = cdk.TagManager(cdk.TagType.MAP, resource_type, dict(tags or {}))
        self.node.add_validation(_validation.TagValidation(self, self._tags))
        self._platform = platform
        self._given = (image_name, semantic_version)
        if vm_import_task:
            vm_import_task_id = vm_import_task._bind(delete_ami=delete_ami)  # noqa: SLF001 - ours
        self._given_task = str(vm_import_task_id)
        self._provider = provider = provider or VmImportProvider.get_or_create(self)
        self._config = config = provider._bind()  # noqa: SLF001 - ours
        self._ami_settings: str | None = None
        # How long the image resource waits, and each link after it. Empty: nothing waits.
        waits = (
            _wait_chain.split_timeout(round(timeout.to_seconds(integral=False)))
            if wait_for_available
            else []
        )
        names = contract.ImageProperty
        self._resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type=resource_type,
            service_token=config.service_token,
            properties={
                names.NAME: image_name,
                names.SEMANTIC_VERSION: semantic_version,
                names.DESCRIPTION: description,
                names.PLATFORM: platform.value,
                names.OS_VERSION: os_version,
                names.VM_IMPORT_TASK_ID: vm_import_task_id,
                names.LOGGING_CONFIGURATION: log_group
                and {contract.LOG_GROUP_NAME: log_group.log_group_name},
                names.TAGS: _tagging.rendered(self, self._tags),
                names.CLIENT_TOKEN: client_token,
                names.STATE_MACHINE_ARN: config.state_machine_arn,
                names.TIMEOUT_SECONDS: waits[0] if waits else None,
                names.CONTINUE_AFTER_TIMEOUT: len(waits) > 1 or None,
                # The AMI of a task of this stack is deleted with the task, after the image.
                names.DELETE_AMI: (delete_ami and not vm_import_task) or None,
                names.RETAIN: _retained.prop(lambda: self._cfn_resource),
            },
            service_timeout=cdk.Duration.seconds(contract.service_timeout(waits[0]))
            if waits
            else None,
            removal_policy=removal_policy,
        )
        last = _wait_chain.add_links(self, self._resource, seconds=waits[1:], config=config)
        # From the end of the chain, so that whatever uses the ARN waits for the image.
        self._image_arn = last.get_att_string(contract.WaitAttribute.IMAGE_ARN.value)
        self._image_id = (
            last.get_att_string(contract.WaitAttribute.IMAGE_ID.value) if waits else None
        )
        if last is self._resource:
            self._image_version_arn = self._attribute(contract.ImageAttribute.IMAGE_VERSION_ARN)
            self._latest_image_arn = self._attribute(contract.ImageAttribute.LATEST_IMAGE_ARN)
        else:
            # A link has no such attributes, and those of the image resource are not waited for.
            prefix, name, version = split_image_arn(self._image_arn)
            self._image_version_arn = f"{prefix}/{name}/{version}"
            self._latest_image_arn = f"{prefix}/{name}/x.x.x"
        self._image_name = self._attribute(contract.ImageAttribute.IMAGE_NAME)
        self._image_version = self._attribute(contract.ImageAttribute.IMAGE_VERSION)

        if stack_output:
            cdk.CfnOutput(
                self,
                "ImageArn",
                description="ARN of the imported Image Builder image",
                # The same value as `image_arn`. CloudFormation evaluates outputs last in any case,
                # so the ARN of the image resource would be equal, but this way there is one rule:
                # every ARN that leaves the construct has been waited for.
                value=self._image_arn,
                export_name=export_name,
            )
            if self.stack not in _counted:
                _counted.add(self.stack)
                self.stack.node.add_validation(_validation.OutputValidation(self.stack))
        if delete_ami:
            # On this node, and after all others, because they may change its removal policy.
            cdk.Aspects.of(self._cfn_resource).add(
                cast("cdk.IAspect", _WarnsOfRetainedAmi(self)), priority=cdk.AspectPriority.READONLY
            )
        self._warn_of_same_version(image_name, semantic_version)

    @staticmethod
    def from_image_arn(scope: Construct, construct_id: str, image_arn: str) -> IVmImage:
        """Use an image that was imported elsewhere.

        Args:
            scope: The construct to create the image in.
            construct_id: The id of the image in the scope.
            image_arn: ARN of the image build, as in the output of the stack that imported it. It
                may be an unresolved token.

        Returns:
            The image. Its name is as it is in the ARN.

        Raises:
            ValueError: It is not the ARN of an image build.
        """
        return ImageFromAttributes(
            scope, construct_id, image_arn=image_arn, image_id=None, platform=None
        )

    @staticmethod
    def from_image_attributes(
        scope: Construct,
        construct_id: str,
        *,
        image_arn: str,
        image_id: str | None = None,
        platform: Platform | None = None,
    ) -> IVmImage:
        """Use an image that was imported elsewhere, and its AMI.

        A warning says that the image is in another account or Region than the stack, if both are
        known at synthesis.

        Args:
            scope: The construct to create the image in.
            construct_id: The id of the image in the scope.
            image_arn: ARN of the image build, as in the output of the stack that imported it. It
                may be an unresolved token.
            image_id: Id of the AMI, `ami-...`. It may be an unresolved token. Default: not known.
            platform: Operating system, for `to_machine_image`. Default: not known.

        Returns:
            The image. Its name is as it is in the ARN.

        Raises:
            ValueError: Arguments are not valid. The message lists all problems.
        """
        return ImageFromAttributes(
            scope, construct_id, image_arn=image_arn, image_id=image_id, platform=platform
        )

    @staticmethod
    def from_image_name(
        scope: Construct, construct_id: str, image_name: str, *, semantic_version: str = "x.x.x"
    ) -> IVmImage:
        """Use the latest build of an image of the stack's account and Region.

        Its `image_arn` is the ARN of the version, `arn:...:image/<name>/<x.y.z>`. Image Builder
        resolves it to the latest build that is AVAILABLE, each time that a recipe is built.

        Args:
            scope: The construct to create the image in.
            construct_id: The id of the image in the scope.
            image_name: Name of the image, 3 to 128 letters, digits, hyphens, underscores or inner
                spaces. Not an unresolved token.
            semantic_version: The version, `X.Y.Z`, in which x stands for the latest. Default:
                `x.x.x`, the latest of all versions.

        Returns:
            The image. Its name is as it is in the ARN.

        Raises:
            ValueError: Arguments are not valid. The message lists all problems.
        """
        return ImageFromName(
            scope, construct_id, image_name=image_name, semantic_version=semantic_version
        )

    @property
    def client_token(self) -> str:
        """Idempotency token of the import."""
        return self._attribute(contract.ImageAttribute.CLIENT_TOKEN)

    @property
    def vm_import_task_id(self) -> str:
        """Id of the EC2 task that the image was imported from."""
        return self._attribute(contract.ImageAttribute.VM_IMPORT_TASK_ID)

    @property
    def request_id(self) -> str:
        """Id of the ImportVmImage request that created the image, for AWS support."""
        return self._attribute(contract.ImageAttribute.REQUEST_ID)

    def apply_removal_policy(self, policy: cdk.RemovalPolicy) -> None:
        """Change what happens to the image when it is replaced or removed from the stack.

        Args:
            policy: The policy, as in the argument `removal_policy`.

        Raises:
            ValueError: An image cannot have this policy.
        """
        if problems := [*_validation.removal_policy(policy)]:
            raise ValueError(f"{self.node.path}: {problems[0]}")
        self._resource.apply_removal_policy(policy)

    def add_query_definition(self) -> logs.CfnQueryDefinition:
        """Save a query for the history of this image in CloudWatch Logs Insights.

        Its name begins with the name of the stack. See `VmImportProvider.add_query_definitions`.

        Returns:
            The query.

        Raises:
            ValueError: The method was called already.
        """
        if self.node.try_find_child("HistoryQuery"):
            raise ValueError(
                f"{self.node.path}: add_query_definition was called already: call it once for an "
                "image."
            )
        logical_id = self._cfn_resource.logical_id
        return _log_queries.save(
            self,
            "HistoryQuery",
            name=f"{self.stack.stack_name}/{self._provider.node.id}/History of {logical_id}",
            query=_log_queries.history(logical_id),
            log_group=self._provider.log_group,
        )

    def _ami_settings_problems(self) -> Iterator[str]:
        """Yield why the settings of the AMI cannot be changed."""
        if self._image_id is None:
            yield (
                f"image {self.node.path} is not waited for, so its AMI is not known: leave "
                "wait_for_available=False out."
            )
        if self._ami_settings:
            yield (
                f"image {self.node.path} has the settings {self._ami_settings} already: use one "
                "AmiSettings for all settings of its AMI."
            )

    def _bind_ami_settings(self, settings: Construct) -> ProviderConfig:
        """Record the settings of the AMI, and return how to reach the image's function."""
        self._ami_settings = settings.node.path
        # Images of one task have one AMI. Settings that are created, or removed, at the same time
        # could not recognise what the other ones have set.
        last = _last_settings.setdefault(self.stack, {})
        if before := last.get(self._given_task):
            settings.node.add_dependency(before)
        last[self._given_task] = settings
        self.node.add_validation(_validation.SettingsTagValidation(self, self._tags))
        return self._config

    @property
    def _cfn_resource(self) -> cdk.CfnResource:
        return cast("cdk.CfnResource", self._resource.node.default_child)

    @property
    def cdk_tag_manager(self) -> cdk.TagManager:
        """The tags of the image, which `Tags.of()` adds to."""
        return self._tags

    def _metric_dimensions(self) -> dict[str, str]:
        return {
            # Not the pseudo parameter: an alarm may be in another stack.
            contract.Dimension.STACK.value: self.stack.stack_name,
            contract.Dimension.RESOURCE.value: self._cfn_resource.logical_id,
        }

    def _event_resources(self) -> list[str]:
        # The rule must exist before the image, so it cannot refer to its ARN.
        image_name, semantic_version = self._given
        if cdk.Token.is_unresolved(image_name):
            raise ValueError(
                f"{self.node.path}: image_name is an unresolved token, so events of the image "
                "cannot be recognized: use a name that is known at synthesis."
            )
        version = f"{contract.slug(image_name)}/{semantic_version}/"
        return events.Match.prefix(
            self.stack.format_arn(service="imagebuilder", resource="image", resource_name=version)
        )

    def _attribute(self, attribute: contract.ImageAttribute) -> str:
        return self._resource.get_att_string(attribute.value)

    def _warn_of_same_version(self, image_name: str, semantic_version: str) -> None:
        if cdk.Token.is_unresolved(image_name) or cdk.Token.is_unresolved(semantic_version):
            return
        versions = _versions.setdefault(self.stack, {})
        slug = contract.slug(image_name)
        first = versions.setdefault((slug, semantic_version), self.node.path)
        if first != self.node.path:
            cdk.Annotations.of(self).add_warning_v2(
                "cdk-vm-import:sameImageVersion",
                f"{first} also imports {slug} {semantic_version}. The two become builds of one "
                "image version, and their order is not defined. Change image_name or "
                "semantic_version of one of them.",
            )


@jsii.implements(cdk.IAspect)
class _WarnsOfRetainedAmi:
    def __init__(self, image: ImportedVmImage) -> None:
        self._image = image

    def visit(self, _node: IConstruct) -> None:
        if _retained.is_retained(self._image._cfn_resource):  # noqa: SLF001 - ours
            cdk.Annotations.of(self._image).add_warning_v2(
                "cdk-vm-import:retainedAmi",
                "delete_ami is True, but the removal policy retains the image, and an image "
                "retains its AMI. Use RemovalPolicy.DESTROY, or leave delete_ami out.",
            )


def _output(stack_output: object, export_name: object) -> Iterator[str]:
    yield from _validation.flag("stack_output", stack_output)
    yield from _validation.export_name(export_name)
    if stack_output is False and export_name is not None:
        yield "export_name needs the stack output: leave stack_output=False or export_name out."


def _log_group(log_group: logs.ILogGroup | None) -> Iterator[str]:
    problems = [*_validation.optional("log_group", log_group, "log_group_name", "a logs.LogGroup")]
    yield from problems
    if log_group is None or problems:
        return
    name = log_group.log_group_name
    # For a log group of this app that is a token, but its template contains the name.
    if isinstance(cfn := log_group.node.default_child, logs.CfnLogGroup):
        name = cdk.Stack.of(cfn).resolve(cfn.log_group_name)
    yield from _validation.log_group_name(name)


def _task(task_id: object, task: object, platform: Platform, stack: cdk.Stack) -> Iterator[str]:
    if (task_id is None) is (task is None):
        yield "vm_import_task or vm_import_task_id is required: use exactly one of them."
    if task_id is not None:
        yield from _validation.vm_import_task_id(task_id)
    if task is None:
        return
    if not isinstance(task, VmImportTask):
        yield (
            f"vm_import_task {_validation.shown(task)} is not a VmImportTask: use one, or the id "
            "of a task as vm_import_task_id."
        )
        return
    if task.stack is not stack:
        yield (
            f"vm_import_task {task.node.path} belongs to another stack: use its import_task_id as "
            "vm_import_task_id."
        )
    if task.platform not in {None, platform}:
        yield (
            f"platform {platform} is not the platform of vm_import_task, {task.platform}: use the "
            "same platform for both."
        )
