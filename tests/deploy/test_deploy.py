"""The main job: the real CDK CLI deploys to the AWS on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from local_aws.client.cdk_cli import CdkError

if TYPE_CHECKING:
    from tests.deploy.conftest import Account, Stack


def test_a_stack_lives_from_deploy_to_destroy(stack: Stack, account: Account) -> None:
    image = stack.image(recipe="1.0.0", tags={"stage": "test"})
    arn = stack.deploy({"A": image})["A"]
    (recipe,) = stack.resources()["AWS::ImageBuilder::ImageRecipe"]
    parent = account.images.get_image_recipe(imageRecipeArn=recipe)["imageRecipe"]["parentImage"]
    assert parent == arn
    assert account.builds(image["image_name"]) == [arn]

    image["tags"] = {"stage": "live"}
    assert stack.deploy({"A": image})["A"] == arn
    assert (account.image(arn) or {})["tags"]["stage"] == "live"

    image |= {"semantic_version": "2.0.0", "recipe": "2.0.0"}
    newer = stack.deploy({"A": image})["A"]
    assert account.builds(image["image_name"]) == [newer]

    stack.destroy()
    assert account.builds(image["image_name"]) == []


def test_two_images_of_a_stack_share_one_function(stack: Stack, account: Account) -> None:
    first, second = stack.image(), stack.image()

    arns = stack.deploy({"A": first, "B": second})

    assert account.builds(first["image_name"]) == [arns["A"]]
    assert account.builds(second["image_name"]) == [arns["B"]]
    assert len(stack.resources()["AWS::Lambda::Function"]) == 1


def test_a_failed_update_rolls_back_to_the_very_image(stack: Stack, account: Account) -> None:
    image = stack.image()
    arn = stack.deploy({"A": image})["A"]
    imports = len(stack.local.calls("ImportVmImage"))

    with pytest.raises(CdkError):
        stack.deploy({"A": {**image, "semantic_version": "2.0.0"}}, fail="yes")

    assert stack.status() == "UPDATE_ROLLBACK_COMPLETE"
    assert account.builds(image["image_name"]) == [arn]
    assert stack.resources()["Custom::ImportedVmImage"] == [arn]
    assert len(stack.local.calls("ImportVmImage")) - imports == 1


def test_a_create_that_fails_elsewhere_leaves_no_image(stack: Stack, account: Account) -> None:
    image = stack.image(removal_policy="RETAIN_ON_UPDATE_OR_DELETE")

    with pytest.raises(CdkError):
        stack.deploy({"A": image}, fail="yes")

    assert stack.status() == "ROLLBACK_COMPLETE"
    assert account.builds(image["image_name"]) == []


def test_a_failed_task_fails_the_deploy_with_ec2s_reason(stack: Stack, account: Account) -> None:
    task = account.import_image("absent.raw")
    stack.local.advance(3600)
    image = stack.image(vm_import_task_id=task)

    with pytest.raises(CdkError, match="ClientError: Disk validation failed"):
        stack.deploy({"A": image})

    assert any(f"the import task {task} is deleted" in reason for reason in stack.failures())
    assert account.builds(image["image_name"]) == []


def test_an_error_of_the_api_is_told_in_the_stack_event(stack: Stack) -> None:
    error = {"code": "ClientException", "message": "The moon is in the wrong phase.", "status": 400}
    stack.local.fault("imagebuilder", "ImportVmImage", error=error)

    with pytest.raises(CdkError):
        stack.deploy({"A": stack.image()})

    (reason,) = [text for text in stack.failures() if "ImportVmImage" in text]
    assert "ClientException: The moon is in the wrong phase. (request id " in reason


def test_retained_images_outlive_replacement_and_stack(stack: Stack, account: Account) -> None:
    image = stack.image(removal_policy="RETAIN_ON_UPDATE_OR_DELETE")
    old = stack.deploy({"A": image})["A"]
    new = stack.deploy({"A": {**image, "semantic_version": "2.0.0"}})["A"]

    stack.destroy()

    assert sorted(account.builds(image["image_name"])) == sorted([old, new])


def test_the_functions_log_tells_the_steps_and_not_the_response_url(
    stack: Stack, account: Account
) -> None:
    stack.deploy({"A": stack.image()})

    (group,) = stack.resources()["AWS::Logs::LogGroup"]
    events = account.logs.filter_log_events(logGroupName=group)["events"]
    log = "\n".join(event["message"] for event in events)
    assert "ImportVmImage" in log
    assert "cfn-response" not in log
