"""What becomes the reason in a stack event, and what is repeated."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ParamValidationError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from errors import AwsError, PropertyError, VmImportError, failures_name, tolerated


def aws_error(code: str, status: int = 400, message: str = "No.") -> AwsError:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": "1-2-3"},
    }
    return AwsError("GetImage", ClientError(response, "GetImage"))


@pytest.mark.parametrize(
    ("error", "is_transient", "is_brief"),
    [
        (aws_error("TooManyRequestsException", 429), True, False),
        (aws_error("CallRateLimitExceededException", 429), True, False),
        (aws_error("ThrottlingException"), True, False),
        (aws_error("RequestLimitExceeded", 503), True, False),
        (aws_error("KmsThrottlingException"), True, False),
        (aws_error("RequestTimeout"), True, False),
        (aws_error("PriorRequestNotComplete"), True, False),
        (aws_error("SlowDown"), True, False),
        (aws_error("KmsAccessDeniedException"), False, True),
        (aws_error("Throttling"), True, False),
        (aws_error("ThrottledException"), True, False),
        (aws_error("SomethingElse", 429), True, False),
        (aws_error("ExecutionLimitExceeded"), True, False),
        (aws_error("ResourceLimitExceeded"), True, False),
        (aws_error("ForbiddenException", 403), False, True),
        (aws_error("ServiceException", 500), True, False),
        (aws_error("ServiceUnavailable", 503), True, False),
        (aws_error("AccessDeniedException", 403), False, True),
        (aws_error("UnauthorizedOperation", 403), False, True),
        (aws_error("InvalidParameter", message="The service role x does not exist"), False, True),
        (aws_error("InvalidParameter"), False, False),
        (aws_error("ClientException"), False, False),
        (PropertyError("no"), False, False),
    ],
    ids=str,
)
def test_throttling_and_faults_may_pass_and_denied_calls_may_pass_soon(
    error: VmImportError, *, is_transient: bool, is_brief: bool
) -> None:
    assert error.is_transient is is_transient
    assert error.is_brief is is_brief


@pytest.mark.parametrize("error", [ReadTimeoutError, ConnectTimeoutError, EndpointConnectionError])
def test_a_call_without_an_answer_may_pass(error: Any) -> None:
    failure = AwsError("GetImage", error(endpoint_url="https://imagebuilder", error="gone"))

    assert failure.is_transient
    assert f"GetImage failed: {error.__name__}: " in str(failure)


def test_a_response_that_boto3_cannot_read_may_pass() -> None:
    assert AwsError("GetImage", ResponseParserError("not XML")).is_transient


def test_a_request_that_boto3_refuses_to_send_does_not_pass() -> None:
    error: BotoCoreError = ParamValidationError(report="Unknown parameter")

    assert not AwsError("GetImage", error).is_transient


def test_an_error_has_the_code_the_message_a_hint_and_the_request_id() -> None:
    assert str(aws_error("ServiceQuotaExceededException", message="Too many images.")) == (
        "GetImage failed: ServiceQuotaExceededException: Too many images. "
        "Hint: delete images that are not needed, or request a higher Image Builder quota. "
        "(request id 1-2-3)"
    )


@pytest.mark.parametrize("code", ["ClientException", "ServiceException", "Other"])
def test_an_error_never_has_two_full_stops(code: str) -> None:
    assert ".." not in str(aws_error(code))


def test_the_first_id_that_an_error_gets_stays() -> None:
    with pytest.raises(VmImportError) as caught, failures_name("outer"), failures_name("inner"):
        raise VmImportError("no")

    assert caught.value.physical_id == "inner"


def test_an_empty_id_names_nothing() -> None:
    with pytest.raises(VmImportError) as caught, failures_name("outer"), failures_name(""):
        raise VmImportError("no")

    assert caught.value.physical_id == "outer"


def test_only_errors_of_the_handler_are_tolerated() -> None:
    with tolerated("something is left"):
        raise VmImportError("no")
    with pytest.raises(KeyError), tolerated("something is left"):
        raise KeyError
