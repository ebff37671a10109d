"""The names, formats and limits that the constructs, the handler and deployed stacks share.

The constructs load this file from the folder of the handler, so each name exists once. Changing a
name breaks stacks that are already deployed.
"""

import re
from enum import StrEnum
from typing import Final


class ResourceType(StrEnum):
    """The custom resource types that the handler serves."""

    IMAGE = "Custom::ImportedVmImage"
    IMPORT_TASK = "Custom::VmImportTask"
    WAIT = "Custom::VmImageWait"
    AMI_SETTINGS = "Custom::VmAmiSettings"


class ImageProperty(StrEnum):
    """Properties of Custom::ImportedVmImage, in the words of ImportVmImage."""

    NAME = "Name"
    SEMANTIC_VERSION = "SemanticVersion"
    DESCRIPTION = "Description"
    PLATFORM = "Platform"
    OS_VERSION = "OsVersion"
    VM_IMPORT_TASK_ID = "VmImportTaskId"
    LOGGING_CONFIGURATION = "LoggingConfiguration"
    TAGS = "Tags"
    CLIENT_TOKEN = "ClientToken"  # noqa: S105 - a name
    # Not part of what is imported.
    STATE_MACHINE_ARN = "StateMachineArn"
    TIMEOUT_SECONDS = "TimeoutSeconds"
    CONTINUE_AFTER_TIMEOUT = "ContinueAfterTimeout"
    DELETE_AMI = "DeleteAmi"
    RETAIN = "Retain"


LOG_GROUP_NAME: Final = "LogGroupName"
"""The one member of ImageProperty.LOGGING_CONFIGURATION."""


class ImageAttribute(StrEnum):
    """What Fn::GetAtt returns for a Custom::ImportedVmImage."""

    IMAGE_ARN = "ImageArn"
    IMAGE_VERSION_ARN = "ImageVersionArn"
    LATEST_IMAGE_ARN = "LatestImageArn"
    IMAGE_NAME = "ImageName"
    IMAGE_VERSION = "ImageVersion"
    CLIENT_TOKEN = "ClientToken"  # noqa: S105 - a name
    VM_IMPORT_TASK_ID = "VmImportTaskId"
    REQUEST_ID = "RequestId"
    IMAGE_ID = "ImageId"
    IMPORT_FAILED = "ImportFailed"


class TaskProperty(StrEnum):
    """Properties of Custom::VmImportTask, in the words of ImportImage."""

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
    # Not part of what is imported.
    ROLE_NAME = "RoleName"
    TAGS = "Tags"
    STATE_MACHINE_ARN = "StateMachineArn"
    DELETE_AMI = "DeleteAmi"


class TaskAttribute(StrEnum):
    """What Fn::GetAtt returns for a Custom::VmImportTask."""

    IMPORT_TASK_ID = "ImportTaskId"


class WaitProperty(StrEnum):
    """Properties of Custom::VmImageWait: one more hour of waiting for an image."""

    IMAGE_ARN = "ImageArn"
    IMAGE_LOGICAL_ID = "ImageLogicalId"
    VM_IMPORT_TASK_ID = "VmImportTaskId"
    IMPORT_FAILED = "ImportFailed"
    STATE_MACHINE_ARN = "StateMachineArn"
    TIMEOUT_SECONDS = "TimeoutSeconds"
    CONTINUE_AFTER_TIMEOUT = "ContinueAfterTimeout"


class WaitAttribute(StrEnum):
    """What Fn::GetAtt returns for a Custom::VmImageWait."""

    IMAGE_ARN = "ImageArn"
    IMAGE_ID = "ImageId"


class AmiSettingsProperty(StrEnum):
    """Properties of Custom::VmAmiSettings, in the words of EC2's API for AMIs."""

    IMAGE_ID = "ImageId"
    USER_IDS = "UserIds"
    ORGANIZATION_ARNS = "OrganizationArns"
    ORGANIZATIONAL_UNIT_ARNS = "OrganizationalUnitArns"
    IMDS_SUPPORT = "ImdsSupport"
    DEPRECATE_AT = "DeprecateAt"
    # Not settings.
    RETAIN = "Retain"
    STATE_MACHINE_ARN = "StateMachineArn"


TAG_PREFIX: Final = "cdk-vm-import:"


class OwnTag(StrEnum):
    """Tags that the handler adds to each image, task, AMI and snapshot."""

    # The idempotency token; on images and tasks also what identity.Record says.
    TOKEN = f"{TAG_PREFIX}token"
    STACK = f"{TAG_PREFIX}stack"
    RESOURCE = f"{TAG_PREFIX}resource"


AMI_SETTINGS_TAG: Final = f"{TAG_PREFIX}settings-"
"""What the key of the tag begins with that each Custom::VmAmiSettings adds to its AMI."""


