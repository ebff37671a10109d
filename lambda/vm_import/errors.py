"""What can go wrong, in words that a person reads in a stack event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

ANOTHER_IMPORT: Final = (
    "start another import and deploy with it (a VmImportTask starts one when its disks or its "
    "description change; otherwise run ec2:ImportImage)"
)


class VmImportError(Exception):
    """The request cannot be carried out; the text becomes the reason in the stack event."""


class PropertyError(VmImportError):
    """A resource property is missing or has a form that no released version ever sent."""


class ImportTaskError(VmImportError):
    """EC2's import task cannot become an image: it failed, was cancelled, or is not known."""


class OvertakenError(VmImportError):
    """The event came after a later one of its resource: CloudFormation had given it up."""


class ImageFailedError(VmImportError):
    """Image Builder gave the image up: it is FAILED or CANCELLED."""


class ClientTokenError(VmImportError):
    """No client token is left under which Image Builder would make a new image."""


class OutOfTimeError(VmImportError):
    """The function is about to reach its time limit, and must answer now."""


class AwsError(VmImportError):
    """AWS refused a call, or could not be reached."""

    def __init__(self, operation: str, error: ClientError | BotoCoreError) -> None:
        """Say what failed, AWS's code and words, AWS's request id, and one hint.

        Args:
            operation: The API operation, in AWS's spelling.
            error: What boto3 raised.
        """
        # what says that nothing was answered has a response too: None
        response = getattr(error, "response", None) or {}
        details = response.get("Error", {})
        self.code: str = details.get("Code", type(error).__name__)
        # No answer at all, a fault inside AWS, or too many calls: later it may work.
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        self.is_transient = not response or status >= 500 or self.code in THROTTLED  # noqa: PLR2004
        text = f"{operation} failed: {self.code}: {details.get('Message') or error}"
        if request_id := response.get("ResponseMetadata", {}).get("RequestId"):
            text += f" (request id {request_id})"
        hint = _HINTS.get(self.code)
        super().__init__(f"{text}. {hint}" if hint else text)


# https://docs.aws.amazon.com/imagebuilder/latest/APIReference/CommonErrors.html and the modelled
# errors of each operation. Image Builder raises errors that an operation does not declare, so
# they are matched by code.
NOT_FOUND: Final = frozenset({"ResourceNotFoundException"})
TASK_NOT_FOUND: Final = frozenset({"InvalidConversionTaskId.Malformed"})
TOKEN_USED_OTHERWISE: Final = frozenset(
    {"IdempotentParameterMismatchException", "IdempotentParameterMismatch"}
)
# the image ended before it could be cancelled, or an import cannot be cancelled
NOT_CANCELLABLE: Final = frozenset(
    {"InvalidParameterValueException", "InvalidRequestException", "ResourceInUseException"}
)
# botocore retries the first three a few times; none of them is ever a reason to fail
THROTTLED: Final = frozenset(
    {
        "TooManyRequestsException",
        "ThrottlingException",
        "RequestLimitExceeded",
        "CallRateLimitExceededException",
    }
)

_ACCESS: Final = (
    "Hint: the function's role is granted this by VmImportProvider; look for a permissions "
    "boundary, a service control policy or changed image tags that take it away"
)
_SERVICE: Final = "Hint: this is a fault inside AWS; deploy again"
_HINTS: Final = {
    "AccessDenied": _ACCESS,
    "AccessDeniedException": _ACCESS,
    "ForbiddenException": _ACCESS,
    "UnauthorizedOperation": _ACCESS,
    "ClientException": (
        "Hint: vm_import_task_id must name a task that ec2:ImportImage started in this account "
        "and region within the last 7 days"
    ),
    "IdempotentParameterMismatchException": (
        "Hint: this client token was used for another image; leave client_token out, or change it"
    ),
    "ResourceDependencyException": (
        "Hint: another resource, such as an image recipe or a resource share, still uses the "
        "image; remove that first, or retain the image"
    ),
    "ServiceException": _SERVICE,
    "ServiceUnavailableException": _SERVICE,
    "ServiceQuotaExceededException": (
        "Hint: remove images that are not needed, or ask for a higher Image Builder quota"
    ),
}
