"""A virtual machine, imported into EC2 Image Builder by the stack."""

from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import aws_cdk as cdk
import jsii
from aws_cdk import aws_logs as logs
from constructs import Construct, IValidation

from cdk_vm_import import _validation
from cdk_vm_import._contract import LOG_GROUP_NAME, RESOURCE_TYPE, Attribute, Property, slug
from cdk_vm_import.platform import Platform
from cdk_vm_import.vm_image import IVmImage, VmImageBase
from cdk_vm_import.vm_import_provider import VmImportProvider

# Paths of the images of each stack, by what makes two of them builds of one version.
_versions: WeakKeyDictionary[cdk.Stack, dict[tuple[str, str], str]] = WeakKeyDictionary()


@jsii.implements(cdk.ITaggableV2)
class ImportedVmImage(VmImageBase):
    """An EC2 VM import task, turned into an image that Image Builder recipes can build on.

    The image exists as soon as the resource does; Image Builder follows the task itself and makes
    the image AVAILABLE when the task is done. Recipes may name the image before that.

    `Tags.of()` reaches the image. A change of tags is made in place. A change of any other
    argument, but for `removal_policy` and `export_name`, imports a new image and lets go of the
    old one as `removal_policy` says.

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

    def __init__(  # noqa: PLR0913 - the request has nine fields
        self,
        scope: Construct,
        construct_id: str,
        *,
        image_name: str,
        semantic_version: str,
        platform: Platform,
        vm_import_task_id: str,
        description: str | None = None,
        os_version: str | None = None,
        log_group: logs.ILogGroup | None = None,
        tags: Mapping[str, str] | None = None,
        client_token: str | None = None,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
        export_name: str | None = None,
        provider: VmImportProvider | None = None,
    ) -> None:
        """Import the image of a VM import task.

        Every argument may be, or hold, an unresolved token, but for `platform`, `removal_policy`
        and `provider`.

        Args:
            scope: The construct to put this one in.
            construct_id: Its id there.
            image_name: Name of the image, 3 to 128 letters, digits, `-`, `_` or inner spaces.
                Names that differ only in case, spaces and underscores are one image.
            semantic_version: Version of the image, `X.Y.Z`, each node 0 to 1073741823 and without
                leading zeros. The same name and version again make a new build of that version.
            platform: Operating system of the virtual machine.
            vm_import_task_id: Id of the EC2 ImportImage task, `import-ami-...`. It need not be
                completed, but EC2 forgets tasks after about 7 days.
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
            removal_policy: What becomes of the image when it is replaced or removed from the stack
                (its AMI and snapshots stay in any case). `RETAIN` also keeps what a failed create
                left behind; `SNAPSHOT` is not possible. Default: keep an image that was in use,
                clean up after a failed create.
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
            *_validation.vm_import_task_id(vm_import_task_id),
            *_validation.text("description", description, 1024),
            *_validation.text("os_version", os_version, 1024),
            *_log_group(log_group),
            *_validation.tags(tags),
            *_validation.text("client_token", client_token, 36),
            *_removal_policy(removal_policy),
            *_provider(provider, cdk.Stack.of(scope)),
        ]
        if problems:
            path = f"{scope.node.path}/{construct_id}"
            raise ValueError("\n- ".join([f"wrong arguments for the image {path}:", *problems]))

        super().__init__(scope, construct_id)
        self._tags = cdk.TagManager(cdk.TagType.MAP, RESOURCE_TYPE, dict(tags or {}))
        self.node.add_validation(_TagValidation(self._tags))
        self._provider = provider or VmImportProvider.get_or_create(self)

        logging = {LOG_GROUP_NAME: log_group.log_group_name} if log_group else None
        properties: dict[str, Any] = {
            Property.NAME: image_name,
            Property.SEMANTIC_VERSION: semantic_version,
            Property.DESCRIPTION: description,
            Property.PLATFORM: platform.value,
            Property.OS_VERSION: os_version,
            Property.VM_IMPORT_TASK_ID: vm_import_task_id,
            Property.LOGGING_CONFIGURATION: logging,
            Property.TAGS: self._tags.rendered_tags,
            Property.CLIENT_TOKEN: client_token,
        }
        self._resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type=RESOURCE_TYPE,
            service_token=self._provider.service_token,
            properties=properties,
            removal_policy=removal_policy,
        )
        self._image_arn = self._attribute(Attribute.IMAGE_ARN)
        self._image_version_arn = self._attribute(Attribute.IMAGE_VERSION_ARN)
        self._latest_image_arn = self._attribute(Attribute.LATEST_IMAGE_ARN)
        self._image_name = self._attribute(Attribute.IMAGE_NAME)
        self._image_version = self._attribute(Attribute.IMAGE_VERSION)

        cdk.CfnOutput(
            self,
            "ImageArn",
            description="ARN of the imported Image Builder image",
            value=self.image_arn,
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


@jsii.implements(IValidation)
class _TagValidation:
    """Checks the tags once `Tags.of()` has brought them all."""

    def __init__(self, tags: cdk.TagManager) -> None:
        self._tags = tags

    def validate(self) -> list[str]:
        return [*_validation.tags(self._tags.tag_values())]


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


def _provider(provider: VmImportProvider | None, stack: cdk.Stack) -> Iterator[str]:
    # Its permissions end at the images that carry the id of its own stack.
    if provider is not None and cdk.Stack.of(provider) is not stack:
        yield (
            f"provider {provider.node.path} belongs to another stack: give one of "
            f"{stack.node.path or stack.stack_name}, or leave it out"
        )
