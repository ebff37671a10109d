"""The wait for an image, through the handler's entry, on the AWS on this machine.

The tests take the part of Step Functions: they call the handler with what it returned, and move
the clock by the pause that it asked for.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import (
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)

from errors import AwsError
from index import handler
from progress import is_transient
from tests.handler.cloudformation import SIGNATURE, Context, CustomResource
from waiting import LONGEST_ANSWER, LONGEST_SIGNAL, import_limit, pause

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.handler.conftest import Aws

_names = itertools.count()
AMI_LENGTH = len("ami-0123456789abcdef0")
CLIENT_ERROR = "ClientError: Unknown OS / Missing OS files."
# What Step Functions records of a poll, and how much an execution may record.
EVENTS_OF_A_POLL = 9
LONGEST_HISTORY = 25_000


class Waiter:
    """A state machine, as far as it starts executions; their steps are taken here."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self.client = aws.local.session().client("stepfunctions")
        state = {"Type": "Wait", "Seconds": 1_000_000, "End": True}
        definition = {"StartAt": "Wait", "States": {"Wait": state}}
        self.arn = self.client.create_state_machine(
            name=f"waiter-{next(_names)}",
            definition=json.dumps(definition),
            roleArn="arn:aws:iam::123456789012:role/waiter",
        )["stateMachineArn"]

    def executions(self, status: str = "RUNNING") -> list[str]:
        """The RequestIds of its executions."""
        listed = self.client.list_executions(stateMachineArn=self.arn, statusFilter=status)
        return [execution["name"].split("-", 1)[1] for execution in listed["executions"]]

    def send(self, event: dict[str, Any]) -> dict[str, Any]:
        """Deliver an event as CloudFormation does; return the input of its execution."""
        assert handler(event, Context()) is None
        listed = self.client.list_executions(stateMachineArn=self.arn)["executions"]
        (execution,) = (e for e in listed if e["name"].endswith(event["RequestId"]))
        described = self.client.describe_execution(executionArn=execution["executionArn"])
        return dict(json.loads(described["input"]))

    def step(self, state: dict[str, Any]) -> dict[str, Any]:
        """Take one step, and the pause after it."""
        # as Step Functions does: what comes back is JSON
        answer = json.loads(json.dumps(handler(state, Context())))
        if seconds := answer["Waiting"]["Seconds"]:
            self._aws.local.advance(seconds)
        return dict(answer)

    def run(self, state: dict[str, Any]) -> int:
        """Take all steps; return their number."""
        for number in itertools.count(1):
            state = self.step(state)
            if not state["Waiting"]["Seconds"]:
                return number
        raise AssertionError


@pytest.fixture
def waiter(aws: Aws) -> Waiter:
    return Waiter(aws)


def waiting(aws: Aws, waiter: Waiter, timeout: int = 3600, **changes: Any) -> dict[str, Any]:
    return aws.properties(**changes) | {"Waiter": waiter.arn, "TimeoutSeconds": str(timeout)}


def signalled(aws: Aws, waiter: Waiter, resource: CustomResource, **changes: Any) -> dict[str, Any]:
    """Properties of an image that is waited for by a wait condition."""
    return waiting(aws, waiter, 43200, **changes) | {"WaitHandle": resource.urls.url}


def not_waiting(aws: Aws, waiter: Waiter, **changes: Any) -> dict[str, Any]:
    """Properties of an image that the deployment does not wait for."""
    return aws.properties(**changes) | {"Waiter": waiter.arn}


def ami_tags(aws: Aws, arn: str) -> dict[str, str]:
    """The tags of the AMI of an image."""
    ami = aws.image(arn)["outputResources"]["amis"][0]["image"]
    (found,) = aws.local.session().client("ec2").describe_images(ImageIds=[ami])["Images"]
    return {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}


def create(
    waiter: Waiter, resource: CustomResource, properties: dict[str, Any]
) -> tuple[dict[str, Any], int]:
    """Create, and wait to the end; the answer and the number of steps."""
    resource.properties = properties
    steps = waiter.run(waiter.send(resource.event("Create")))
    answer = resource.urls.answers[-1]
    resource.physical_id = answer.get("PhysicalResourceId")
    return answer, steps


