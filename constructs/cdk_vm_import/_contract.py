"""The names that templates, the handler and deployed stacks share. Changing one breaks them."""

from enum import StrEnum
from typing import Final

RESOURCE_TYPE: Final = "Custom::ImportedVmImage"

RESERVED_TAG_PREFIX: Final = "cdk-vm-import:"


class Property(StrEnum):
    """Properties of Custom::ImportedVmImage, besides CloudFormation's ServiceToken."""

    NAME = "Name"
    SEMANTIC_VERSION = "SemanticVersion"
    DESCRIPTION = "Description"
    PLATFORM = "Platform"
    OS_VERSION = "OsVersion"
    VM_IMPORT_TASK_ID = "VmImportTaskId"
    LOGGING_CONFIGURATION = "LoggingConfiguration"
    TAGS = "Tags"
    CLIENT_TOKEN = "ClientToken"  # noqa: S105 - a name
    # No part of the image's identity: what handles an event once, and how the deployment waits.
    WAITER = "Waiter"
    TIMEOUT_SECONDS = "TimeoutSeconds"
    WAIT_HANDLE = "WaitHandle"
    DELETE_AMI = "DeleteAmi"
    # Whether CloudFormation keeps what is replaced or removed.
    RETAIN = "Retain"


LOG_GROUP_NAME: Final = "LogGroupName"
"""The one member of Property.LOGGING_CONFIGURATION."""


class Attribute(StrEnum):
    """What Fn::GetAtt gives for a Custom::ImportedVmImage."""

    IMAGE_ARN = "ImageArn"
    IMAGE_VERSION_ARN = "ImageVersionArn"
    LATEST_IMAGE_ARN = "LatestImageArn"
    IMAGE_NAME = "ImageName"
    IMAGE_VERSION = "ImageVersion"
    CLIENT_TOKEN = "ClientToken"  # noqa: S105 - a name
    VM_IMPORT_TASK_ID = "VmImportTaskId"
    REQUEST_ID = "RequestId"
    IMAGE_ID = "ImageId"


class OwnTag(StrEnum):
    """Tags that the handler puts on each image beside the user's."""

    TOKEN = "cdk-vm-import:token"  # noqa: S105 - a name
    STACK = "cdk-vm-import:stack"
    RESOURCE = "cdk-vm-import:resource"


TASK_RESOURCE_TYPE: Final = "Custom::VmImportTask"


class TaskProperty(StrEnum):
    """Properties of Custom::VmImportTask, besides ServiceToken: what ImportImage calls them."""

    DISK_CONTAINERS = "DiskContainers"
    PLATFORM = "Platform"
    ARCHITECTURE = "Architecture"
    BOOT_MODE = "BootMode"
    LICENSE_TYPE = "LicenseType"
    USAGE_OPERATION = "UsageOperation"
    LICENSE_SPECIFICATIONS = "LicenseSpecifications"
    ENCRYPTED = "Encrypted"
    KMS_KEY_ID = "KmsKeyId"
    DESCRIPTION = "Description"
    CLIENT_TOKEN = "ClientToken"  # noqa: S105 - a name
    # No part of what is imported.
    ROLE_NAME = "RoleName"
    TAGS = "Tags"
    WAITER = "Waiter"
    DELETE_AMI = "DeleteAmi"


class TaskAttribute(StrEnum):
    """What Fn::GetAtt gives for a Custom::VmImportTask."""

    IMPORT_TASK_ID = "ImportTaskId"


def slug(image_name: str) -> str:
    """Give the name as Image Builder spells it in ARNs: names with equal slugs are one image."""
    return image_name.lower().replace(" ", "-").replace("_", "-")
