"""Faults, knobs, the clock and recorded calls, by the control API."""

from __future__ import annotations

import time

import pytest
from botocore.exceptions import ClientError

from local_aws import LocalAwsError
from local_aws.server.clock import Clock
from local_aws.server.knobs import Knobs
from tests.local_aws.account import Account, refused


def test_a_fault_returns_an_error_as_many_times_as_requested(aws: Account) -> None:
    error = {"code": "ServiceException", "message": "out of order", "status": 500}
    aws.server.fault("imagebuilder", "ListImages", times=2, error=error)
    for _ in range(2):
        assert refused(aws.images.list_images) == ("ServiceException", 500, "out of order")
    assert aws.images.list_images()["imageVersionList"] == []


def test_an_error_has_the_http_status_of_the_model(aws: Account) -> None:
    error = {"code": "ServiceQuotaExceededException", "message": "too many"}
    aws.server.fault("imagebuilder", "ListImages", error=error)
    assert refused(aws.images.list_images)[:2] == ("ServiceQuotaExceededException", 402)


def test_a_throttled_operation_returns_the_throttling_error_of_its_service(aws: Account) -> None:
    aws.server.fault("imagebuilder", "GetImage", throttle=True)
    aws.server.fault("ec2", "DescribeImportImageTasks", throttle=True)
    arn = "arn:aws:imagebuilder:us-east-1:123456789012:image/golden/1.0.0/1"
    refusal = refused(lambda: aws.images.get_image(imageBuildVersionArn=arn))
    assert refusal[:2] == ("TooManyRequestsException", 429)
    refusal = refused(aws.ec2.describe_import_image_tasks)
    assert refusal[:2] == ("RequestLimitExceeded", 503)


def test_a_request_whose_response_is_lost_is_performed(aws: Account) -> None:
    task_id = aws.start()
    aws.server.fault("imagebuilder", "ImportVmImage", lose_answer=True)
    with pytest.raises(ClientError):
        aws.import_image(task_id, clientToken="t")
    (build,) = aws.images.list_image_build_versions()["imageSummaryList"]
    assert aws.import_image(task_id, clientToken="t") == build["arn"]


def test_a_response_can_be_delayed(aws: Account) -> None:
    aws.server.fault("imagebuilder", "ListImages", delay=0.3)
    begun = time.monotonic()
    aws.images.list_images()
    assert time.monotonic() - begun >= 0.3


def test_faults_can_be_cleared(aws: Account) -> None:
    aws.server.fault("imagebuilder", "ListImages", times=9, throttle=True)
    aws.server.clear_faults()
    aws.images.list_images()


@pytest.mark.parametrize(
    ("operation", "what"),
    [
        ("BakeImage", {"throttle": True}),
        ("ListImages", {"throtle": True}),
        ("ListImages", {"error": {"cod": "x"}}),
    ],
)
def test_a_fault_that_is_not_valid_is_refused(
    aws: Account, operation: str, what: dict[str, object]
) -> None:
    with pytest.raises(LocalAwsError):
        aws.server.fault("imagebuilder", operation, **what)


def test_calls_are_recorded_with_request_and_error(aws: Account) -> None:
    task_id = aws.start()
    arn = aws.import_image(task_id, clientToken="t")
    refused(lambda: aws.images.delete_image(imageBuildVersionArn=arn))
    imported, deleted = aws.server.calls()[-2:]
    assert imported == {
        "service": "imagebuilder",
        "operation": "ImportVmImage",
        "request": {
            "name": "golden",
            "semanticVersion": "1.0.0",
            "platform": "Linux",
            "vmImportTaskId": task_id,
            "clientToken": "t",
        },
        "error": None,
    }
    assert deleted["error"] == "ResourceDependencyException"
    assert aws.server.calls("DeleteImage")[-1] == deleted


def test_knobs_can_be_read_and_changed(aws: Account) -> None:
    assert aws.server.knobs() == Knobs().as_dict()
    assert aws.server.knobs(import_seconds=5)["import_seconds"] == 5


@pytest.mark.parametrize(
    "changes",
    [
        {"colour": "red"},
        {"import_seconds": "5"},
        {"import_seconds": True},
        {"unknown_task": "explode"},
        {"dependants_block_delete": 1},
    ],
    ids=str,
)
def test_an_unknown_knob_or_value_is_refused(aws: Account, changes: dict[str, object]) -> None:
    with pytest.raises(LocalAwsError):
        aws.server.knobs(**changes)


def test_due_actions_run_in_order_and_at_their_time() -> None:
    clock = Clock()
    begun = clock.now()
    seen: list[tuple[str, int]] = []

    def note(name: str) -> None:
        seen.append((name, round(clock.now() - begun)))

    def first() -> None:
        note("first")
        clock.call_in(10, lambda: note("follower"))

    clock.call_in(60, lambda: note("last"))
    clock.call_in(5, first)
    clock.advance(4)
    assert seen == []
    clock.advance(3600)
    assert seen == [("first", 5), ("follower", 15), ("last", 60)]


def test_aws_time_runs_at_the_speed_of_the_clock() -> None:
    clock = Clock(speed=3600)
    begun = clock.now()
    time.sleep(0.02)
    assert clock.now() - begun >= 72