def update(waiter: Waiter, resource: CustomResource, properties: dict[str, Any]) -> dict[str, Any]:
    """The input of the execution of an update."""
    old, resource.properties = resource.properties, properties
    event = resource.event(
        "Update", PhysicalResourceId=resource.physical_id, OldResourceProperties=dict(old)
    )
    return waiter.send(event)


@pytest.mark.parametrize(
    ("elapsed", "remaining", "seconds"),
    [
        (0, 3600, 5),
        (100, 3500, 5),
        (400, 3200, 20),
        (1200, 2400, 60),
        (40_000, 3200, 60),
        (3590, 7.5, 8),
        (3480, 0, 0),
        (3500, -20, 0),
    ],
)
def test_the_pause_is_a_twentieth_of_the_wait_from_5_to_60_seconds(
    elapsed: float, remaining: float, seconds: int
) -> None:
    assert pause(elapsed, remaining) == seconds


def test_the_longest_wait_fits_into_the_history_of_one_execution() -> None:
    elapsed, polls = 0, 0
    limit = import_limit(LONGEST_SIGNAL, after_answer=True)
    while seconds := pause(elapsed, limit - elapsed):
        elapsed, polls = elapsed + seconds, polls + 1

    assert elapsed == limit
    assert polls * EVENTS_OF_A_POLL < LONGEST_HISTORY / 3


@pytest.mark.parametrize(
    ("timeout", "limit"), [(60, 60), (3480, 3480), (3600, LONGEST_ANSWER - 120)]
)
def test_the_wait_ends_before_cloudformations_own(timeout: int, limit: int) -> None:
    assert import_limit(timeout, after_answer=False) == limit


