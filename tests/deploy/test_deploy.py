"""Images that are created, changed and deleted with the real CDK CLI."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from contract import ResourceType
from local_aws.client.cdk_cli import CdkCli, CdkError
from local_aws.client.environment import CHECKOUT
from tests.deploy.deployed import Account, StackView, numbers

if TYPE_CHECKING:
    from pathlib import Path


class Stack(StackView):
    """A stack of tests/deploy/app.py, from its creation to its deletion."""

    def __init__(self, account: Account, folder: Path) -> None:
        super().__init__(account, f"Stack{next(numbers)}")
        self._cdk = CdkCli(
            account.local, folder, app=f"{sys.executable} {CHECKOUT / 'tests/deploy/app.py'}"
        )
        self._images: dict[str, dict[str, Any]] = {}

    def image(self, **changes: Any) -> dict[str, Any]:
        """Arguments of an image that no other test has."""
        task = changes.get("vm_import_task_id") or self.account.import_image()
        name = f"{self.name.lower()}-{next(numbers)}"
        arguments = {"image_name": name, "semantic_version": "1.0.0", "vm_import_task_id": task}
        return {**arguments, **changes}

    def deploy(self, images: dict[str, dict[str, Any]], **context: str) -> dict[str, str]:
        """Deploy it with these images; return the ARN of each."""
        self._images = images
        outputs = self._cdk.deploy(stack=self.name, images=json.dumps(images), **context)
        return {
            image_id: next(v for k, v in outputs.items() if k.startswith(f"{image_id}ImageArn"))
            for image_id in images
        }

    def destroy(self) -> None:
        self._cdk.destroy(stack=self.name, images=json.dumps(self._images))


@pytest.fixture
def stack(account: Account, tmp_path: Path) -> Stack:
    """A stack that is not deployed yet."""
    return Stack(account, tmp_path)


def test_a_stack_is_created_changed_and_destroyed(stack: Stack, account: Account) -> None:
    image = stack.image(recipe="1.0.0", tags={"stage": "test"})
    arn = stack.deploy({"A": image})["A"]
    (recipe,) = stack.resources("AWS::ImageBuilder::ImageRecipe").values()
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


@pytest.mark.slow
def test_two_images_of_a_stack_share_one_function(stack: Stack, account: Account) -> None:
    first, second = stack.image(), stack.image()

    arns = stack.deploy({"A": first, "B": second})

    assert account.builds(first["image_name"]) == [arns["A"]]
    assert account.builds(second["image_name"]) == [arns["B"]]
    assert len(stack.resources("AWS::Lambda::Function")) == 1


def test_rollback_of_a_failed_update_keeps_the_original_image(
    stack: Stack, account: Account
) -> None:
    image = stack.image()
    arn = stack.deploy({"A": image})["A"]
    imports = account.imports(image["image_name"])

    with pytest.raises(CdkError):
        stack.deploy({"A": {**image, "semantic_version": "2.0.0"}}, fail="yes")

    assert stack.status() == "UPDATE_ROLLBACK_COMPLETE"
    assert account.builds(image["image_name"]) == [arn]
    assert list(stack.resources(ResourceType.IMAGE).values()) == [arn]
    assert account.imports(image["image_name"]) - imports == 1


def test_a_creation_that_another_resource_rolls_back_leaves_no_image(
    stack: Stack, account: Account
) -> None:
    image = stack.image(removal_policy="RETAIN_ON_UPDATE_OR_DELETE")

    with pytest.raises(CdkError):
        stack.deploy({"A": image}, fail="yes")

    assert stack.status() == "ROLLBACK_COMPLETE"
    assert account.builds(image["image_name"]) == []


def test_a_failed_import_task_fails_the_deployment_with_ec2s_reason(
    stack: Stack, account: Account
) -> None:
    task = account.import_image("absent.raw")
    stack.local.advance(3600)
    image = stack.image(vm_import_task_id=task)

    with pytest.raises(CdkError, match="ClientError: Disk validation failed"):
        stack.deploy({"A": image})

    assert f"(import task {task}, log group " in stack.failures()
    assert account.builds(image["image_name"]) == []


def test_an_error_of_image_builder_is_in_the_stack_event(stack: Stack) -> None:
    error = {"code": "ClientException", "message": "The moon is in the wrong phase.", "status": 400}
    stack.local.fault("imagebuilder", "ImportVmImage", error=error)

    with pytest.raises(CdkError):
        stack.deploy({"A": stack.image()})

    reasons = stack.failures()
    assert "ImportVmImage failed: ClientException: The moon is in the wrong phase" in reasons
    assert "(request id " in reasons


@pytest.mark.slow
def test_retained_images_exist_after_a_replacement_and_after_the_stack(
    stack: Stack, account: Account
) -> None:
    image = stack.image(removal_policy="RETAIN_ON_UPDATE_OR_DELETE")
    old = stack.deploy({"A": image})["A"]
    new = stack.deploy({"A": {**image, "semantic_version": "2.0.0"}})["A"]

    stack.destroy()

    assert sorted(account.builds(image["image_name"])) == sorted([old, new])


def test_the_log_of_the_function_names_the_calls_and_not_the_response_url(
    stack: Stack, account: Account
) -> None:
    stack.deploy({"A": stack.image()})

    (group,) = stack.resources("AWS::Logs::LogGroup").values()
    events = account.logs.filter_log_events(logGroupName=group)["events"]
    log = "\n".join(event["message"] for event in events)
    assert "ImportVmImage" in log
    assert "cfn-response" not in log
