"""What can go wrong, in words that a person reads in a stack event."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

from botocore.exceptions import ParamValidationError

logger = logging.getLogger(__name__)

ANOTHER_IMPORT: Final = (
    "start another import and deploy with it (a VmImportTask starts one when its disks or its "
    "description change; otherwise run 'aws ec2 import-image')"
)
REPAIR: Final = f"repair the disk image, then {ANOTHER_IMPORT}"


def without_end(text: str) -> str:
    """Return a text without the white space around it and the full stops at its end.

    Args:
        text: What AWS says, or the beginning of a text that is cut.
    """
    return re.sub(r"[\s.]+\Z", "", text).lstrip()


@dataclass(frozen=True)
class Reason:
    """The reason in a stack event: the cause, then what to do, then ids."""

    cause: str = ""
    """What failed and why, in AWS's words where AWS says it. No ARN comes before that."""
    hint: str = ""
    """What to do."""
    ids: Sequence[str] = ()
    """What it is about: images, import tasks, requests, the log group."""

    def __str__(self) -> str:
        """Write it as one text."""
        cause, hint = without_end(self.cause), without_end(self.hint)
        return (f"{cause}. Hint: {hint}." if hint else cause) + self.written_ids

    @property
    def written_ids(self) -> str:
        """The end of the text."""
        return f" ({', '.join(self.ids)})" if self.ids else ""


class VmImportError(Exception):
    """The request cannot be carried out. The text becomes the reason in the stack event."""

    is_transient = False
    """Whether the same request may succeed later."""
    is_denied = False
    """Whether IAM or a key policy denies a call."""
    is_brief = False
    """Whether it may succeed within about 90 seconds: AWS may not have seen a change yet."""
    physical_id = ""
    """What the failed response must name, so that its Delete finds what may have been created."""

    def __init__(self, cause: str, hint: str = "", ids: Sequence[str] = ()) -> None:
        """Say what failed.

        Args:
            cause: What failed and why.
            hint: What to do.
            ids: What it is about.
        """
        self.reason = Reason(cause, hint, ids)
        super().__init__(str(self.reason))

    @classmethod
    def because(cls, reason: Reason) -> Self:
        """Return an error for a reason that an earlier step found."""
        return cls(reason.cause, reason.hint, reason.ids)

    @property
    def kind(self) -> str:
        """What kind of error it is, for the time that it may take to pass."""
        return type(self).__name__

    @property
    def summary(self) -> str:
        """The cause, without what differs each time that the same call fails."""
        return self.reason.cause


class PropertyError(VmImportError):
    """A resource property is missing or has a form that no released version ever sent."""


class ImportTaskError(VmImportError):
    """EC2's import task cannot become an image: it failed, was cancelled, or is not known."""


class SupersededError(VmImportError):
    """A later event of the same resource exists, so CloudFormation no longer waits for this one."""


class ImageFailedError(VmImportError):
    """The image is FAILED, CANCELLED or deleted, or was not AVAILABLE in time."""


class ImageGoneError(ImageFailedError):
    """The image was deleted outside the stack."""


class ClientTokenError(VmImportError):
    """No client token is left under which AWS would create another image or task."""


class AmiSettingsError(VmImportError):
    """The settings of the AMI cannot be changed, or could not be undone later."""


class NotYetError(VmImportError):
    """AWS has not finished what it was asked to do. The next step asks again."""

    is_transient = True


class NotListedError(VmImportError):
    """AWS does not list yet what it has created."""

    is_brief = True


