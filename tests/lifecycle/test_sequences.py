"""Sequences of events that once failed, or nearly did, each with its name."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contract import TAG_PREFIX, ImageProperty, OwnTag
from tests.lifecycle.cloudformation_driver import Policy, Resource, UpdateBack
from tests.support.aws import SERVICE_TIMEOUT
from tests.support.properties import checked
from tests.support.step_functions import STATE_MACHINE

if TYPE_CHECKING:
    from tests.lifecycle.cloudformation_driver import Event, Response
    from tests.support.aws import Aws
    from tests.support.step_functions import Execution

DAY = 86400
INVENTED = "images-GoldenImageF00D-1ABCDEFGHIJKL"
FIXTURES = Path(__file__).parents[1] / "support" / "fixtures"


class Stack(Resource):
    """A resource whose events all get a response in time."""

    def __init__(self, aws: Aws, policy: Policy = Policy.DESTROY, **more: Any) -> None:
        super().__init__(self.deliver, self.overlap, UpdateBack.WITH_NEW_ID, policy, **more)
        self.aws = aws
        self.now = aws.clock.now
        self.properties = {
            ImageProperty.NAME: "rhel 9",
            ImageProperty.SEMANTIC_VERSION: "1.0.0",
            ImageProperty.PLATFORM: "Linux",
            ImageProperty.VM_IMPORT_TASK_ID: aws.import_task(),
            ImageProperty.RETAIN: "false" if policy is Policy.DESTROY else "true",
            ImageProperty.STATE_MACHINE_ARN: STATE_MACHINE,
        }
        self.response: Response = {}
        self.sent: list[Event] = []

    def waits(self) -> None:
        """Wait for the image from now on."""
        self.properties = self.change(TimeoutSeconds="600")

    def deliver(self, event: Event) -> Response | None:
        self.sent.append(event)
        self.aws.deliver(event)
        self.response = next(iter(self.aws.responses.get(event["ResponseURL"], [])), {})
        return self.response or None

    def overlap(self, running: Event, event: Event) -> Response | None:
        chance = random.Random(0)  # noqa: S311
        self.sent += [running, event]
        # The execution of the first has begun.
        self.aws.deliver_at_once(running, event, chance=chance, head_start=3)
        return self.aws.responses[event["ResponseURL"]][0]

    def change(self, **changes: Any) -> dict[str, Any]:
        return {**self.properties, **checked(ImageProperty, changes)}


@pytest.fixture
def stack(aws: Aws) -> Stack:
    stack = Stack(aws)
    assert stack.create(stack.properties)
    return stack


@pytest.fixture
def waiting(aws: Aws) -> Stack:
    stack = Stack(aws)
    stack.waits()
    return stack


@pytest.fixture
def retaining(aws: Aws) -> Stack:
    return Stack(aws, Policy.RETAIN_ON_UPDATE_OR_DELETE)


def images(aws: Aws) -> list[str]:
    return list(aws.images)


def placeholder_of(aws: Aws, arn: str) -> str:
    """The placeholder of the event that created an image."""
    token, _, created_by = aws.images[arn].tags[OwnTag.TOKEN].split("/")
    return f"{'/'.join(arn.split('/')[1:3])}/{token}/{created_by}"


@pytest.mark.parametrize("fault", ["killed before", "killed after"])
@pytest.mark.parametrize("call", range(8))
def test_a_create_whose_function_is_killed_at_any_call_creates_one_image(
    aws: Aws, call: int, fault: str
) -> None:
    stack = Stack(aws)
    aws.expect({call: fault})

    assert stack.create(stack.properties)

    assert images(aws) == [stack.physical_id]


@pytest.mark.parametrize("fault", ["killed before", "killed after"])
@pytest.mark.parametrize("call", range(12))
def test_a_replacement_whose_function_is_killed_at_any_call_leaves_only_the_new_image(
    aws: Aws, stack: Stack, call: int, fault: str
) -> None:
    aws.expect({call: fault})

    assert stack.update(stack.change(SemanticVersion="2.0.0"))

    assert images(aws) == [stack.physical_id]


@pytest.mark.parametrize("fault", ["killed before", "killed after"])
@pytest.mark.parametrize("call", range(8))
def test_a_delete_whose_function_is_killed_at_any_call_leaves_nothing(
    aws: Aws, stack: Stack, call: int, fault: str
) -> None:
    aws.expect({call: fault})

    stack.remove()

    assert images(aws) == []


def test_an_import_whose_answer_is_lost_is_found_by_its_token(aws: Aws) -> None:
    stack = Stack(aws)
    aws.expect(dict.fromkeys(range(2, 6), "answer lost"))

    assert stack.create(stack.properties)

    assert images(aws) == [stack.physical_id]


@pytest.mark.parametrize("lag", [0, 2])
def test_a_create_succeeds_when_get_image_is_denied_for_a_while(aws: Aws, lag: int) -> None:
    stack = Stack(aws)
    aws.local.change_knobs(read_lag_seconds=lag)
    aws.expect(denied={"GetImage"})

    assert stack.create(stack.properties)


def test_a_fault_of_aws_is_retried(aws: Aws) -> None:
    stack = Stack(aws)
    aws.expect({0: "outage"})

    assert stack.create(stack.properties)


def test_an_event_that_runs_out_of_time_is_responded_to_with_what_it_waited_for(
    aws: Aws, stack: Stack
) -> None:
    throttled = {"code": "TooManyRequestsException", "message": "Rate exceeded", "status": 429}
    aws.fault("imagebuilder", "GetImage", times=10**6, error=throttled)
    start = aws.now()

    stack.deliver(stack.event("Delete", stack.properties, PhysicalResourceId=stack.physical_id))

    assert stack.response["Status"] == "FAILED"
    assert "GetImage failed: TooManyRequestsException" in stack.response["Reason"]
    assert 3000 < aws.now() - start < SERVICE_TIMEOUT


def test_a_rollback_deletes_the_image_of_an_update_without_a_response(
    aws: Aws, stack: Stack
) -> None:
    first, newer = stack.physical_id, stack.change(SemanticVersion="2.0.0")
    aws.expect(response_faults=dict.fromkeys(range(300), "500"))
    assert stack.deliver(stack._update(str(first), newer, stack.properties)) is None
    assert len(images(aws)) == 2
    aws.expect()

    stack.deliver(stack._update(str(first), stack.properties, newer))

    assert stack.response["PhysicalResourceId"] == first
    assert images(aws) == [first]


def test_a_rollback_deletes_the_image_of_an_update_that_still_runs(aws: Aws, stack: Stack) -> None:
    first = stack.physical_id

    stack.update(stack.change(SemanticVersion="2.0.0"), in_flight=True)

    assert stack.physical_id == first
    assert images(aws) == [first]


def test_a_rollback_from_a_placeholder_deletes_the_image_that_the_placeholder_names(
    aws: Aws, stack: Stack
) -> None:
    first, newer = stack.physical_id, stack.change(SemanticVersion="2.0.0")
    stack.deliver(stack._update(str(first), newer, stack.properties))
    placeholder = placeholder_of(aws, stack.response["PhysicalResourceId"])

    stack.deliver(stack._update(placeholder, stack.properties, newer))

    assert images(aws) == [first]


def test_an_update_never_deletes_the_image_that_it_replaces(aws: Aws, stack: Stack) -> None:
    first = str(stack.physical_id)
    event = stack._update(first, stack.change(SemanticVersion="2.0.0"), stack.properties)

    stack.deliver(event)

    assert first in images(aws)


def test_a_failed_update_of_another_identity_responds_with_a_placeholder(
    aws: Aws, stack: Stack
) -> None:
    newer = stack.change(SemanticVersion="2.0.0")
    aws.expect(denied={"ImportVmImage"})

    stack.deliver(stack._update(str(stack.physical_id), newer, stack.properties))

    assert stack.response["Status"] == "FAILED"
    assert stack.response["PhysicalResourceId"].startswith("rhel-9/2.0.0/")


def test_a_failed_update_of_the_same_identity_responds_with_the_id_in_use(
    aws: Aws, stack: Stack
) -> None:
    # With its placeholder CloudFormation would delete the image that the rollback creates.
    first = str(stack.physical_id)
    aws.delete(first)
    aws.expect(denied={"ImportVmImage"})

    stack.deliver(stack._update(first, stack.change(Tags={"a": "1"}), stack.properties))

    assert stack.response["Status"] == "FAILED"
    assert stack.response["PhysicalResourceId"] == first


def test_a_failed_create_responds_with_a_placeholder(aws: Aws) -> None:
    stack = Stack(aws)
    aws.expect(denied={"ImportVmImage"})

    stack.deliver(stack.event("Create", stack.properties))

    assert stack.response["PhysicalResourceId"].startswith("rhel-9/1.0.0/")


def test_a_placeholder_is_enough_to_delete_the_image_that_it_names(aws: Aws, stack: Stack) -> None:
    placeholder = placeholder_of(aws, str(stack.physical_id))

    stack.deliver(stack.event("Delete", {}, PhysicalResourceId=placeholder))

    assert images(aws) == []


def test_a_placeholder_of_another_image_never_deletes_the_image_in_use(
    aws: Aws, stack: Stack
) -> None:
    # Whatever properties CloudFormation sends with it.
    first, newer = stack.physical_id, stack.change(SemanticVersion="2.0.0")
    stack.deliver(stack._update(str(first), newer, stack.properties))
    placeholder = placeholder_of(aws, stack.response["PhysicalResourceId"])

    for sent in (newer, stack.properties):
        stack.deliver(stack.event("Delete", sent, PhysicalResourceId=placeholder))

    assert images(aws) == [first]


def test_deleting_a_running_import_does_not_wait_for_its_end(aws: Aws, stack: Stack) -> None:
    start = aws.clock.now()

    stack.remove()

    assert aws.clock.now() - start < 60


def test_a_delete_that_aws_refuses_fails(aws: Aws, stack: Stack) -> None:
    aws.expect(denied={"DeleteImage"})

    stack.deliver(stack.event("Delete", stack.properties, PhysicalResourceId=stack.physical_id))

    assert stack.response["Status"] == "FAILED"
    assert "DeleteImage failed: AccessDeniedException" in stack.response["Reason"]


def test_the_ami_of_a_retained_image_is_retained(retaining: Stack, aws: Aws) -> None:
    properties = retaining.change(DeleteAmi="true")
    retaining.create(properties)
    retaining.remove()
    aws.sleep(2 * DAY)

    retaining.create(properties, others_fail=True)

    assert aws.images
    assert len(aws.local.amis) == 1


def test_a_create_that_is_cancelled_while_it_runs_leaves_nothing(aws: Aws) -> None:
    stack = Stack(aws)

    stack.create_and_cancel(stack.properties)

    assert images(aws) == []


@pytest.mark.parametrize("waits", [False, True])
def test_a_create_that_is_cancelled_while_it_finds_used_tokens_leaves_nothing(
    aws: Aws, *, waits: bool
) -> None:
    # Each used token takes some seconds.
    stack = Stack(aws)
    if waits:
        stack.waits()
    for _ in range(4):
        assert stack.create(stack.properties)
        stack.remove()

    stack.create_and_cancel(stack.properties)

    assert images(aws) == []


def test_a_rollback_during_its_update_retains_the_image_that_replaced_a_deleted_one(
    aws: Aws, stack: Stack
) -> None:
    aws.delete(str(stack.physical_id))

    stack.update(stack.change(Description="golden"), in_flight=True)

    assert stack.physical_id in images(aws)


def test_a_retained_image_is_found_again_instead_of_imported(retaining: Stack, aws: Aws) -> None:
    retaining.create(retaining.properties)
    first = retaining.physical_id
    retaining.remove()

    retaining.create(retaining.properties)

    assert retaining.physical_id == first
    assert images(aws) == [first]


@pytest.mark.parametrize("age", [60, 2 * DAY])
def test_a_rollback_retains_a_retained_image_that_the_create_found(
    retaining: Stack, aws: Aws, age: int
) -> None:
    retaining.create(retaining.properties)
    first = retaining.physical_id
    retaining.remove()
    aws.sleep(age)

    retaining.create(retaining.properties, others_fail=True)

    assert images(aws) == [first]
    assert f"{first} is retained" in retaining.response["Reason"]


def test_a_rollback_deletes_the_image_that_the_create_imported(retaining: Stack, aws: Aws) -> None:
    retaining.create(retaining.properties, others_fail=True)

    assert images(aws) == []


def test_a_rollback_retains_a_retained_image_that_the_update_returned_to(
    retaining: Stack, aws: Aws
) -> None:
    first = retaining.properties
    retaining.create(first)
    retaining.update(retaining.change(SemanticVersion="2.0.0"))
    aws.sleep(2 * DAY)

    retaining.update(first, others_fail=True)

    assert len(images(aws)) == 2


def test_a_rollback_retains_a_retained_image_of_an_update_without_a_response(
    retaining: Stack, aws: Aws
) -> None:
    first = retaining.properties
    retaining.create(first)
    retaining.update(retaining.change(SemanticVersion="2.0.0"))
    aws.sleep(2 * DAY)
    aws.expect(response_faults=dict.fromkeys(range(300), "500"))

    retaining.update(first)

    assert len(images(aws)) == 2


def test_a_rollback_restores_the_tags_of_an_image_that_is_not_listed_yet(
    aws: Aws, stack: Stack
) -> None:
    before, after = stack.change(Tags={"a": "2", "b": "1"}), stack.change(Tags={"a": "1"})
    stack.update(before)
    first = str(stack.physical_id)
    aws.delete(first)
    aws.sleep(10)
    aws.local.change_knobs(read_lag_seconds=6)
    stack.deliver(stack._update(first, after, before))
    made = stack.response["PhysicalResourceId"]

    stack.deliver(stack._update(first, before, after))

    assert stack.response["PhysicalResourceId"] == made
    tags = aws.images[made].tags
    assert {key: tags[key] for key in tags if ":" not in key} == {"a": "2", "b": "1"}


def test_an_old_image_that_nobody_retains_is_deleted(aws: Aws, stack: Stack) -> None:
    aws.sleep(30 * DAY)

    stack.remove()

    assert images(aws) == []


def test_an_image_without_the_tags_of_the_resource_is_not_deleted(aws: Aws, stack: Stack) -> None:
    aws.images[str(stack.physical_id)].tags.clear()

    stack.remove()

    assert stack.response["Status"] == "SUCCESS"
    assert len(images(aws)) == 1


@pytest.mark.parametrize("taken", [OwnTag.TOKEN, OwnTag.STACK, OwnTag.RESOURCE])
def test_an_update_restores_the_tags_of_the_resource(aws: Aws, stack: Stack, taken: str) -> None:
    image = aws.images[str(stack.physical_id)]
    before = dict(image.tags)
    if taken == OwnTag.TOKEN:  # the rest of the tag cannot be known
        before[taken] = before[taken].split("/")[0]
    del image.tags[taken]

    assert stack.update(stack.change(Tags={"a": "1"}))

    assert image.tags == {**before, "a": "1"}


def test_an_image_with_the_tags_of_another_resource_is_replaced_and_not_deleted(
    aws: Aws, stack: Stack
) -> None:
    first = str(stack.physical_id)
    aws.images[first].tags[OwnTag.RESOURCE] = "Another"

    assert stack.update(stack.change(Tags={"a": "1"}))

    assert stack.physical_id != first
    assert sorted(images(aws)) == sorted([first, str(stack.physical_id)])
    assert "a" not in aws.images[first].tags


@pytest.mark.parametrize("status", ["DEPRECATED", "DISABLED"])
def test_an_image_that_was_deprecated_or_disabled_stays_in_use(
    aws: Aws, stack: Stack, status: str
) -> None:
    first = str(stack.physical_id)
    aws.images[first].status = status

    assert stack.update(stack.change(Tags={"a": "1"}))

    assert images(aws) == [stack.physical_id] == [first]


def killed_after_its_import(aws: Aws, stack: Stack) -> Execution:
    """Begin a Create, and have Lambda end the function when the image is created."""
    event = stack.event("Create", stack.properties)
    aws.call(event)
    execution = aws.step_functions.of(event)
    assert execution
    for call in range(20):
        aws.expect({call: "killed after"})
        aws.step(execution)
        if aws.images:
            break
    aws.expect()
    return execution


def test_a_failed_image_is_deleted_when_a_retry_of_its_step_creates_another(aws: Aws) -> None:
    stack = Stack(aws)
    execution = killed_after_its_import(aws, stack)
    (failed,) = aws.images.values()
    failed.status = "CANCELLED"

    aws.work(lambda: not execution.is_running)

    (response,) = aws.responses[execution.event["ResponseURL"]]
    assert response["Status"] == "SUCCESS"
    assert images(aws) == [response["PhysicalResourceId"]] != [failed.arn]


def test_a_failed_image_is_deleted_when_a_retry_of_its_step_fails(aws: Aws) -> None:
    stack = Stack(aws)
    execution = killed_after_its_import(aws, stack)
    (failed,) = aws.images.values()
    failed.status = "FAILED"
    aws.expect(denied={"ImportVmImage"})

    aws.work(lambda: not execution.is_running)

    (response,) = aws.responses[execution.event["ResponseURL"]]
    assert response["Status"] == "FAILED"
    assert images(aws) == []


def test_a_sixth_image_is_refused_while_aws_remembers_five_tokens(aws: Aws) -> None:
    stack = Stack(aws)
    for _ in range(5):
        assert stack.create(stack.properties)
        stack.remove()

    assert not stack.create(stack.properties)

    stack.deliver(stack.event("Create", stack.properties))
    assert "5 images of this identity are gone" in stack.response["Reason"]
    aws.sleep(2 * DAY)  # AWS forgets the tokens, but not the import task
    assert stack.create(stack.properties)
    assert images(aws) == [stack.physical_id]


def test_a_delete_with_the_properties_of_the_image_in_use_does_not_delete_that(
    aws: Aws, stack: Stack
) -> None:
    first = stack.physical_id
    newer = stack.change(Description="golden")
    stack.deliver(stack._update(str(first), newer, stack.properties))
    created = stack.response["PhysicalResourceId"]

    stack.deliver(stack.event("Delete", stack.properties, PhysicalResourceId=created))

    assert images(aws) == [first]


def test_a_client_token_of_the_user_cannot_be_used_for_two_images(aws: Aws) -> None:
    stack = Stack(aws)
    first = stack.change(ClientToken="mine")
    stack.create(first)
    arn = stack.physical_id

    stack.update({**first, ImageProperty.DESCRIPTION: "golden"})

    assert "client token 'mine' was used for an image" in aws_reason(aws)
    assert stack.physical_id == arn
    assert images(aws) == [arn]


def aws_reason(aws: Aws) -> str:
    reasons = [response["Reason"] for answers in aws.responses.values() for response in answers]
    return " ".join(reasons)


@pytest.mark.parametrize("name", ["no/name", "x", "é" * 10])
def test_a_name_that_is_not_valid_fails_and_can_be_rolled_back(aws: Aws, name: str) -> None:
    stack = Stack(aws)

    assert not stack.create(stack.change(Name=name))

    assert not stack.abandoned
    assert "does not match" in aws_reason(aws)


@pytest.mark.parametrize(
    "fixture", sorted(FIXTURES.glob("properties-*.json")), ids=lambda p: p.stem
)
def test_the_properties_of_every_release_are_understood(aws: Aws, fixture: Path) -> None:
    stack = Stack(aws)
    properties = {
        **json.loads(fixture.read_text()),
        ImageProperty.VM_IMPORT_TASK_ID: stack.properties[ImageProperty.VM_IMPORT_TASK_ID],
        ImageProperty.STATE_MACHINE_ARN: STATE_MACHINE,
        ImageProperty.RETAIN: "false",
    }
    stack.create(properties)
    first = stack.physical_id
    stack.update({**properties, ImageProperty.TAGS: {"team": "others"}})
    assert stack.physical_id == first

    stack.deliver(stack.event("Delete", properties, PhysicalResourceId=INVENTED))

    assert images(aws) == []


def test_a_failed_image_does_not_hide_the_one_that_is_being_created(
    retaining: Stack, aws: Aws
) -> None:
    retaining.create(retaining.properties)
    retained = str(retaining.physical_id)
    retaining.remove()
    aws.images[retained].status = "CANCELLED"

    retaining.create_and_cancel(retaining.properties)

    assert images(aws) == []


@pytest.mark.parametrize("head_start", range(0, 16, 3))
def test_a_failed_image_does_not_hide_what_an_update_in_flight_creates(
    retaining: Stack, aws: Aws, head_start: int
) -> None:
    older, newer = retaining.properties, retaining.change(SemanticVersion="2.0.0")
    retaining.create(newer)
    failed = str(retaining.physical_id)
    retaining.update(older)
    aws.images[failed].status = "CANCELLED"
    current = str(retaining.physical_id)
    update = retaining._update(current, newer, older)
    aws.sleep(1)
    rollback = retaining._update_back(current, older, newer)

    chance = random.Random(head_start)  # noqa: S311
    aws.deliver_at_once(update, rollback, chance=chance, head_start=head_start)

    assert set(images(aws)) - {failed} == {current}


# --- reads that lag behind writes ---


def test_a_rollback_restores_tags_though_it_does_not_see_the_new_ones_yet(aws: Aws) -> None:
    stack = Stack(aws)
    first = stack.change(Tags={"stays": "1", "goes": "1"})
    stack.create(first)
    aws.local.change_knobs(read_lag_seconds=6)

    stack.update(stack.change(Tags={"stays": "2", "comes": "1"}), others_fail=True)

    tags = aws.images[str(stack.physical_id)].tags
    assert {k: v for k, v in tags.items() if not k.startswith(TAG_PREFIX)} == first[
        ImageProperty.TAGS
    ]


@pytest.mark.parametrize("by", ["its ARN", "a placeholder"])
def test_an_image_that_was_created_a_moment_ago_is_deleted(aws: Aws, by: str) -> None:
    stack = Stack(aws)
    aws.local.change_knobs(read_lag_seconds=6)
    stack.create(stack.properties)
    (arn,) = aws.images

    by_id = arn if by == "its ARN" else placeholder_of(aws, arn)
    stack.deliver(stack.event("Delete", stack.properties, PhysicalResourceId=by_id))

    assert images(aws) == []


# --- imports that fail, or never end ---


@pytest.mark.parametrize(
    ("ends", "reason"),
    [("failed", "VM import failed: ClientError: Unknown OS"), ("never", "after 10 min")],
)
def test_a_failed_wait_leaves_nothing(waiting: Stack, aws: Aws, ends: str, reason: str) -> None:
    # Only the Create is delivered. Image Builder does not show what EC2 knows.
    aws.local.change_knobs(image_watch_seconds=10_000.0)
    task = aws.import_task(60, ends)

    waiting.deliver(waiting.event("Create", waiting.change(VmImportTaskId=task)))

    assert waiting.response["Status"] == "FAILED"
    assert reason in waiting.response["Reason"]
    assert images(aws) == []
    assert aws.step_functions.running() == []


def test_a_failed_wait_retains_a_retained_image_that_it_found(retaining: Stack, aws: Aws) -> None:
    endless = retaining.change(VmImportTaskId=aws.import_task(60, "never"))
    retaining.create(endless)
    first = retaining.physical_id
    retaining.remove()
    aws.sleep(2 * DAY)
    retaining.waits()

    retaining.create({**retaining.properties, **endless})

    # Two days before the second import of this image began to wait, and its timeout of 10 minutes.
    assert "after 2890 minutes" in aws_reason(aws)
    assert images(aws) == [first]


def test_a_failed_replacement_returns_to_the_image_in_use(waiting: Stack, aws: Aws) -> None:
    waiting.create(waiting.properties)
    first = waiting.physical_id

    assert not waiting.update(waiting.change(VmImportTaskId=aws.import_task(60, "failed")))

    assert images(aws) == [waiting.physical_id] == [first]


def test_a_rollback_leaves_an_import_that_cannot_be_cancelled(aws: Aws, stack: Stack) -> None:
    aws.local.change_knobs(cancel_import="refuse")
    first = str(stack.physical_id)

    stack.update(stack.change(VmImportTaskId=aws.import_task(1000)), in_flight=True)

    assert stack.physical_id == first
    assert len(images(aws)) == 2


def test_an_update_without_waiting_returns_to_an_image_whose_import_failed(aws: Aws) -> None:
    # Otherwise the stack would end in UPDATE_ROLLBACK_FAILED.
    stack = Stack(aws)
    stack.create(stack.change(VmImportTaskId=aws.import_task(60, "failed")))
    failed = stack.physical_id
    aws.sleep(3600)

    assert not stack.update(stack.properties, others_fail=True)

    assert stack.physical_id == failed
    assert images(aws) == [failed]


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "waiting"])
def test_an_update_of_an_image_whose_import_failed_fails_if_it_waits(
    aws: Aws, *, waits: bool
) -> None:
    stack = Stack(aws)
    properties = stack.change(VmImportTaskId=aws.import_task(60, "failed"))
    stack.create(properties)
    failed = stack.physical_id
    aws.sleep(3600)
    if waits:
        stack.waits()

    stack.deliver(stack._update(str(failed), {**stack.properties, **properties}, properties))

    assert stack.response["Status"] == ("FAILED" if waits else "SUCCESS")
    assert not waits or f"{failed} is FAILED" in stack.response["Reason"]
    assert images(aws) == [failed]


# --- waits ---


def test_a_delete_stops_the_wait_even_if_no_execution_can_be_started(
    waiting: Stack, aws: Aws
) -> None:
    create = waiting.event("Create", waiting.change(VmImportTaskId=aws.import_task(1, "never")))
    aws.processes[0].invoke(create)
    (wait,) = aws.step_functions.running()
    aws.expect(denied={"StartExecution"})

    invented: Any = {"PhysicalResourceId": INVENTED}
    waiting.deliver(waiting.event("Delete", create["ResourceProperties"], **invented))

    assert waiting.response["Status"] == "SUCCESS"
    assert wait.status == "ABORTED"


def test_an_event_stops_only_the_waits_of_its_own_resource(waiting: Stack, aws: Aws) -> None:
    another = Stack(aws, logical_id="Another")
    another.waits()
    endless = another.change(VmImportTaskId=aws.import_task(60, "never"))
    create = another.event("Create", endless)
    aws.processes[0].invoke(create)

    waiting.create(waiting.properties)
    waiting.remove()

    assert aws.step_functions.running() == [aws.step_functions.of(create)]
    own = [aws.step_functions.of(event) for event in waiting.sent]
    assert [wait and wait.status for wait in own] == ["SUCCEEDED"] * 2


def test_a_rollback_to_a_template_without_a_timeout_stops_the_wait(aws: Aws, stack: Stack) -> None:
    # Lambda delays the first step.
    before = dict(stack.properties)
    stack.waits()
    newer = stack.change(SemanticVersion="2.0.0")
    aws.processes[0].invoke(stack._update(str(stack.physical_id), newer, before))
    aws.sleep(10)

    stack.deliver(stack._update(str(stack.physical_id), before, newer))
    aws.work(lambda: False)

    assert images(aws) == [stack.physical_id]


# --- events that Lambda delivers again after CloudFormation has continued ---


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "waiting"])
def test_an_event_that_lambda_delivers_again_is_not_carried_out_again(
    aws: Aws, *, waits: bool
) -> None:
    waiting = Stack(aws)
    if waits:
        waiting.waits()
    first = waiting.properties
    waiting.create(first, others_fail=True)
    aws.expect(denied={"ImportVmImage"})
    waiting.create(first)
    aws.expect()
    waiting.create_and_cancel(first)
    waiting.create(first)
    waiting.update(waiting.change(SemanticVersion="2.0.0"), others_fail=True)
    waiting.update(waiting.change(SemanticVersion="2.0.0"))
    waiting.update(first)
    waiting.update(waiting.change(Tags={"a": "1"}))
    waiting.update(waiting.change(Tags={"a": "2"}))
    before = {arn: dict(image.tags) for arn, image in aws.images.items()}
    kinds = {
        (event["RequestType"], event.get("PhysicalResourceId", "")[:3]) for event in waiting.sent
    }
    deletes = {("Delete", "arn"), ("Delete", "rhe"), ("Delete", "ima")}
    assert kinds == {("Create", ""), ("Update", "arn"), *deletes}

    for event in waiting.sent:
        aws.deliver_again(event)

    assert before == {arn: image.tags for arn, image in aws.images.items()}
    assert [*before] == [waiting.physical_id]


def test_a_create_that_is_delivered_after_its_delete_imports_nothing(aws: Aws) -> None:
    stack = Stack(aws)
    late = stack.event("Create", stack.properties)  # Lambda does not deliver it yet
    aws.sleep(60)
    stack.deliver(stack.event("Delete", stack.properties, PhysicalResourceId=INVENTED))

    stack.deliver(late)

    assert stack.response["Status"] == "FAILED"
    assert "has sent a later" in stack.response["Reason"]
    assert images(aws) == []


def test_an_update_that_is_delivered_after_its_rollback_changes_nothing(
    aws: Aws, stack: Stack
) -> None:
    newer = stack.change(SemanticVersion="2.0.0", Tags={"a": "1"})
    late = stack._update(str(stack.physical_id), newer, stack.properties)
    aws.sleep(60)
    stack.deliver(stack._update(str(stack.physical_id), stack.properties, newer))

    stack.deliver(late)

    assert stack.response["Status"] == "FAILED"
    assert images(aws) == [stack.physical_id]


@pytest.mark.parametrize("cancelled", [False, True], ids=["placeholder", "invented"])
def test_a_delete_without_an_execution_that_is_delivered_again_deletes_nothing(
    aws: Aws, *, cancelled: bool
) -> None:
    stack = Stack(aws)
    physical_id = INVENTED
    if not cancelled:
        aws.expect(denied={"ImportVmImage"})
        stack.deliver(stack.event("Create", stack.properties))
        physical_id = stack.response["PhysicalResourceId"]
    aws.expect(denied={"StartExecution"})
    deletion = stack.event("Delete", stack.properties, PhysicalResourceId=physical_id)
    stack.deliver(deletion)
    aws.expect()
    assert stack.response["Status"] == "SUCCESS"
    aws.sleep(10)
    stack.create(stack.properties)

    aws.deliver_again(deletion)

    assert images(aws) == [stack.physical_id]


def test_a_create_without_an_execution_that_is_delivered_again_imports_nothing(
    aws: Aws,
) -> None:
    stack = Stack(aws)
    aws.expect(denied={"StartExecution"})
    create = stack.event("Create", stack.properties)
    stack.deliver(create)
    aws.expect()
    assert stack.response["Status"] == "FAILED"
    aws.sleep(10)
    physical_id = stack.response["PhysicalResourceId"]
    stack.deliver(stack.event("Delete", stack.properties, PhysicalResourceId=physical_id))

    aws.deliver_again(create)

    assert images(aws) == []


def test_an_event_that_comes_late_is_refused_although_a_later_one_is_not_listed_yet(
    aws: Aws,
) -> None:
    stack = Stack(aws)
    assert stack.create(stack.properties)
    tagged = stack.change(Tags={"a": "1"})
    more: dict[str, Any] = {"PhysicalResourceId": stack.physical_id}
    late = stack.event("Update", tagged, **more, OldResourceProperties=stack.properties)
    aws.sleep(60)
    back = stack.event("Update", stack.properties, **more, OldResourceProperties=tagged)
    stack.deliver(back)
    aws.local.change_knobs(read_lag_seconds=6)

    aws.deliver_again(late)

    assert "a" not in aws.images[str(stack.physical_id)].tags


def test_events_without_a_date_are_ordered_by_their_delivery(
    aws: Aws,
) -> None:
    stack = Stack(aws)
    dated = stack.event("Create", stack.properties)
    create = {**dated, "ResponseURL": "https://cloudformation.invalid/no-date-1"}
    delete = {
        **create,
        "RequestType": "Delete",
        "RequestId": "later",
        "PhysicalResourceId": INVENTED,
        "ResponseURL": "https://cloudformation.invalid/no-date-2",
    }
    aws.processes[0].invoke(create)
    aws.sleep(1)

    stack.deliver(delete)
    aws.work(lambda: False)

    assert stack.response["Status"] == "SUCCESS"
    assert all(r["Status"] == "FAILED" for r in aws.responses.get(create["ResponseURL"], []))
    assert images(aws) == []


# --- images that CloudFormation retains without knowing them ---


def test_under_retain_the_image_of_a_create_without_a_response_is_used_by_the_next_create(
    aws: Aws,
) -> None:
    stack = Stack(aws, Policy.RETAIN)
    aws.expect(response_faults=dict.fromkeys(range(300), "500"))
    stack.create(stack.properties)
    aws.sleep(SERVICE_TIMEOUT)
    aws.expect()
    (unknown,) = images(aws)

    stack.create(stack.properties)

    assert images(aws) == [stack.physical_id] == [unknown]


def test_an_update_without_a_response_leaves_its_image_if_the_one_in_use_was_deleted_by_hand(
    aws: Aws, stack: Stack
) -> None:
    newer = stack.change(SemanticVersion="2.0.0")
    aws.delete(str(stack.physical_id))
    aws.expect(response_faults=dict.fromkeys(range(300), "500"))
    stack.deliver(stack._update(str(stack.physical_id), newer, stack.properties))
    aws.expect()

    stack.deliver(stack._update(str(stack.physical_id), stack.properties, newer))

    assert stack.response["Status"] == "SUCCESS"
    assert len(images(aws)) == 2
