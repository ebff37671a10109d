"""The import of disks into EC2, started by the stack."""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import aws_cdk as cdk
import jsii
from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk_vm_import import _tagging, _task_validation, _validation
from cdk_vm_import._cdk_types import AnyKey, AnyRole
from cdk_vm_import._disk_access import StoredDisk
from cdk_vm_import._handler import contract
from cdk_vm_import._policy_order import wait_for_policies
from cdk_vm_import._signature import shows_arguments
from cdk_vm_import.import_options import Architecture, BootMode, LicenseType
from cdk_vm_import.platform import Platform
from cdk_vm_import.vm_disk import VmDisk
from cdk_vm_import.vm_import_provider import VmImportProvider
from cdk_vm_import.vm_import_role import VmImportRole

# Larger local disks cause a warning, in bytes.
_LARGE_FILE = 2 * 2**30


@shows_arguments()
@jsii.implements(cdk.ITaggableV2)
class VmImportTask(cdk.Resource):
    """An EC2 ImportImage task, which turns the disks of a virtual machine into an AMI.

    The resource starts the task and never waits for it. The image that uses the task waits, and
    reports why the task failed.

    `Tags.of()` reaches the task. A change of tags applies in place, as long as EC2 knows the task:
    about 7 days. A change of the role applies to the next import. A change of any other argument
    starts a new task, and CloudFormation then deletes the old one: a task that still runs is
    cancelled. The AMI and its snapshots belong to the image, see `delete_ami` of
    `ImportedVmImage`. The disks are never deleted.

    Example:
        ```python
        task = VmImportTask(
            self,
            "Import",
            disks=[VmDisk.from_bucket(bucket, "rhel9.vmdk")],
            platform=Platform.LINUX,
            license_type=LicenseType.BYOL,
        )
        image = ImportedVmImage(
            self,
            "GoldenImage",
            image_name="rhel9-golden",
            semantic_version="1.0.0",
            platform=Platform.LINUX,
            vm_import_task=task,
        )
        ```

    See https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportImage.html
    """

    def __init__(  # noqa: PLR0913 - the request has as many fields
        self,
        scope: Construct,
        construct_id: str,
        *,
        disks: Sequence[VmDisk],
        platform: Platform | None = None,
        architecture: Architecture | None = None,
        boot_mode: BootMode | None = None,
        license_type: LicenseType | None = None,
        usage_operation: str | None = None,
        license_configurations: Sequence[str] = (),
        encrypted: bool | None = None,
        encryption_key: AnyKey | None = None,
        description: str | None = None,
        role: AnyRole | None = None,
        tags: Mapping[str, str] | None = None,
        client_token: str | None = None,
        provider: VmImportProvider | None = None,
    ) -> None:
        """Start an import of disks.

        Strings may be or contain unresolved tokens.

        Args:
            scope: The construct to create this one in.
            construct_id: The id of this construct in the scope.
            disks: The disks of the virtual machine, 1 to 21. An OVA contains all disks of a machine
                and must be the only one.
            platform: Operating system of the machine, Linux or Windows. Required for a snapshot
                with `boot_mode` UEFI. Default: EC2 detects it.
            architecture: Processor architecture of the machine. Default: EC2 detects it.
            boot_mode: Boot mode of the machine. Default: EC2 detects it.
            license_type: Licence of the operating system, only `BYOL` for Linux. Windows requires
                this or `usage_operation`. Default: AWS's licence for a Windows server, else the
                licence that the system came with.
            usage_operation: Licence as AWS's billing code, such as `RunInstances:0002`, instead of
                `license_type`. See
                https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/billing-info-fields.html
                Default: EC2 uses `license_type`.
            license_configurations: ARNs of License Manager configurations that are attached to the
                AMI. Default: none.
            encrypted: Whether AMI and snapshots are encrypted. Default: they are encrypted if
                `encryption_key` is given or if the account encrypts all new volumes.
            encryption_key: KMS key that encrypts AMI and snapshots. Required if the default key of
                the account for EBS is customer managed and AMI and snapshots are encrypted: give
                that key, or VM Import may not use it. Default: the AWS managed key for EBS.
            description: Description of the task, 1 to 255 characters. Default: none.
            role: Role that VM Import reads the disks with. It must already have the permissions
                that a `VmImportRole` has; nothing is added to it. Default: one `VmImportRole` that
                all tasks of the stack share.
            tags: Tags of the task, at most 46 with those of the stack. A key has 1 to 128 letters,
                digits, spaces or `_.:/=+-@`, and does not start with `aws:` or `cdk-vm-import:`. A
                value has at most 256 characters. These tags take precedence over those of the
                stack, and `Tags.of()` over both. Default: only tags from these.
            client_token: Idempotency token of the import, 1 to 64 characters. If the task of a
                used token failed or was cancelled, EC2 starts no other task for the token. Default:
                a token derived from the stack, the resource and the properties, or the next token
                if that one is used.
            provider: Provider whose function starts the import. It must belong to the same stack.
                Default: the shared provider of the stack, see `VmImportProvider.get_or_create`.

        Raises:
            ValueError: Arguments are not valid. The message lists all problems. At synthesis: the
                policy of the function would exceed the 10,240 characters that IAM allows. It grows
                with the buckets that contain disks and with the roles, not with the tasks. 15
                buckets or 30 roles always fit.
        """
        _validation.place(scope, construct_id)
        _validation.check(
            scope,
            construct_id,
            [
                *_task_validation.disks(disks),
                *_task_validation.choices(platform, architecture, boot_mode, license_type),
                *_task_validation.license_of(platform, license_type, usage_operation),
                *_task_validation.license_configurations(license_configurations),
                *_task_validation.platform_of_snapshot(disks, boot_mode, platform),
                *_encryption(encrypted, encryption_key),
                *_validation.text("description", description, 255),
                *_validation.optional("role", role, "role_arn", "an iam.Role"),
                *_validation.tags(tags),
                *_validation.text("client_token", client_token, 64),
                *_validation.provider(provider, VmImportProvider, cdk.Stack.of(scope)),
            ],
        )
        super().__init__(scope, construct_id)
        resource_type = contract.ResourceType.IMPORT_TASK.value
        self._tags = cdk.TagManager(cdk.TagType.MAP, resource_type, dict(tags or {}))
        self.node.add_validation(_validation.TagValidation(self, self._tags))
        stored = [disk._bind(self) for disk in disks]  # noqa: SLF001 - ours
        for disk in disks:
            _warn_of_large_upload(self, disk)
        self._role = role or _shared_role(self, stored, encryption_key, license_configurations)
        self._platform = platform
        provider = provider or VmImportProvider.get_or_create(self)
        config = provider._bind(passed_role=self._role, disks=stored)  # noqa: SLF001 - ours
        names = contract.TaskProperty
        self._resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type=resource_type,
            service_token=config.service_token,
            properties={
                names.DISK_CONTAINERS: [disk.container for disk in stored],
                names.PLATFORM: platform and platform.value,
                names.ARCHITECTURE: architecture and architecture.value,
                names.BOOT_MODE: boot_mode and boot_mode.value,
                names.LICENSE_TYPE: license_type and license_type.value,
                names.USAGE_OPERATION: usage_operation,
                names.LICENSE_SPECIFICATIONS: [
                    {"LicenseConfigurationArn": arn} for arn in license_configurations
                ]
                or None,
                names.ENCRYPTED: encrypted or bool(encryption_key) or None,
                names.KMS_KEY_ID: encryption_key and encryption_key.key_arn,
                names.DESCRIPTION: description,
                names.CLIENT_TOKEN: client_token,
                names.ROLE_NAME: self._role.role_name,
                names.TAGS: _tagging.rendered(self, self._tags),
                names.STATE_MACHINE_ARN: config.state_machine_arn,
            },
        )
        buckets = [bucket for disk in disks if (bucket := disk._bucket)]  # noqa: SLF001 - ours
        wait_for_policies(self._resource, self._role, buckets)

    @property
    def import_task_id(self) -> str:
        """Id of the task, `import-ami-...`. It is available before the import is completed."""
        return self._resource.get_att_string(contract.TaskAttribute.IMPORT_TASK_ID.value)

    @property
    def platform(self) -> Platform | None:
        """Operating system of the machine, if it was given."""
        return self._platform

    @property
    def role(self) -> iam.IRole:
        """The role that VM Import reads the disks with."""
        return self._role

    @property
    def cdk_tag_manager(self) -> cdk.TagManager:
        """The tags of the task, which `Tags.of()` adds to."""
        return self._tags

    def _bind(self, *, delete_ami: bool) -> str:
        """Return the id of the task for an image that uses the task.

        Args:
            delete_ami: Whether the AMI and its snapshots are deleted with the task.
        """
        if delete_ami:
            cast("cdk.CfnResource", self._resource.node.default_child).add_property_override(
                contract.TaskProperty.DELETE_AMI.value, value=True
            )
        return self.import_task_id