def test_the_answer_comes_when_the_image_is_available_and_names_the_ami(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    properties = waiting(aws, waiter)

    answer, steps = create(waiter, resource, properties)

    assert answer["Status"] == "SUCCESS", answer["Reason"]
    image = aws.image(answer["PhysicalResourceId"])
    assert image["state"]["status"] == "AVAILABLE"
    assert answer["Data"]["ImageId"] == image["outputResources"]["amis"][0]["image"]
    assert answer["Data"]["ImageArn"] == answer["PhysicalResourceId"]
    assert steps > 10
    assert len(resource.urls.answers) == 1


def test_nothing_is_answered_before(aws: Aws, waiter: Waiter, resource: CustomResource) -> None:
    resource.properties = waiting(aws, waiter)

    state = waiter.step(waiter.send(resource.event("Create")))

    assert state["Waiting"]["Seconds"] == 5
    assert resource.urls.answers == []


def test_an_import_that_is_done_is_answered_at_the_first_step(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    properties = waiting(aws, waiter)
    aws.local.advance(3600)
    image = resource.create(aws.properties(VmImportTaskId=properties["VmImportTaskId"]))
    aws.local.advance(60)
    assert image["Status"] == "SUCCESS"

    _, steps = create(
        waiter,
        resource,
        {
            **resource.properties,
            **{name: properties[name] for name in ("Waiter", "TimeoutSeconds")},
        },
    )

    assert steps == 1


def test_an_event_that_comes_three_times_is_handled_once(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    resource.properties = waiting(aws, waiter)
    event = resource.event("Create")

    state = waiter.send(dict(event))
    for _ in range(2):
        handler(dict(event), Context())
    waiter.run(state)
    handler(dict(event), Context())

    assert waiter.executions() == [event["RequestId"]]
    assert len(aws.imports(resource)) == 1
    assert len(resource.urls.answers) == 1


def test_a_late_duplicate_of_a_create_does_not_bring_back_a_deleted_image(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    resource.properties = waiting(aws, waiter)
    event = resource.event("Create")
    waiter.run(waiter.send(dict(event)))
    arn = resource.urls.answers[-1]["PhysicalResourceId"]
    waiter.run(waiter.send(resource.event("Delete", PhysicalResourceId=arn)))

    handler(dict(event), Context())

    assert aws.all_images(resource) == []


@pytest.mark.parametrize("request_type", ["Update", "Delete"])
def test_a_later_event_of_the_resource_ends_the_waits_of_earlier_ones_and_no_others(
    aws: Aws, waiter: Waiter, resource: CustomResource, another: CustomResource, request_type: str
) -> None:
    resource.properties = waiting(aws, waiter)
    another.properties = waiting(aws, waiter)
    first = resource.event("Create")
    others = another.event("Create")
    state = waiter.step(waiter.send(first))
    waiter.step(waiter.send(others))
    later = resource.event(
        request_type,
        PhysicalResourceId=state["Waiting"]["Image"],
        OldResourceProperties=dict(resource.properties),
    )

    waiter.step(waiter.send(later))

    assert waiter.executions("ABORTED") == [first["RequestId"]]
    assert set(waiter.executions()) == {others["RequestId"], later["RequestId"]}


def test_a_failed_import_fails_the_answer_with_ec2s_words_and_leaves_nothing(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    properties = waiting(aws, waiter)
    aws.local.fail_import(CLIENT_ERROR, task_id=properties["VmImportTaskId"], fail_at_progress=58)

    answer, steps = create(waiter, resource, properties)

    assert answer["Status"] == "FAILED"
    assert CLIENT_ERROR in answer["Reason"]
    assert properties["VmImportTaskId"] in answer["Reason"]
    assert steps > 1
    assert aws.all_images(resource) == []


def test_an_import_task_that_fails_ends_the_wait_while_image_builder_has_not_noticed(
    aws: Aws, waiter: Waiter, resource: CustomResource, knobs: Callable[..., None]
) -> None:
    knobs(image_watch_seconds=100_000.0)
    properties = waiting(aws, waiter)
    aws.local.fail_import(CLIENT_ERROR, task_id=properties["VmImportTaskId"], fail_at_progress=34)

    answer, _ = create(waiter, resource, properties)

    assert answer["Status"] == "FAILED"
    assert "is PENDING; EC2's import task" in answer["Reason"]
    assert CLIENT_ERROR in answer["Reason"]
    assert aws.all_images(resource) == []


def test_a_cancelled_image_ends_the_wait(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    resource.properties = waiting(aws, waiter)
    state = waiter.step(waiter.send(resource.event("Create")))
    aws.cancel(state["Waiting"]["Image"])

    waiter.run(state)

    (answer,) = resource.urls.answers
    assert answer["Status"] == "FAILED"
    assert "is CANCELLED" in answer["Reason"]
    assert answer["PhysicalResourceId"] == state["Waiting"]["Image"]


def test_an_image_that_vanishes_ends_the_wait(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    resource.properties = waiting(aws, waiter)
    state = waiter.step(waiter.send(resource.event("Create")))
    aws.cancel(state["Waiting"]["Image"])
    aws.delete(state["Waiting"]["Image"])

    waiter.run(state)

    (answer,) = resource.urls.answers
    assert answer["Status"] == "FAILED"
    assert "is gone" in answer["Reason"]
    assert len(aws.imports(resource)) == 1


def test_a_time_out_says_how_far_the_import_came_and_how_to_wait_longer(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    properties = waiting(aws, waiter, timeout=300)
    aws.local.fail_import(None, task_id=properties["VmImportTaskId"], fail_at_progress=34)

    answer, _ = create(waiter, resource, properties)

    assert answer["Status"] == "FAILED"
    assert "was not AVAILABLE after 5 minutes: the image is PENDING" in answer["Reason"]
    assert "EC2's import is at 28 %, converting" in answer["Reason"]
    assert "longer timeout, up to 12 hours" in answer["Reason"]
    assert aws.all_images(resource) == []


def test_after_a_time_out_the_next_create_takes_up_the_same_import(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    properties = waiting(aws, waiter, timeout=60)
    create(waiter, resource, properties)

    answer, _ = create(waiter, resource, {**properties, "TimeoutSeconds": "3600"})

    assert answer["Status"] == "SUCCESS", answer["Reason"]
    assert answer["Data"]["VmImportTaskId"] == properties["VmImportTaskId"]


@pytest.mark.parametrize(
    ("service", "operation"),
    [("imagebuilder", "GetImage"), ("ec2", "DescribeImportImageTasks")],
)
@pytest.mark.parametrize(
    "fault",
    [{"error": {"code": "ServiceException", "message": "Oh", "status": 500}}, {"throttle": True}],
    ids=["500", "throttle"],
)
def test_what_passes_does_not_end_the_wait(
    aws: Aws,
    waiter: Waiter,
    resource: CustomResource,
    monkeypatch: pytest.MonkeyPatch,
    service: str,
    operation: str,
    fault: dict[str, Any],
) -> None:
    monkeypatch.setattr("imported_vm_image._FOR_A_STEP", 0.5)
    resource.properties = waiting(aws, waiter)
    state = waiter.step(waiter.send(resource.event("Create")))
    aws.local.fault(service, operation, times=8, **fault)

    waiter.run(state)

    (answer,) = resource.urls.answers
    assert answer["Status"] == "SUCCESS", answer["Reason"]


@pytest.mark.parametrize("error", [ReadTimeoutError, ConnectTimeoutError, EndpointConnectionError])
def test_no_answer_at_all_passes_too(error: type[HTTPClientError]) -> None:
    failure = AwsError("GetImage", error(endpoint_url="https://imagebuilder", error="gone"))

    assert is_transient(failure)
    assert f"GetImage failed: {error.__name__}: " in str(failure)


def test_a_step_that_is_taken_again_after_a_crash_answers_once_more_the_same(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    resource.properties = waiting(aws, waiter)
    first = waiter.send(resource.event("Create"))
    waiter.step(first)

    waiter.run(first)

    (answer,) = resource.urls.answers
    assert aws.all_images(resource) == [answer["PhysicalResourceId"]]
    assert len(aws.imports(resource)) == 1


def test_over_an_hour_the_resource_answers_at_once_and_the_signal_comes_with_the_ami(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    resource.properties = signalled(aws, waiter, resource)
    state = waiter.send(resource.event("Create"))

    state = waiter.step(state)
    (answer,) = resource.urls.answers
    waiter.run(state)

    signal = resource.urls.answers[1]
    ami = aws.image(answer["PhysicalResourceId"])["outputResources"]["amis"][0]["image"]
    assert answer["Status"] == "SUCCESS"
    assert signal == {
        "Status": "SUCCESS",
        "Reason": "the image is AVAILABLE",
        "UniqueId": "available",
        "Data": f"||{ami}|",
    }
    assert resource.urls.content_types == ["", ""]


def test_over_an_hour_a_failure_is_signalled_with_its_reason(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    resource.properties = signalled(aws, waiter, resource)
    aws.local.fail_import(CLIENT_ERROR, task_id=resource.properties["VmImportTaskId"])

    waiter.run(waiter.send(resource.event("Create")))

    signal = resource.urls.answers[1]
    assert signal["Status"] == "FAILURE"
    assert CLIENT_ERROR in signal["Reason"]


def test_a_signal_that_nobody_takes_any_more_ends_the_wait(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    resource.properties = signalled(aws, waiter, resource)
    state = waiter.step(waiter.send(resource.event("Create")))
    resource.urls.replies = [403]
    aws.cancel(state["Waiting"]["Image"])

    waiter.run(state)

    assert len(resource.urls.answers) == 1


def test_a_change_of_tags_alone_signals_nothing(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    properties = signalled(aws, waiter, resource)
    waiter.run(waiter.send(resource.event("Create", ResourceProperties=properties)))
    resource.properties, resource.physical_id = (
        properties,
        resource.urls.answers[0]["PhysicalResourceId"],
    )

    waiter.run(update(waiter, resource, {**properties, "Tags": {"stage": "live"}}))

    assert ami_tags(aws, resource.physical_id)["stage"] == "live"
    assert [answer["Status"] for answer in resource.urls.answers] == ["SUCCESS"] * 3
    assert "UniqueId" not in resource.urls.answers[2]


def test_without_waiting_the_answer_comes_at_once_and_the_ami_is_tagged_when_it_is_there(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    properties = not_waiting(aws, waiter, Tags={"stage": "test"})

    state = waiter.step(waiter.send(resource.event("Create", ResourceProperties=properties)))
    (answer,) = resource.urls.answers
    arn = answer["PhysicalResourceId"]
    status_at_the_answer = aws.image(arn)["state"]["status"]
    waiter.run(state)

    assert answer["Status"] == "SUCCESS"
    assert status_at_the_answer == "PENDING"
    assert len(resource.urls.answers) == 1
    assert ami_tags(aws, arn) == {
        "stage": "test",
        "cdk-vm-import:stack": resource.stack_id,
        "cdk-vm-import:resource": resource.logical_id,
    }


def test_without_waiting_an_import_that_fails_is_told_to_nobody_but_the_log(
    aws: Aws, waiter: Waiter, resource: CustomResource, capsys: pytest.CaptureFixture[str]
) -> None:
    properties = not_waiting(aws, waiter)
    aws.local.fail_import(CLIENT_ERROR, task_id=properties["VmImportTaskId"], fail_at_progress=58)

    waiter.run(waiter.send(resource.event("Create", ResourceProperties=properties)))

    (answer,) = resource.urls.answers
    assert answer["Status"] == "SUCCESS"
    assert aws.image(answer["PhysicalResourceId"])["state"]["status"] == "FAILED"
    last_look = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last_look["outcome"] == "failed"
    assert last_look["Available"] == 0


@pytest.mark.parametrize("wait", [waiting, not_waiting])
def test_what_kept_the_ami_from_being_tagged_passes_too(
    aws: Aws,
    waiter: Waiter,
    resource: CustomResource,
    monkeypatch: pytest.MonkeyPatch,
    wait: Callable[..., dict[str, Any]],
) -> None:
    monkeypatch.setattr("imported_vm_image._FOR_A_STEP", 0.5)
    properties = wait(aws, waiter, Tags={"stage": "test"})
    state = waiter.step(waiter.send(resource.event("Create", ResourceProperties=properties)))
    unavailable = {"code": "Unavailable", "message": "Oh", "status": 503}
    aws.local.fault("ec2", "CreateTags", error=unavailable, times=8)

    waiter.run(state)

    (answer,) = resource.urls.answers
    assert ami_tags(aws, answer["PhysicalResourceId"])["stage"] == "test"


def test_without_waiting_a_later_event_ends_what_goes_on_after_the_answer(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    resource.properties = not_waiting(aws, waiter)
    first = resource.event("Create")
    state = waiter.step(waiter.send(first))
    later = resource.event("Delete", PhysicalResourceId=state["Waiting"]["Image"])

    waiter.run(waiter.send(later))

    assert waiter.executions("ABORTED") == [first["RequestId"]]
    assert aws.all_images(resource) == []


def test_an_identity_that_changes_under_the_same_handle_is_refused_and_can_be_rolled_back(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    first = signalled(aws, waiter, resource)
    waiter.run(waiter.send(resource.event("Create", ResourceProperties=first)))
    arn = resource.urls.answers[0]["PhysicalResourceId"]
    resource.properties, resource.physical_id = first, arn

    waiter.run(update(waiter, resource, {**first, "VmImportTaskId": aws.import_task()}))
    refused = resource.urls.answers[-1]
    waiter.run(update(waiter, resource, first))
    rolled_back = resource.urls.answers[-1]

    assert refused["Status"] == "FAILED"
    assert refused["PhysicalResourceId"] == arn
    assert "a wait condition cannot be used twice" in refused["Reason"]
    assert rolled_back["Status"] == "SUCCESS", rolled_back["Reason"]
    assert aws.all_images(resource) == [arn]


@pytest.mark.parametrize("changed", ["TimeoutSeconds", "WaitHandle", "Waiter"])
def test_how_a_deployment_waits_is_no_part_of_the_identity(
    aws: Aws, waiter: Waiter, resource: CustomResource, changed: str
) -> None:
    properties = signalled(aws, waiter, resource)
    waiter.run(waiter.send(resource.event("Create", ResourceProperties=properties)))
    arn = resource.urls.answers[0]["PhysicalResourceId"]
    resource.properties, resource.physical_id = properties, arn
    changes = {
        "TimeoutSeconds": "7200",
        "WaitHandle": f"{resource.urls.url}-another",
        "Waiter": Waiter(aws).arn,
    }
    new = {**properties, changed: changes[changed]}
    other = waiter if changed != "Waiter" else _waiter_of(waiter, changes["Waiter"])

    other.run(update(other, resource, new))

    assert len(aws.imports(resource)) == 1
    assert resource.urls.answers[2]["PhysicalResourceId"] == arn


def _waiter_of(waiter: Waiter, arn: str) -> Waiter:
    waiter.arn = arn
    return waiter


def test_a_deletion_waits_for_the_import_to_be_cancelled_without_keeping_the_function_busy(
    aws: Aws, waiter: Waiter, resource: CustomResource, knobs: Callable[..., None]
) -> None:
    # two real minutes, and the function's own time ends after 15
    knobs(cancel_seconds=7200.0)
    resource.properties = waiting(aws, waiter)
    state = waiter.step(waiter.send(resource.event("Create")))
    arn = state["Waiting"]["Image"]

    state = waiter.step(waiter.send(resource.event("Delete", PhysicalResourceId=arn)))
    assert state["Waiting"]["Seconds"] == 5
    assert resource.urls.answers == []
    aws.local.advance(7200)
    waiter.run(state)

    (answer,) = resource.urls.answers
    assert answer["Status"] == "SUCCESS", answer["Reason"]
    assert aws.all_images(resource) == []


def test_a_deletion_that_never_ends_fails_before_cloudformation_gives_up(
    aws: Aws,
    waiter: Waiter,
    resource: CustomResource,
    knobs: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("imported_vm_image._FOR_A_STEP", 0.5)
    knobs(cancel_seconds=1e6)
    resource.properties = waiting(aws, waiter, timeout=60)
    state = waiter.step(waiter.send(resource.event("Create")))

    waiter.run(waiter.send(resource.event("Delete", PhysicalResourceId=state["Waiting"]["Image"])))

    (answer,) = resource.urls.answers
    assert answer["Status"] == "FAILED"
    assert "run the stack operation again" in answer["Reason"]


def test_a_deletion_after_the_state_machine_is_done_by_the_function_alone(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    answer, _ = create(waiter, resource, waiting(aws, waiter))
    waiter.client.delete_state_machine(stateMachineArn=waiter.arn)

    deleted = resource.delete(answer["PhysicalResourceId"])

    assert deleted["Status"] == "SUCCESS", deleted["Reason"]
    assert aws.all_images(resource) == []


def test_a_create_that_no_state_machine_takes_fails(
    aws: Aws, waiter: Waiter, resource: CustomResource
) -> None:
    waiter.client.delete_state_machine(stateMachineArn=waiter.arn)

    answer = resource.create(waiting(aws, waiter))

    assert answer["Status"] == "FAILED"
    assert "StartExecution failed: StateMachineDoesNotExist" in answer["Reason"]
    assert aws.imports(resource) == []


def test_each_look_is_a_line_of_json_with_metrics_for_cloudwatch(
    aws: Aws, waiter: Waiter, resource: CustomResource, capfd: pytest.CaptureFixture[str]
) -> None:
    properties = waiting(aws, waiter)

    answer, steps = create(waiter, resource, properties)

    printed = [line for line in capfd.readouterr().out.splitlines() if '"outcome"' in line]
    looks = [json.loads(line) for line in printed]
    first, last = looks[0], looks[-1]
    assert len(looks) == steps
    assert first == {
        "Stack": "images",
        "Resource": resource.logical_id,
        "image": answer["PhysicalResourceId"],
        "task": properties["VmImportTaskId"],
        "state": "PENDING",
        "status_message": first["status_message"],
        "problem": "",
        "elapsed": 0,
        "next_poll": 5,
        "outcome": "waiting",
        "Progress": first["Progress"],
        "_aws": {
            "Timestamp": first["_aws"]["Timestamp"],
            "CloudWatchMetrics": [
                {
                    "Namespace": "CdkVmImport",
                    "Dimensions": [["Stack", "Resource"]],
                    "Metrics": [{"Name": "Progress", "Unit": "Percent"}],
                }
            ],
        },
    }
    assert [look["elapsed"] for look in looks] == sorted(look["elapsed"] for look in looks)
    assert (last["outcome"], last["Available"], last["next_poll"]) == ("available", 1, 0)
    assert last["Duration"] == last["elapsed"] > 300


def test_no_signed_url_is_in_the_log(
    aws: Aws,
    waiter: Waiter,
    resource: CustomResource,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    resource.properties = signalled(aws, waiter, resource)
    resource.urls.replies = [200, 403]

    waiter.run(waiter.send(resource.event("Create")))

    printed = capfd.readouterr()
    assert SIGNATURE not in printed.out + printed.err + caplog.text