class AwsError(VmImportError):
    """AWS refused a call, or could not be reached."""

    def __init__(self, operation: str, error: Exception) -> None:
        """Describe what failed: AWS's code and message, one hint, and the request id.

        Args:
            operation: The API operation, in AWS's spelling.
            error: What boto3 raised.
        """
        # Errors without a response, such as timeouts, have the attribute too, and it is None.
        response: dict[str, Any] = getattr(error, "response", None) or {}
        details = response.get("Error", {})
        metadata = response.get("ResponseMetadata", {})
        self.code: str = details.get("Code", type(error).__name__)
        status = metadata.get("HTTPStatusCode", 0)
        # EC2 reports a role that IAM does not show it yet as an invalid parameter.
        # https://docs.aws.amazon.com/vm-import/latest/userguide/troubleshooting.html
        is_about_role = self.code == "InvalidParameter" and "service role" in str(error)
        self.is_denied = is_about_role or any(part in self.code for part in _DENIED)
        # IAM may not have seen a new role, permission or tag yet, and EC2 not a change.
        self.is_brief = self.is_denied or self.code in _NOT_SEEN
        is_lost = not response and not isinstance(error, ParamValidationError)
        is_passing = status == 429 or any(part in self.code for part in _PASSING)  # noqa: PLR2004
        self.is_transient = is_lost or status >= 500 or is_passing  # noqa: PLR2004
        message = str(details.get("Message") or error)
        ids = [f"request id {metadata['RequestId']}"] if "RequestId" in metadata else []
        hint = _HINTS.get(self.code, "deploy again" if self.is_transient else "")
        hint = _DENIED_HINT if self.is_denied and not is_about_role else hint
        self._failed = f"{operation} failed: {self.code}"
        super().__init__(f"{self._failed}: {message}", hint, ids)

    @property
    def summary(self) -> str:
        """The operation and AWS's code. EC2 encodes each denial differently in its message.

        https://docs.aws.amazon.com/STS/latest/APIReference/API_DecodeAuthorizationMessage.html
        """
        return self._failed

    @property
    def is_not_found(self) -> bool:
        """Whether Image Builder does not know the image."""
        return self.code == "ResourceNotFoundException"

    @property
    def is_in_use(self) -> bool:
        """Whether Image Builder does not delete the image while it is imported or used."""
        return self.code == "ResourceDependencyException"

    @property
    def is_token_used(self) -> bool:
        """Whether the client token was used before, with other parameters."""
        return self.code in _TOKEN_USED


@contextmanager
def failures_name(physical_id: str) -> Iterator[None]:
    """Make errors raised inside carry a physical id, unless they carry one already.

    Args:
        physical_id: Identifies what may have been created. Empty: errors pass as they are.
    """
    try:
        yield
    except Exception as error:
        if physical_id and not getattr(error, "physical_id", ""):
            vars(error)["physical_id"] = physical_id
        raise


@contextmanager
def tolerated(
    consequence: str, unless: Callable[[VmImportError], bool] = lambda _: False
) -> Iterator[None]:
    """Log an error raised inside, and continue.

    Args:
        consequence: What the error means for the user.
        unless: Which errors are raised: those that may pass when the step is repeated.
    """
    try:
        yield
    except VmImportError as error:
        if unless(error):
            raise
        logger.warning("%s: %s", consequence, error)


# Services raise errors that their models do not declare for an operation, so codes are compared.
# https://docs.aws.amazon.com/imagebuilder/latest/APIReference/CommonErrors.html
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
# Parts of the codes of errors that pass and have another HTTP status than 429 and 5xx.
_PASSING: Final = (
    "Throttl",
    "SlowDown",
    "Unavailable",
    "RequestTimeout",
    "RequestExpired",
    "PriorRequestNotComplete",
    "ExecutionLimitExceeded",
    "RequestLimitExceeded",
    "ResourceLimit",
)
_TOKEN_USED: Final = frozenset(
    {"IdempotentParameterMismatchException", "IdempotentParameterMismatch"}
)
# Parts of the codes of calls that IAM or a key policy denies.
_DENIED: Final = ("AccessDenied", "Forbidden", "UnauthorizedOperation")
# EC2 does not know yet what it has just created, or still lists what it has just deleted.
# https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
_NOT_SEEN: Final = frozenset(
    {"InvalidAMIID.NotFound", "InvalidAMIID.Unavailable", "InvalidSnapshot.NotFound"}
)
_DENIED_HINT: Final = (
    "VmImportProvider grants this to the function's role; look for a permissions boundary, a "
    "service control policy or changed image tags that deny it"
)
_HINTS: Final = {
    "ClientException": (
        "vm_import_task_id must name a task that 'aws ec2 import-image' started in this account "
        "and Region within the last 7 days"
    ),
    "ResourceDependencyException": (
        "another resource, such as an image recipe or a resource share, still uses the image; "
        "remove that first, or retain the image"
    ),
    "ServiceQuotaExceededException": (
        "delete images that are not needed, or request a higher Image Builder quota"
    ),
}
