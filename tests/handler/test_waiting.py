"""The wait of an image for its import, and the follow-up of imports that nobody waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from contract import MAX_TIMEOUT, ImageAttribute, ImageProperty, LogField, OwnTag
from tests.support.account import IMPORT, tags_of
from tests.support.aws import ROLLS_BACK
from tests.support.lambda_function import LOG_GROUP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.handler.conftest import Log
    from tests.support.account import Account
    from tests.support.aws import Aws
    from tests.support.cloudformation import CustomResource

CLIENT_ERROR = "ClientError: Unknown OS / Missing OS files."


def metrics(log: Log) -> list[dict[str, Any]]:
    """The lines of the log that CloudWatch reads as metrics."""
    return [line for line in log() if "_aws" in line]


def progress(log: Log) -> list[dict[str, Any]]:
    """The lines of the log about polls of imports that have not ended."""
    return [line for line in log() if LogField.STATE in line and "_aws" not in line]


# --- the response waits for the image ---


def test_the_response_comes_when_the_image_is_available_and_names_the_ami(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    response = image.create(account.waiting())

    assert response["Status"] == "SUCCESS", response["Reason"]
    found = account.image(response["PhysicalResourceId"])
    assert found["state"]["status"] == "AVAILABLE"
    assert response["Data"][ImageAttribute.IMAGE_ID] == found["outputResources"]["amis"][0]["image"]
    assert response["Data"][ImageAttribute.IMAGE_ARN] == response["PhysicalResourceId"]
    assert len(image.responses()) == 1
    (execution,) = aws.step_functions.executions
    assert execution.status == "SUCCEEDED"
    assert execution.steps > 10


def test_nothing_is_sent_before_the_image_is_available(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    execution = image.start(image.create_event(account.waiting()))

    aws.step(execution)

    assert execution.seconds > 0
    assert image.responses() == []


def test_an_image_that_is_available_is_responded_to_in_the_first_step(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    task = account.import_task()
    image.create(account.properties(VmImportTaskId=task))
    account.advance(IMPORT)
    properties = {**image.properties, ImageProperty.TIMEOUT_SECONDS: "3600"}

    execution = image.start(image.update_event(properties))
    aws.step(execution)

    assert execution.status == "SUCCEEDED"
    assert image.responses()[-1]["Data"][ImageAttribute.IMAGE_ID] == account.ami(task)["ImageId"]  # type: ignore[index]


def test_the_response_is_late_by_a_small_share_of_the_import(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    properties = account.waiting()
    start = aws.now()

    image.create(properties)

    import_seconds = aws.local.knobs.import_seconds + aws.local.knobs.image_watch_seconds
    delay = aws.now() - start - import_seconds
    assert delay <= import_seconds / 20 + 5


def test_a_step_that_runs_again_after_a_crash_imports_nothing_more(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    execution = image.start(image.create_event(account.waiting()))
    first = dict(execution.data)
    aws.step(execution)
    execution.data = first

    aws.work(lambda: not execution.is_running)

    (response,) = image.responses()
    assert account.images_of(image) == [response["PhysicalResourceId"]]
    assert len(account.requests_of(image, "ImportVmImage")) == 1


@pytest.mark.parametrize(
    ("service", "operation"),
    [("imagebuilder", "GetImage"), ("ec2", "DescribeImportImageTasks")],
)
@pytest.mark.parametrize(
    "error",
    [
        {"code": "ServiceException", "message": "Oh", "status": 500},
        {"code": "TooManyRequestsException", "message": "Rate exceeded", "status": 429},
    ],
    ids=["500", "throttled"],
)
def test_throttling_and_faults_of_aws_do_not_end_the_wait(
    aws: Aws,
    account: Account,
    image: CustomResource,
    service: str,
    operation: str,
    error: dict[str, Any],
) -> None:
    execution = image.start(image.create_event(account.waiting()))
    aws.step(execution)
    account.fault(service, operation, times=40, error=error)

    aws.work(lambda: not execution.is_running)

    (response,) = image.responses()
    assert response["Status"] == "SUCCESS", response["Reason"]


def test_a_poll_that_aws_throttles_is_reported_with_its_problem(
    aws: Aws, account: Account, image: CustomResource, log: Log
) -> None:
    execution = image.start(image.create_event(account.waiting()))
    aws.step(execution)
    error = {"code": "TooManyRequestsException", "message": "Rate exceeded", "status": 429}
    account.fault("imagebuilder", "GetImage", times=40, error=error)

    aws.work(lambda: not execution.is_running)

    problems = [line["message"] for line in progress(log) if "TooMany" in line["message"]]
    assert problems == ["GetImage failed: TooManyRequestsException: Rate exceeded"]


def test_progress_is_not_logged_again_after_each_poll_that_aws_throttles(
    aws: Aws, account: Account, image: CustomResource, log: Log
) -> None:
    properties = account.waiting()
    account.fail_import(None, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID], at_progress=2)
    execution = image.start(image.create_event(properties))
    error = {"code": "TooManyRequestsException", "message": "Rate exceeded", "status": 429}
    for _ in range(10):
        aws.let_pass(240)
        account.fault("imagebuilder", "GetImage", times=6, error=error)

    aws.work(lambda: not execution.is_running)

    assert [line["message"] for line in progress(log)] == [
        "EC2's import is at 2 %, pending; the image is PENDING",
        "EC2's import is at 2 %, validating; the image is PENDING",
        "GetImage failed: TooManyRequestsException: Rate exceeded",
    ]


def test_an_outage_of_lambda_of_an_hour_does_not_end_the_wait(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    account.knobs(import_seconds=5000.0)
    execution = image.start(image.create_event(account.waiting()))
    aws.step(execution)
    end = aws.now() + 3500
    while aws.now() < end:
        aws.expect({0: "killed before"})
        aws.step(execution)
    aws.expect()

    assert execution.is_running
    aws.work(lambda: not execution.is_running)
    assert len(image.responses()) == 1


# --- imports that fail ---


def test_a_failed_import_fails_the_create_with_ec2s_message_and_leaves_nothing(
    account: Account, image: CustomResource
) -> None:
    properties = account.waiting()
    account.fail_import(
        CLIENT_ERROR, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID], at_progress=58
    )

    response = image.create(properties)

    assert response["Status"] == "FAILED"
    assert CLIENT_ERROR.rstrip(".") in response["Reason"]
    assert properties[ImageProperty.VM_IMPORT_TASK_ID] in response["Reason"]
    assert ".." not in response["Reason"]
    assert account.images_of(image) == []


def test_a_failed_import_task_ends_the_wait_before_image_builder_notices_it(
    account: Account, image: CustomResource
) -> None:
    account.knobs(image_watch_seconds=100_000.0)
    properties = account.waiting()
    account.fail_import(
        CLIENT_ERROR, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID], at_progress=34
    )

    response = image.create(properties)

    assert response["Status"] == "FAILED"
    assert response["Reason"].startswith(f"VM import failed: {CLIENT_ERROR} Hint: repair the disk")
    assert " is PENDING, import task " in response["Reason"]
    assert account.images_of(image) == []


def test_a_cancelled_image_ends_the_wait(aws: Aws, account: Account, image: CustomResource) -> None:
    execution = image.start(image.create_event(account.waiting()))
    aws.step(execution)
    arn = execution.image
    account.cancel(arn)

    aws.work(lambda: not execution.is_running)

    (response,) = image.responses()
    assert response["Status"] == "FAILED"
    assert f"{arn} is CANCELLED" in response["Reason"]


def test_an_image_that_is_deleted_by_hand_ends_the_wait(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    execution = image.start(image.create_event(account.waiting()))
    aws.step(execution)
    account.cancel(execution.image)
    account.delete(execution.image)

    aws.work(lambda: not execution.is_running)

    (response,) = image.responses()
    assert response["Status"] == "FAILED"
    assert "is gone" in response["Reason"]
    assert len(account.requests_of(image, "ImportVmImage")) == 1


# --- the time is over ---


def test_a_timeout_names_the_progress_and_how_to_wait_longer(
    account: Account, image: CustomResource
) -> None:
    properties = account.waiting(timeout=300)
    account.fail_import(None, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID], at_progress=28)

    response = image.create(properties)

    assert response["Status"] == "FAILED"
    assert response["Reason"].startswith(
        "the image is not AVAILABLE after 5 minutes: EC2's import is at 28 %, converting; the "
        "image is PENDING. Hint: EC2's import continues"
    )
    assert "longer timeout, up to 12 hours" in response["Reason"]
    assert account.images_of(image) == []


def test_the_create_after_a_timeout_uses_the_same_import(
    account: Account, image: CustomResource
) -> None:
    properties = account.waiting(timeout=60)
    image.create(properties)

    response = image.create({**properties, ImageProperty.TIMEOUT_SECONDS: "3600"})

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert (
        response["Data"][ImageAttribute.VM_IMPORT_TASK_ID]
        == properties[ImageProperty.VM_IMPORT_TASK_ID]
    )


@pytest.mark.parametrize("timeout", [60, 900, 3480, 3600])
def test_the_wait_ends_at_its_timeout_and_before_cloudformation_stops_waiting(
    aws: Aws, account: Account, image: CustomResource, timeout: int
) -> None:
    account.knobs(import_seconds=100_000.0)
    properties = account.waiting(timeout=timeout)
    start = aws.now()

    response = image.create(properties)

    assert response["Status"] == "FAILED"
    limit = min(timeout, 3600 - 120)
    assert limit <= aws.responded[next(iter(aws.responded))] - start <= limit + 110


def test_an_image_with_links_hands_on_when_its_hour_is_over(
    account: Account, image: CustomResource
) -> None:
    account.knobs(import_seconds=10_000.0)

    response = image.create(account.waiting() | {ImageProperty.CONTINUE_AFTER_TIMEOUT: "true"})

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert response["Data"][ImageAttribute.IMAGE_ARN] == response["PhysicalResourceId"]
    assert not response["Data"].get(ImageAttribute.IMAGE_ID)
    assert account.images_of(image) == [response["PhysicalResourceId"]]


# --- the deployment does not wait ---


def test_without_waiting_the_response_comes_at_once_and_the_ami_is_tagged_later(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    response = image.create(account.properties(Tags={"stage": "test"}))
    arn = response["PhysicalResourceId"]
    status = account.image(arn)["state"]["status"]

    account.advance(IMPORT)

    assert response["Status"] == "SUCCESS"
    assert status == "PENDING"
    assert len(image.responses()) == 1
    assert tags_of(account.ami_of(arn)) == {
        "stage": "test",
        OwnTag.STACK.value: image.stack_id,
        OwnTag.RESOURCE.value: image.logical_id,
    }
    (follow_up,) = aws.step_functions.follow_ups()
    assert follow_up.status == "SUCCEEDED"


def test_the_follow_up_is_an_execution_of_its_own_without_the_response_url(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    image.create(account.properties())

    (follow_up,) = aws.step_functions.follow_ups()
    assert follow_up.name.startswith("follow-")
    assert "ResponseURL" not in follow_up.input
    assert follow_up.image == image.physical_id


def test_without_waiting_an_import_that_fails_is_only_logged(
    account: Account, image: CustomResource, log: Log
) -> None:
    properties = account.properties()
    account.fail_import(
        CLIENT_ERROR, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID], at_progress=58
    )

    response = image.create(properties)
    account.advance(IMPORT)

    assert image.responses() == [response]
    assert response["Status"] == "SUCCESS"
    assert account.image(response["PhysicalResourceId"])["state"]["status"] == "FAILED"
    (line,) = metrics(log)
    assert (line["outcome"], line["Failed"]) == ("failed", 1)


def test_without_waiting_the_follow_up_ends_after_12_hours(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    account.knobs(import_seconds=100_000.0)
    image.create(account.properties())

    account.advance(MAX_TIMEOUT + 600)

    (follow_up,) = aws.step_functions.follow_ups()
    assert follow_up.status == "SUCCEEDED"
    assert MAX_TIMEOUT <= (follow_up.stopped or 0) - follow_up.started < MAX_TIMEOUT + 60
    assert follow_up.steps <= 520


@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "not waiting"])
def test_an_ami_that_cannot_be_tagged_yet_is_tagged_later(
    account: Account, image: CustomResource, *, waits: bool
) -> None:
    make = account.waiting if waits else account.properties
    unavailable = {"code": "Unavailable", "message": "Oh", "status": 503}
    account.fault("ec2", "CreateTags", error=unavailable, times=20)

    response = image.create(make(Tags={"stage": "test"}))
    account.advance(IMPORT)

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert tags_of(account.ami_of(response["PhysicalResourceId"]))["stage"] == "test"


def test_an_ami_that_may_not_be_tagged_does_not_fail_the_image(
    account: Account, image: CustomResource
) -> None:
    denied = {"code": "UnauthorizedOperation", "message": "no", "status": 403}
    account.fault("ec2", "CreateTags", error=denied, times=10**6)

    response = image.create(account.waiting(Tags={"stage": "test"}))

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert response["Data"][ImageAttribute.IMAGE_ID]


@pytest.mark.parametrize("operation", ["GetImage", "DescribeImportImageTasks", "CreateTags"])
def test_the_follow_up_polls_on_while_calls_are_denied_for_hours(
    aws: Aws, account: Account, image: CustomResource, log: Log, operation: str
) -> None:
    image.create(account.properties(Tags={"stage": "test"}))
    account.advance(100)
    for denied in (operation, "ListImageBuildVersions"):
        aws.deny_for(2 * 3600, denied)

    account.advance(4 * 3600)

    (line,) = metrics(log)
    assert (line["outcome"], line["Failed"]) == ("available", 0)
    # The outcome does not wait for the tags.
    assert (line["Duration"] < IMPORT) is (operation != "GetImage")
    assert tags_of(account.ami_of(image.physical_id or ""))["stage"] == "test"
    assert len([line for line in log() if "AccessDenied" in line["message"]]) == 1


def test_an_import_whose_polls_stay_denied_has_an_outcome_after_12_hours(
    aws: Aws, account: Account, image: CustomResource, log: Log
) -> None:
    image.create(account.properties())
    account.advance(100)
    for denied in ("GetImage", "ListImageBuildVersions"):
        aws.deny_for(100 * 3600, denied)

    account.advance(MAX_TIMEOUT + 600)

    (line,) = metrics(log)
    assert (line["outcome"], line["Failed"]) == ("timeout", 1)
    (follow_up,) = aws.step_functions.follow_ups()
    assert follow_up.status == "SUCCEEDED"
    assert follow_up.steps <= 520


def test_the_follow_up_ends_when_its_image_is_deleted(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    image.create(account.properties())

    assert image.delete()["Status"] == "SUCCESS"
    account.advance(600)

    assert aws.step_functions.running() == []
    assert account.images_of(image) == []


@pytest.mark.parametrize("seconds", [0, 30, 300])
def test_an_image_that_is_deleted_while_it_is_imported_has_no_outcome(
    account: Account, image: CustomResource, log: Log, seconds: int
) -> None:
    image.create(account.properties())
    account.advance(seconds)

    image.delete()
    account.advance(2 * IMPORT)

    assert [line for line in log() if LogField.OUTCOME in line] == []


def test_a_replacement_that_is_rolled_back_while_it_is_imported_has_no_outcome(
    account: Account, image: CustomResource, log: Log
) -> None:
    properties = account.properties()
    image.create(properties)
    account.advance(2 * IMPORT)
    new = {**account.properties(Name=properties["Name"]), "SemanticVersion": "1.1.0"}
    created = image.update(new)["PhysicalResourceId"]
    account.advance(100)

    back = image.send({**image.update_event(properties), **ROLLS_BACK})
    image.physical_id = back["PhysicalResourceId"]
    image.delete(created, new)
    account.advance(2 * IMPORT)

    assert [line["Failed"] for line in metrics(log)] == [0]


def test_an_image_that_somebody_deletes_while_nobody_waits_is_no_failure_in_the_metrics(
    account: Account, image: CustomResource, log: Log
) -> None:
    task_id = account.import_task()
    arn = image.create(account.properties(VmImportTaskId=task_id))["PhysicalResourceId"]
    account.advance(2)
    account.aws.delete(arn)

    account.advance(2 * IMPORT)

    (line,) = [line for line in log() if LogField.OUTCOME in line]
    assert (line["outcome"], line["level"]) == ("deleted", "INFO")
    assert line["message"] == "the image is gone, so its import is not followed any more"
    assert metrics(log) == []


@pytest.mark.parametrize("waits", [False, True], ids=["no wait", "then waits"])
@pytest.mark.parametrize("ends", ["available", "failed"])
def test_an_import_whose_tags_change_twice_meanwhile_has_one_outcome(
    account: Account, image: CustomResource, log: Log, ends: str, *, waits: bool
) -> None:
    task_id = account.import_task()
    if ends == "failed":
        account.fail_import(CLIENT_ERROR, task_id=task_id, at_progress=58)
    properties = account.properties(VmImportTaskId=task_id)
    image.create(properties)
    for stage in ("test", "live"):
        account.advance(200)
        image.update({**properties, ImageProperty.TAGS: {"stage": stage}})
    if waits:
        image.update({**image.properties, ImageProperty.TIMEOUT_SECONDS: "3600"})

    account.advance(2 * IMPORT)

    (line,) = metrics(log)
    assert line["outcome"] == ends
    assert line["Duration"] > 400


def test_an_update_that_is_rolled_back_during_an_import_leaves_one_outcome(
    account: Account, image: CustomResource, log: Log
) -> None:
    properties = account.properties()
    image.create(properties)
    account.advance(300)
    image.update({**properties, ImageProperty.TAGS: {"stage": "live"}})
    image.send({**image.update_event(properties), **ROLLS_BACK})

    account.advance(2 * IMPORT)

    assert [line["outcome"] for line in metrics(log)] == ["available"]


def test_an_import_that_ends_before_the_first_poll_has_an_outcome(
    account: Account, image: CustomResource, log: Log
) -> None:
    account.knobs(import_seconds=1, image_watch_seconds=1)
    task_id = account.import_task()
    account.advance(60)

    image.create(account.waiting(VmImportTaskId=task_id))

    assert [line["outcome"] for line in metrics(log)] == ["available"]


def test_an_import_has_one_outcome_although_step_functions_fails_for_a_moment(
    account: Account, image: CustomResource, log: Log
) -> None:
    properties = account.properties()
    image.create(properties)
    account.advance(200)
    unavailable = {"code": "ServiceUnavailable", "message": "no", "status": 503}
    account.fault("stepfunctions", "StopExecution", times=12, error=unavailable)

    image.update({**properties, ImageProperty.TAGS: {"stage": "live"}})
    account.advance(2 * IMPORT)

    assert [line["outcome"] for line in metrics(log)] == ["available"]


def test_deleting_the_old_image_after_an_update_does_not_stop_the_follow_up_of_the_new_one(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    first = account.properties()
    old = image.create(first)["PhysicalResourceId"]
    new = image.update(account.properties(Tags={"stage": "live"}))["PhysicalResourceId"]
    aws.sleep(30)
    image.delete(old, first)

    account.advance(IMPORT)

    assert tags_of(account.ami_of(new))["stage"] == "live"


def test_a_change_of_tags_reaches_the_ami_also_without_waiting(
    account: Account, image: CustomResource
) -> None:
    properties = account.properties(Tags={"stage": "test"})
    arn = image.create(properties)["PhysicalResourceId"]
    account.advance(IMPORT)

    image.update({**properties, ImageProperty.TAGS: {"stage": "live"}})
    account.advance(60)

    assert tags_of(account.ami_of(arn))["stage"] == "live"


# --- the log ---


def test_the_log_has_a_line_for_each_new_progress_in_words(
    aws: Aws, account: Account, image: CustomResource, log: Log
) -> None:
    response = image.create(account.waiting())

    lines = progress(log)
    (execution,) = aws.step_functions.executions
    assert lines[0] == {
        "message": "EC2's import is at 2 %, pending; the image is PENDING",
        "Stack": "images",
        "Resource": image.logical_id,
        "state": "PENDING",
        "progress": 2,
        "level": "INFO",
        "RequestType": "Create",
        "RequestId": response["RequestId"],
    }
    assert next(iter(lines[0])) == "message"
    messages = [line["message"] for line in lines]
    assert len(messages) == len(set(messages)) < execution.steps
    assert [line["progress"] for line in lines if "progress" in line] == sorted(
        line["progress"] for line in lines if "progress" in line
    )


def test_an_import_that_makes_no_progress_for_an_hour_has_a_line_for_each_message(
    aws: Aws, account: Account, image: CustomResource, log: Log
) -> None:
    properties = account.waiting()
    account.fail_import(None, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID], at_progress=2)

    image.create(properties)

    (execution,) = aws.step_functions.executions
    assert execution.steps > 30
    assert [line["message"] for line in progress(log)] == [
        "EC2's import is at 2 %, pending; the image is PENDING",
        "EC2's import is at 2 %, validating; the image is PENDING",
    ]
    assert len(log()) < 12


def test_a_step_that_is_repeated_for_the_same_cause_has_one_line(
    aws: Aws, account: Account, image: CustomResource, log: Log
) -> None:
    denied = {"code": "AccessDeniedException", "message": "No.", "status": 403}
    account.fault("imagebuilder", "ImportVmImage", times=10**6, error=denied)

    image.create(account.waiting())

    (execution,) = aws.step_functions.executions
    lines = [line["message"] for line in log() if "repeated" in line["message"]]
    assert execution.steps > 5
    assert lines == [
        "repeated, because it may succeed later: ImportVmImage failed: AccessDeniedException: No."
    ]


def test_denials_that_differ_only_in_their_encoded_message_have_one_line(
    aws: Aws, account: Account, image: CustomResource, log: Log
) -> None:
    for number in range(100):
        message = f"You are not authorized. Encoded authorization failure message: {number}"
        denied = {"code": "UnauthorizedOperation", "message": message, "status": 403}
        account.fault("ec2", "DescribeImportImageTasks", error=denied)

    image.create(account.waiting())

    (execution,) = aws.step_functions.executions
    assert execution.steps > 5
    (line,) = [line["message"] for line in log() if "repeated" in line["message"]]
    assert line.endswith("You are not authorized. Encoded authorization failure message: 0")


def test_the_metrics_come_once_when_the_image_is_available(
    account: Account, image: CustomResource, log: Log
) -> None:
    properties = account.waiting()

    response = image.create(properties)

    (line,) = metrics(log)
    duration = line.pop("Duration")
    assert 1200 < duration < 1300
    assert line == {
        "message": f"the image is AVAILABLE: {response['Data'][ImageAttribute.IMAGE_ID]}",
        "Stack": "images",
        "Resource": image.logical_id,
        "state": "AVAILABLE",
        "outcome": "available",
        "Failed": 0,
        "image": response["PhysicalResourceId"],
        "task": properties[ImageProperty.VM_IMPORT_TASK_ID],
        "level": "INFO",
        "RequestType": "Create",
        "RequestId": response["RequestId"],
        "_aws": {
            "Timestamp": line["_aws"]["Timestamp"],
            "CloudWatchMetrics": [
                {
                    "Namespace": "CdkVmImport",
                    "Dimensions": [["Stack", "Resource"]],
                    "Metrics": [
                        {"Name": "Duration", "Unit": "Seconds"},
                        {"Name": "Failed", "Unit": "Count"},
                    ],
                }
            ],
        },
    }


def test_the_timestamp_of_the_metrics_is_in_milliseconds(
    aws: Aws, account: Account, image: CustomResource, log: Log
) -> None:
    image.create(account.waiting())

    assert abs(metrics(log)[0]["_aws"]["Timestamp"] / 1000 - aws.now()) < 60


def test_an_import_that_fails_has_its_reason_and_a_failure_in_the_metrics(
    account: Account, image: CustomResource, log: Log
) -> None:
    properties = account.waiting()
    account.fail_import(CLIENT_ERROR, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID])

    image.create(properties)

    (line,) = metrics(log)
    assert line["message"] == f"VM import failed: {CLIENT_ERROR}".rstrip(".")
    assert (line["outcome"], line["Failed"], line["level"]) == ("failed", 1, "ERROR")
    assert line["Duration"] > 0


def test_an_import_that_takes_too_long_is_a_failure_in_the_metrics(
    account: Account, image: CustomResource, log: Log
) -> None:
    account.knobs(import_seconds=5000.0)

    image.create(account.waiting(timeout=600))

    (line,) = metrics(log)
    assert line["message"].startswith("the image is not AVAILABLE after 10 minutes: EC2's import ")
    assert (line["outcome"], line["Failed"], line["level"]) == ("timeout", 1, "ERROR")
    assert 600 <= line["Duration"] < 700
    assert line["progress"] > 0


def test_an_image_that_is_available_already_has_no_metrics(
    account: Account, image: CustomResource, log: Log
) -> None:
    properties = account.waiting()
    image.create(properties)
    account.advance(24 * 3600)

    image.update({**properties, ImageProperty.TAGS: {"stage": "live"}})

    assert len(metrics(log)) == 1


def test_the_failure_of_an_event_is_in_the_log_in_the_words_of_the_stack_event(
    account: Account, image: CustomResource, log: Log
) -> None:
    properties = account.waiting()
    account.fail_import(CLIENT_ERROR, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID])

    response = image.create(properties)

    line = log()[-1]
    log_group = f", log group {LOG_GROUP})"
    assert line["message"] == response["Reason"].removesuffix(log_group) + ")"
    assert (line["level"], line["response"]) == ("ERROR", "FAILED")
    assert line["physical_id"] == response["PhysicalResourceId"]


def test_every_line_of_the_log_is_json_with_a_message_in_words(
    account: Account, image: CustomResource, log: Log
) -> None:
    image.create(account.waiting(Tags={"stage": "test"}))
    image.update(account.waiting())
    image.delete()

    lines = log()
    assert len(lines) > 10
    for line in lines:
        assert next(iter(line)) == "message"
        assert isinstance(line["message"], str)
        assert not line["message"].startswith("{")
        assert (line["Stack"], line["Resource"]) == ("images", image.logical_id)
        assert line.keys() >= {"level", "RequestType", "RequestId"}


def test_a_poll_of_a_follow_up_is_logged_under_its_own_resource(
    account: Account, image: CustomResource, other_image: CustomResource, log: Log
) -> None:
    other_image.logical_id = "OtherF00D"
    properties = account.properties()
    account.fail_import(CLIENT_ERROR, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID])

    image.create(properties)
    other_image.create(account.waiting())

    (line,) = [line for line in log() if "this is only logged" in line["message"]]
    assert line["Resource"] == image.logical_id


@pytest.mark.parametrize(
    "end",
    [
        lambda image: image.update({**image.properties, ImageProperty.TAGS: {"a": "1"}}),
        lambda image: image.delete(),
    ],
    ids=["Update", "Delete"],
)
def test_a_later_event_stops_the_wait_of_earlier_ones_of_its_resource_only(
    aws: Aws,
    account: Account,
    image: CustomResource,
    other_image: CustomResource,
    end: Callable[[CustomResource], object],
) -> None:
    first = image.start(image.create_event(account.waiting()))
    others = other_image.start(other_image.create_event(account.waiting()))
    aws.step(first)
    aws.step(others)
    image.physical_id = first.image
    aws.sleep(10)

    end(image)

    assert first.status == "ABORTED"
    assert others.status != "ABORTED"
    assert [r["RequestId"] for r in image.responses()] != [first.event["RequestId"]]
