"""The import of disks into EC2, started by the stack."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import aws_cdk as cdk
import jsii
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from cdk_vm_import import _task_validation, _validation
from cdk_vm_import._contract import TASK_RESOURCE_TYPE, TaskAttribute, TaskProperty
from cdk_vm_import.import_options import Architecture, BootMode, LicenseType
from cdk_vm_import.platform import Platform
from cdk_vm_import.vm_disk import VmDisk
from cdk_vm_import.vm_import_provider import VmImportProvider
from cdk_vm_import.vm_import_role import VmImportRole


@jsii.implements(cdk.ITaggableV2)
class VmImportTask(cdk.Resource):
    """An EC2 ImportImage task: the disks of a virtual machine, on their way to an AMI.

    The deployment starts the task and goes on at once. The image that is made of the task waits
    for it, and tells why it failed.

    `Tags.of()` reaches the task. Tags change in place, for as long as EC2 knows the task: about 7
    days. Another role is for the next import. A change of anything else imports again and lets go
    of the old task: one that still runs is cancelled. The AMI and its snapshots are the image's,
    see `delete_ami` of `ImportedVmImage`, and the disks stay where they are.

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
        encryption_key: kms.IKey | None = None,
        description: str | None = None,
        role: iam.IRole | None = None,
        tags: Mapping[str, str] | None = None,
        client_token: str | None = None,
        provider: VmImportProvider | None = None,
    ) -> None:
        """Import disks.

        Strings may be, or hold, unresolved tokens.

        Args:
            scope: The construct to put this one in.
            construct_id: Its id there.
            disks: The disks of the machine, at least one; an OVA alone.
            platform: Its operating system, Linux or Windows. Default: EC2 looks; with a snapshot
                that starts by UEFI it must be given.
            architecture: Its processor. Default: EC2 looks.
            boot_mode: How it starts. Default: EC2 looks.
            license_type: Whose licence the system runs under; Linux only `BYOL`. AWS asks for
                this or `usage_operation`, and Windows must have one. Default: AWS's for a Windows
                server, else the system's own.
            usage_operation: In place of `license_type`, the licence as the code that AWS bills
                by, such as `RunInstances:0002`. See
                https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/billing-info-fields.html
                Default: EC2 goes by `license_type`.
            license_configurations: ARNs of License Manager configurations that the AMI gets.
                Default: none.
            encrypted: Whether AMI and snapshots are encrypted. Default: if `encryption_key` is
                given, or if the account encrypts all new volumes.
            encryption_key: Key to encrypt them with. Default: the key of EBS.
            description: Description of the task, 1 to 255 characters. Default: it has none.
            role: Role for VM Import, which must be allowed to read the disks and to use the
                keys, as a `VmImportRole` is; nothing is granted to it here. Default: a
                `VmImportRole` of this task alone.
            tags: Tags of the task, at most 47: keys of 1 to 127 letters, digits, spaces or any of
                `_.:/=+-@`, not starting with `aws:` or `cdk-vm-import:`; values of up to 256
                characters. `Tags.of()` adds to them, and wins. Default: only those of `Tags.of()`.
            client_token: Idempotency token of the import, 1 to 64 characters. Once a task of this
                token failed or was cancelled, there is no other for it. Default: a token made of
                the stack, the resource and the properties, and a new one when it is used up.
            provider: The function that starts the import, of the same stack. Default: the one
                function of the stack, see `VmImportProvider.get_or_create`.

        Raises:
            ValueError: Arguments are wrong. The message lists them all.
        """
        problems = [
            *_task_validation.disks(disks),
            *_task_validation.choices(platform, architecture, boot_mode, license_type),
            *_task_validation.license_of(platform, license_type, usage_operation),
            *_task_validation.license_configurations(license_configurations),
            *_task_validation.snapshots_start(disks, boot_mode, platform),
            *_encryption(encrypted, encryption_key),
            *_validation.text("description", description, 255),
            *_validation.tags(tags),
            *_validation.text("client_token", client_token, 64),
            *_validation.provider(provider, cdk.Stack.of(scope)),
        ]
        if problems:
            path = f"{scope.node.path}/{construct_id}"
            raise ValueError("\n- ".join([f"wrong arguments for the import {path}:", *problems]))

        super().__init__(scope, construct_id)
        self._tags = cdk.TagManager(cdk.TagType.MAP, TASK_RESOURCE_TYPE, dict(tags or {}))
        self.node.add_validation(_validation.TagValidation(self._tags))
        self._role = role or VmImportRole(
            self,
            "Role",
            disks=disks,
            encryption_key=encryption_key,
            license_configurations=license_configurations,
        )
        provider = provider or VmImportProvider.get_or_create(self)
        provider.allow_imports(self._role)
        self._identity: dict[str, Any] = {
            TaskProperty.DISK_CONTAINERS: [disk.locate(self).container for disk in disks],
            TaskProperty.PLATFORM: platform and platform.value,
            TaskProperty.ARCHITECTURE: architecture and architecture.value,
            TaskProperty.BOOT_MODE: boot_mode and boot_mode.value,
            TaskProperty.LICENSE_TYPE: license_type and license_type.value,
            TaskProperty.USAGE_OPERATION: usage_operation,
            TaskProperty.LICENSE_SPECIFICATIONS: [
                {"LicenseConfigurationArn": arn} for arn in license_configurations
            ]
            or None,
            TaskProperty.ENCRYPTED: encrypted or bool(encryption_key) or None,
            TaskProperty.KMS_KEY_ID: encryption_key and encryption_key.key_arn,
            TaskProperty.DESCRIPTION: description,
            TaskProperty.CLIENT_TOKEN: client_token,
        }
        self._resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type=TASK_RESOURCE_TYPE,
            service_token=provider.service_token,
            properties={
                **self._identity,
                TaskProperty.ROLE_NAME: self._role.role_name,
                TaskProperty.TAGS: self._tags.rendered_tags,
                TaskProperty.WAITER: provider.waiter,
            },
        )
        self._platform = platform
        # The policies of a role are resources of their own; without them VM Import refuses it.
        self._resource.node.add_dependency(self._role)

    @property
    def import_task_id(self) -> str:
        """Id of the task, `import-ami-...`. It is there before the import is over."""
        return self._resource.get_att_string(TaskAttribute.IMPORT_TASK_ID.value)

    @property
    def platform(self) -> Platform | None:
        """Operating system of the machine, if it was given."""
        return self._platform

    @property
    def role(self) -> iam.IRole:
        """The role that VM Import reads the disks with."""
        return self._role

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the task imports, as its template says it: another identity is another task."""
        return self._identity

    def delete_ami(self) -> None:
        """Have the AMI and its snapshots deleted with the task; an image with `delete_ami` asks."""
        cast("cdk.CfnResource", self._resource.node.default_child).add_property_override(
            TaskProperty.DELETE_AMI.value, value=True
        )

    @property
    def cdk_tag_manager(self) -> cdk.TagManager:
        """The tags of the task; what `Tags.of()` adds to."""
        return self._tags


def _encryption(encrypted: object, encryption_key: kms.IKey | None) -> Iterator[str]:
    if encryption_key is not None and encrypted is False:
        yield "encrypted is False, but an encryption_key is given: leave one of them out"