def _shared_role(
    scope: Construct,
    disks: Sequence[StoredDisk],
    encryption_key: AnyKey | None,
    license_configurations: Sequence[str],
) -> iam.IRole:
    role = VmImportRole._get_or_create(scope)  # noqa: SLF001 - ours
    role._allow(  # noqa: SLF001 - ours
        disks, encryption_key=encryption_key, license_configurations=license_configurations
    )
    return role


def _warn_of_large_upload(scope: Construct, disk: VmDisk) -> None:
    if disk._size > _LARGE_FILE:  # noqa: SLF001 - ours
        cdk.Annotations.of(scope).add_warning_v2(
            "cdk-vm-import:largeUpload",
            f"a local disk has {disk._size / 2**30:.1f} GiB: each deployment of a change uploads "  # noqa: SLF001 - ours
            "it, and synthesis reads all of it. Upload it to a bucket, and use VmDisk.from_bucket.",
        )


def _encryption(encrypted: object, encryption_key: object) -> Iterator[str]:
    if encrypted is not None:
        yield from _validation.flag("encrypted", encrypted)
    yield from _validation.optional("encryption_key", encryption_key, "key_arn", "a kms.Key")
    if encryption_key is not None and encrypted is False:
        yield "encrypted is False, but encryption_key is given: leave one of them out."
