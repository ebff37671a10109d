"""Custom::VmImportTask: import tasks, and what a deletion retains of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from contract import OwnTag, ResourceType, TaskAttribute, TaskProperty
from tests.support.account import IMPORT, disk, tags_of
from tests.support.aws import ROLLS_BACK
from tests.support.cloudformation import CustomResource
from tests.support.lambda_function import LOG_GROUP
from tests.support.local_services import ABSENT_DISK, ABSENT_ROLE
from tests.support.step_functions import STATE_MACHINE

if TYPE_CHECKING:
    from tests.support.account import Account
    from tests.support.aws import Aws

ALWAYS = 10**6
DAY = 86400
INVENTED = "images-ImportF00D-1ABCDEF"
ROLE_ERROR = {
    "code": "InvalidParameter",
    "message": "The service role vmimport does not exist or does not have sufficient permissions "
    "for the service to continue",
    "status": 400,
}


def test_a_create_responds_at_once_with_the_id_of_the_task(
    account: Account, task: CustomResource
) -> None:
    response = task.create(account.task_properties())

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert response["Data"] == {TaskAttribute.IMPORT_TASK_ID: response["PhysicalResourceId"]}
    assert account.task(response["PhysicalResourceId"])["Status"] == "active"


def test_each_property_becomes_a_member_of_the_request(
    account: Account, task: CustomResource
) -> None:
    given: dict[str, Any] = {
        TaskProperty.DISK_CONTAINERS: [
            {**disk(), "DeviceName": "/dev/sda1", "Description": "The system"}
        ],
        TaskProperty.PLATFORM: "Windows",
        TaskProperty.ARCHITECTURE: "x86_64",
        TaskProperty.BOOT_MODE: "legacy-bios",
        TaskProperty.USAGE_OPERATION: "RunInstances:0002",
        TaskProperty.LICENSE_SPECIFICATIONS: [
            {"LicenseConfigurationArn": "arn:aws:license-manager:x"}
        ],
        TaskProperty.ENCRYPTED: "true",
        TaskProperty.DESCRIPTION: "The golden machine",
        TaskProperty.ROLE_NAME: "vmimport",
    }

    response = task.create(
        {
            **given,
            TaskProperty.TAGS: {"team": "images"},
            TaskProperty.STATE_MACHINE_ARN: STATE_MACHINE,
        }
    )

    assert response["Status"] == "SUCCESS", response["Reason"]
    (request,) = account.requests_of(task, "ImportImage")
    token = request.pop("ClientToken", None)
    (specification,) = request.pop("TagSpecifications")
    assert request == {**given, "Encrypted": True}
    assert specification["ResourceType"] == "import-image-task"
    tags = tags_of(account.task(response["PhysicalResourceId"]))
    assert tags.pop(OwnTag.TOKEN).split("/")[0] == token
    assert tags.items() <= tags_of(specification).items()
    assert tags_of(specification) == {
        "team": "images",
        OwnTag.TOKEN.value: tags_of(specification)[OwnTag.TOKEN.value],
        OwnTag.STACK.value: task.stack_id,
        OwnTag.RESOURCE.value: task.logical_id,
    }
    assert token in {None, tags_of(specification)[OwnTag.TOKEN.value]}


def test_a_create_that_lambda_delivers_three_times_starts_one_task(
    account: Account, task: CustomResource
) -> None:
    task.properties = account.task_properties()
    event = task.event("Create")

    ids = {task.send(dict(event))["PhysicalResourceId"] for _ in range(3)}

    assert len(ids) == 1
    assert account.active_tasks_of(task) == list(ids)


def test_a_lost_answer_of_ec2_starts_no_second_task(account: Account, task: CustomResource) -> None:
    account.fault("ec2", "ImportImage", lose_answer=True)

    response = task.create(account.task_properties())

    assert account.active_tasks_of(task) == [response["PhysicalResourceId"]]


def test_a_new_role_that_ec2_does_not_see_yet_is_retried(
    account: Account, task: CustomResource
) -> None:
    account.fault("ec2", "ImportImage", times=2, error=ROLE_ERROR)

    response = task.create(account.task_properties())

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert account.active_tasks_of(task) == [response["PhysicalResourceId"]]


def test_a_role_that_does_not_exist_fails_the_create_with_ec2s_message(
    aws: Aws, account: Account, task: CustomResource
) -> None:
    start = aws.now()

    response = task.create(account.task_properties(RoleName=ABSENT_ROLE))

    assert response["Status"] == "FAILED"
    assert f"InvalidParameter: The service role {ABSENT_ROLE} does not exist" in response["Reason"]
    assert 60 < aws.now() - start < 600
    assert task.delete()["Status"] == "SUCCESS"


def test_a_refused_request_fails_the_create_at_once_and_leaves_nothing(
    account: Account, task: CustomResource
) -> None:
    response = task.create(account.task_properties(Architecture="arm64"))

    assert response["Status"] == "FAILED"
    assert 'architecture="arm64" has an invalid format' in response["Reason"]
    assert task.delete()["Status"] == "SUCCESS"
    assert account.tasks_of(task) == []


def test_another_disk_starts_another_task_and_the_clean_up_cancels_the_old_one(
    account: Account, task: CustomResource
) -> None:
    first = account.task_properties()
    old = task.create(first)["PhysicalResourceId"]

    new = task.update(account.task_properties(DiskContainers=[disk("other.raw")]))[
        "PhysicalResourceId"
    ]
    before_clean_up = sorted(account.active_tasks_of(task))
    task.delete(old, first)

    assert before_clean_up == sorted([old, new])
    assert account.active_tasks_of(task) == [new]


def test_a_rollback_returns_to_the_first_task_without_a_second_import(
    account: Account, task: CustomResource
) -> None:
    first, second = account.task_properties(), account.task_properties(Description="Another")
    task_id = task.create(first)["PhysicalResourceId"]
    new = task.update(second)["PhysicalResourceId"]

    rolled_back = task.update(first)["PhysicalResourceId"]
    task.delete(new, second)

    assert rolled_back == task_id
    assert account.active_tasks_of(task) == [task_id]


def test_a_rollback_returns_to_a_task_that_ec2_no_longer_knows(
    account: Account, task: CustomResource
) -> None:
    first, second = account.task_properties(), account.task_properties(Description="Another")
    task_id = task.create(first)["PhysicalResourceId"]
    account.complete(task_id)
    account.advance(8 * DAY)
    task.update(second)

    rolled_back = task.update(first)["PhysicalResourceId"]

    assert rolled_back == task_id
    assert len(account.requests_of(task, "ImportImage")) == 2


def test_a_rollback_of_an_update_without_a_response_cancels_the_task_that_the_update_started(
    account: Account, task: CustomResource
) -> None:
    first, second = account.task_properties(), account.task_properties(Description="Another")
    task_id = task.create(first)["PhysicalResourceId"]
    task.update(second)

    # CloudFormation never heard of the second task
    rolled_back = task.update(first, physical_id=task_id)["PhysicalResourceId"]

    assert rolled_back == task_id
    assert account.active_tasks_of(task) == [task_id]


def test_a_rollback_of_an_update_without_a_response_deletes_the_ami_that_the_update_created(
    account: Account, task: CustomResource
) -> None:
    first, second = (
        account.task_properties(),
        account.task_properties(Description="Another", DeleteAmi="true"),
    )
    task_id = task.create(first)["PhysicalResourceId"]
    new = task.update(second)["PhysicalResourceId"]
    ami = account.complete(new)

    task.update(first, physical_id=task_id)

    assert account.ami(task_id)
    assert account.ami(new) is None
    assert account.snapshots(ami) == []


def test_a_rollback_of_an_update_that_never_ran_returns_to_a_task_that_ec2_no_longer_knows(
    account: Account, task: CustomResource, image: CustomResource
) -> None:
    first, second = account.task_properties(), account.task_properties(Description="Another")
    task_id = task.create(first)["PhysicalResourceId"]
    account.complete(task_id)
    # what was waited for is tagged like this
    image.create(account.properties(VmImportTaskId=task_id))
    account.advance(8 * DAY)
    task.properties = second  # Lambda was killed each time

    rolled_back = task.update(first)

    assert rolled_back["PhysicalResourceId"] == task_id
    assert len(account.requests_of(task, "ImportImage")) == 1


def test_a_change_that_was_rolled_back_before_it_ran_is_imported_by_the_next_update(
    account: Account, task: CustomResource
) -> None:
    first, second = account.task_properties(), account.task_properties(Description="Another")
    task_id = task.create(first)["PhysicalResourceId"]
    account.complete(task_id)
    task.properties = second  # Lambda was killed each time
    assert task.update(first)["PhysicalResourceId"] == task_id
    account.advance(8 * DAY)

    assert task.update(second)["PhysicalResourceId"] != task_id

    assert task.update(first)["PhysicalResourceId"] == task_id
    assert len(account.requests_of(task, "ImportImage")) == 2


def test_tags_change_in_place(account: Account, task: CustomResource) -> None:
    task_id = task.create(account.task_properties(Tags={"stage": "test", "team": "images"}))[
        "PhysicalResourceId"
    ]

    updated = task.update(account.task_properties(Tags={"stage": "live"}))["PhysicalResourceId"]

    assert updated == task_id
    assert tags_of(account.task(task_id))["stage"] == "live"
    assert "team" not in tags_of(account.task(task_id))


def test_another_role_does_not_import_again(account: Account, task: CustomResource) -> None:
    task_id = task.create(account.task_properties())["PhysicalResourceId"]

    assert task.update(account.task_properties(RoleName="other"))["PhysicalResourceId"] == task_id
    assert len(account.requests_of(task, "ImportImage")) == 1


def test_an_update_of_a_task_that_ec2_no_longer_knows_does_not_import_again(
    account: Account, task: CustomResource
) -> None:
    task_id = task.create(account.task_properties())["PhysicalResourceId"]
    account.complete(task_id)
    account.advance(8 * DAY)

    updated = task.update(account.task_properties(Tags={"stage": "live"}))

    assert updated["Status"] == "SUCCESS", updated["Reason"]
    assert updated["PhysicalResourceId"] == task_id
    assert len(account.requests_of(task, "ImportImage")) == 1


def test_a_failed_task_is_started_again_by_the_next_update(
    account: Account, task: CustomResource
) -> None:
    failed = task.create(account.task_properties(DiskContainers=[disk(ABSENT_DISK)]))[
        "PhysicalResourceId"
    ]
    account.advance(IMPORT)

    again = task.update(
        account.task_properties(DiskContainers=[disk(ABSENT_DISK)], Tags={"try": "2"})
    )

    assert account.task(failed)["Status"] == "deleted"
    assert again["PhysicalResourceId"] != failed


def test_a_task_whose_ami_was_deleted_is_started_again(
    account: Account, task: CustomResource
) -> None:
    first = account.task_properties()
    gone = task.create(first)["PhysicalResourceId"]
    account.ec2.deregister_image(ImageId=account.complete(gone)["ImageId"])
    task.update(account.task_properties(Description="Another"))

    again = task.update(first)["PhysicalResourceId"]

    assert again != gone
    assert again in account.active_tasks_of(task)


def test_a_used_client_token_of_the_user_is_a_clear_error(
    account: Account, task: CustomResource
) -> None:
    given = account.task_properties(ClientToken="a-token-of-my-own")
    task.create(given)
    task.delete()
    account.advance(60)

    response = task.create(given)

    assert response["Status"] == "FAILED"
    assert (
        "client token 'a-token-of-my-own' was used for an import task that is gone"
        in response["Reason"]
    )


def test_a_delete_cancels_an_active_task(account: Account, task: CustomResource) -> None:
    task_id = task.create(account.task_properties())["PhysicalResourceId"]

    assert task.delete()["Status"] == "SUCCESS"

    assert account.task(task_id)["Status"] in {"deleting", "deleted"}


def test_the_task_of_a_create_that_was_cancelled_is_found_and_cancelled(
    account: Account, task: CustomResource
) -> None:
    task.create(account.task_properties())

    deleted = task.send(task.delete_event(INVENTED) | ROLLS_BACK)

    assert deleted["Status"] == "SUCCESS"
    assert account.active_tasks_of(task) == []


def test_a_cancelled_create_is_cleaned_up_behind_a_page_of_other_tasks(
    aws: Aws, account: Account, task: CustomResource
) -> None:
    account.knobs(import_seconds=6 * 3600)
    for _ in range(1000):
        aws.import_task(ends="never")
    task_id = task.create(account.task_properties())["PhysicalResourceId"]

    deleted = task.send(task.delete_event(INVENTED) | ROLLS_BACK)

    assert deleted["Status"] == "SUCCESS"
    assert account.task(task_id)["Status"] != "active"


def test_a_delete_by_a_placeholder_cancels_the_task(account: Account, task: CustomResource) -> None:
    task_id = task.create(account.task_properties())["PhysicalResourceId"]
    token, _, event = tags_of(account.task(task_id))[OwnTag.TOKEN].split("/")

    assert task.delete(f"import-task/{token}/{event}")["Status"] == "SUCCESS"

    assert account.active_tasks_of(task) == []


def test_a_delete_retains_a_completed_task_and_its_ami(
    account: Account, task: CustomResource
) -> None:
    task_id = task.create(account.task_properties())["PhysicalResourceId"]
    account.complete(task_id)

    assert task.delete()["Status"] == "SUCCESS"

    assert account.task(task_id)["Status"] == "completed"
    assert account.ami(task_id)


def test_a_delete_after_a_cancelled_create_names_the_ami_that_it_retains(
    account: Account, task: CustomResource
) -> None:
    task_id = task.create(account.task_properties())["PhysicalResourceId"]
    ami = account.complete(task_id)
    (_snapshot,) = account.snapshots(ami)

    response = task.delete(INVENTED)

    assert response["Status"] == "SUCCESS"
    assert response["Reason"] == (f"{ami['ImageId']} is retained: delete_ami is not set")
    assert account.ami(task_id)


def test_a_delete_names_the_ami_of_an_import_that_ended_before_it_was_cancelled(
    account: Account, task: CustomResource
) -> None:
    account.knobs(import_seconds=60)
    task_id = task.create(account.task_properties())["PhysicalResourceId"]
    account.fault("ec2", "CancelImportTask", delay=100)

    response = task.delete()

    ami = account.ami(task_id)
    assert ami
    assert response["Status"] == "SUCCESS"
    assert response["Reason"] == f"{ami['ImageId']} is retained: delete_ami is not set"


def test_a_delete_of_a_task_without_an_ami_names_nothing(
    account: Account, task: CustomResource
) -> None:
    task.create(account.task_properties())
    account.advance(60)

    assert task.delete()["Reason"] == ""


def test_a_delete_succeeds_when_describing_images_is_denied(
    account: Account, task: CustomResource
) -> None:
    account.complete(task.create(account.task_properties())["PhysicalResourceId"])
    denied = {"code": "UnauthorizedOperation", "message": "no", "status": 403}
    account.fault("ec2", "DescribeImages", times=ALWAYS, error=denied)

    response = task.delete()

    assert (response["Status"], response["Reason"]) == ("SUCCESS", "")


@pytest.mark.parametrize("by_ec2", ["keep", "delete"])
@pytest.mark.parametrize("delete_ami", ["true", "false"])
def test_the_snapshots_of_an_import_that_is_cancelled_at_its_end_are_deleted(
    account: Account, task: CustomResource, by_ec2: str, delete_ami: str
) -> None:
    account.knobs(snapshots_of_failed_import=by_ec2)
    task_id = task.create(account.task_properties(DeleteAmi=delete_ami))["PhysicalResourceId"]
    snapshots = account.snapshots_of_almost_completed(task_id)

    response = task.delete()

    assert (response["Status"], response["Reason"]) == ("SUCCESS", "")
    assert account.task(task_id)["Status"] == "deleted"
    assert account.existing(snapshots) == []


def test_a_snapshot_that_is_a_disk_is_retained_when_its_import_is_cancelled_at_its_end(
    account: Account, task: CustomResource
) -> None:
    disk_id = account.new_snapshot()
    given = account.task_properties(DiskContainers=[disk(), {"SnapshotId": disk_id}])
    task_id = task.create(given)["PhysicalResourceId"]
    made, _ = snapshots = account.snapshots_of_almost_completed(task_id)

    assert task.delete()["Reason"] == ""

    assert made != disk_id
    assert account.existing(snapshots) == [disk_id]


def test_a_snapshot_of_a_cancelled_import_that_an_ami_uses_is_retained(
    account: Account, task: CustomResource
) -> None:
    task_id = task.create(account.task_properties())["PhysicalResourceId"]
    (snapshot,) = account.snapshots_of_almost_completed(task_id)
    account.ec2.register_image(
        Name=f"of {snapshot}",
        RootDeviceName="/dev/sda1",
        BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}],
    )

    response = task.delete()

    assert response["Status"] == "SUCCESS"
    assert response["Reason"] == f"{snapshot} is retained: InvalidSnapshot.InUse"
    assert account.existing([snapshot]) == [snapshot]


def test_a_snapshot_of_a_cancelled_import_that_belongs_to_another_stack_is_retained(
    account: Account, task: CustomResource
) -> None:
    task_id = task.create(account.task_properties())["PhysicalResourceId"]
    (snapshot,) = account.snapshots_of_almost_completed(task_id)
    taken = [{"Key": OwnTag.STACK.value, "Value": "another"}]
    account.ec2.create_tags(Resources=[snapshot], Tags=taken)

    assert task.delete()["Status"] == "SUCCESS"

    assert account.existing([snapshot]) == [snapshot]


def test_a_delete_of_a_task_that_ec2_no_longer_knows_succeeds(
    account: Account, task: CustomResource
) -> None:
    task.create(account.task_properties())
    account.complete(str(task.physical_id))
    account.advance(8 * DAY)

    assert task.delete()["Status"] == "SUCCESS"


def test_a_delete_never_cancels_the_task_of_another_resource(
    aws: Aws, account: Account, task: CustomResource
) -> None:
    other = CustomResource(aws, ResourceType.IMPORT_TASK.value)
    theirs = other.create(account.task_properties())["PhysicalResourceId"]
    task.properties = account.task_properties()

    assert task.delete(theirs)["Status"] == "SUCCESS"

    assert account.active_tasks_of(other) == [theirs]


def test_properties_of_a_wrong_type_fail_the_create_with_their_names(
    account: Account, task: CustomResource
) -> None:
    response = task.create(account.task_properties(DiskContainers="disk.raw", Tags=["a"]))

    assert response["Status"] == "FAILED"
    names = f"{TaskProperty.DISK_CONTAINERS}, {TaskProperty.TAGS}"
    wrong = f"resource property of a wrong type: {names} (log group {LOG_GROUP})"
    assert response["Reason"] == wrong


def test_with_delete_ami_ami_and_snapshots_are_deleted_with_a_task_without_an_image(
    account: Account, task: CustomResource
) -> None:
    task_id = task.create(account.task_properties(DeleteAmi="true"))["PhysicalResourceId"]
    ami = account.complete(task_id)

    assert task.delete()["Status"] == "SUCCESS"

    assert account.ami(task_id) is None
    assert account.snapshots(ami) == []


def test_a_snapshot_whose_new_tags_ec2_does_not_show_yet_is_deleted_with_the_ami(
    account: Account, task: CustomResource
) -> None:
    disk_id = account.new_snapshot()
    disks = [disk(), {"SnapshotId": disk_id}]
    given = account.task_properties(DiskContainers=disks, DeleteAmi="true")
    task_id = task.create(given)["PhysicalResourceId"]
    ami = account.complete(task_id)
    account.knobs(read_lag_seconds=6)

    assert task.delete()["Reason"] == ""

    account.advance(10)
    assert account.ami(task_id) is None
    assert [snapshot["SnapshotId"] for snapshot in account.snapshots(ami)] == [disk_id]


def test_a_snapshot_that_is_a_disk_is_retained_when_the_ami_is_deleted(
    account: Account, task: CustomResource
) -> None:
    disk_id = account.new_snapshot()
    given = account.task_properties(DiskContainers=[{"SnapshotId": disk_id}], DeleteAmi="true")
    task_id = task.create(given)["PhysicalResourceId"]
    ami = account.complete(task_id)

    assert task.delete()["Reason"] == ""

    assert account.ami(task_id) is None
    assert [snapshot["SnapshotId"] for snapshot in account.snapshots(ami)] == [disk_id]