class Step(StrEnum):
    """Members of the state machine's data: what a step of an event receives and returns."""

    EVENT = "Event"
    STATE = "State"
    SECONDS = "Seconds"


UNDELIVERED_RESPONSE: Final = "UndeliveredResponseError"
"""The error that fails a step when CloudFormation's ResponseURL accepted no response."""

RESPONSE_RETRIES: Final = 2
"""How often the state machine repeats such a step."""
RESPONSE_RETRY_SECONDS: Final = 60
"""The pause before it does."""
STEP_RETRIES: Final = 150
"""How often it repeats a step that failed otherwise: through an outage of Lambda of an hour."""

# --- metrics and log ---

METRIC_NAMESPACE: Final = "CdkVmImport"


class Metric(StrEnum):
    """Metrics of an import that has ended, and the fields of the log line that contains them."""

    DURATION = "Duration"
    """How long the import was waited for, in seconds."""
    FAILED = "Failed"
    """1 if the image failed or was not AVAILABLE in time, 0 if it is AVAILABLE."""


class Dimension(StrEnum):
    """The dimensions of the metrics, and fields of the lines of the log that say how far it is."""

    STACK = "Stack"
    """The name of the stack."""
    RESOURCE = "Resource"
    """The logical id of the image, also where a link of its chain waits for it."""


class LogField(StrEnum):
    """The other fields of these lines, for queries of CloudWatch Logs Insights."""

    MESSAGE = "message"
    """What happened, in words."""
    STATE = "state"
    """The state of the image, in Image Builder's words."""
    PROGRESS = "progress"
    """The progress of EC2's import task, in percent."""
    RESPONSE = "response"
    """Only in the line of a response to CloudFormation: SUCCESS or FAILED."""
    OUTCOME = "outcome"
    """Only in the last line: a member of ImportOutcome."""


class ImportOutcome(StrEnum):
    """How the wait for an image ended."""

    AVAILABLE = "available"
    FAILED = "failed"
    TIMEOUT = "timeout"
    DELETED = "deleted"
    """Somebody deleted the image while nobody waited for it. The line contains no metrics."""


# --- formats ---

# GetImage's model (ResourceName). ImportVmImage accepts more, and the result is not documented.
# https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_Image.html
IMAGE_NAME: Final = re.compile(r"[-_A-Za-z0-9][-_A-Za-z0-9 ]{1,126}[-_A-Za-z0-9]")
SEMANTIC_VERSION: Final = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")
# https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_DeleteImage.html
IMAGE_BUILD_ARN: Final = re.compile(
    r"arn:aws[^:]*:imagebuilder:[^:]+:[0-9]{12}:image/[a-z0-9_-]+/[0-9]+\.[0-9]+\.[0-9]+/[0-9]+"
)
IMPORT_TASK_ID: Final = re.compile(r"import-ami-[0-9a-f]{8,17}")


def slug(image_name: str) -> str:
    """Return the name as Image Builder writes it in ARNs: names with equal slugs are one image."""
    return image_name.lower().replace(" ", "-").replace("_", "-")


# --- limits ---

# AWS allows this many tags on an image, a task, an AMI and a snapshot, at every moment.
AWS_TAG_LIMIT: Final = 50
# Image Builder may add the tag CreatedBy to an AMI.
MAX_TAGS: Final = AWS_TAG_LIMIT - len(OwnTag) - 1

# --- time, in seconds ---

MIN_TIMEOUT: Final = 60
MAX_TIMEOUT: Final = 12 * 3600
# CloudFormation waits at most this long for the response to one event.
# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-cloudformation-customresource.html
MAX_SERVICE_TIMEOUT: Final = 3600
# A deletion may have to wait for a cancelled import to end, however short the timeout is.
MIN_SERVICE_TIMEOUT: Final = 900
# What remains of the service timeout for the last clean-up and for the response.
GRACE: Final = 120
# The longest that a state machine's execution may live: the longest import, and an hour.
MAX_EXECUTION: Final = 13 * 3600


def service_timeout(wait_seconds: int = MAX_SERVICE_TIMEOUT) -> int:
    """Return how long CloudFormation waits for the response of a resource.

    Args:
        wait_seconds: How long the resource waits for the import.
    """
    return min(max(wait_seconds + GRACE, MIN_SERVICE_TIMEOUT), MAX_SERVICE_TIMEOUT)


def wait_limit(wait_seconds: int) -> int:
    """Return after how many seconds the handler stops waiting: before CloudFormation does.

    Args:
        wait_seconds: How long the resource waits for the import.
    """
    return min(wait_seconds, MAX_SERVICE_TIMEOUT - GRACE)
