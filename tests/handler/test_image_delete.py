"""Delete events of Custom::ImportedVmImage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contract import ImageProperty
from tests.support.account import IMPORT
from tests.support.aws import ROLLS_BACK

if TYPE_CHECKING:
    from tests.support.account import Account
    from tests.support.aws import Aws
    from tests.support.cloudformation import CustomResource

INVENTED = "images-GoldenImage-1ABCDEFGHIJKL"


def test_a_running_import_is_cancelled_and_then_deleted(
    account: Account, image: CustomResource
) -> None:
    arn = image.create(account.properties())["PhysicalResourceId"]
    assert account.image(arn)["state"]["status"] == "PENDING"

    response = image.delete()

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert response["PhysicalResourceId"] == arn
    assert account.images_of(image) == []
    operations = account.operations_on(arn)
    assert [o for o in operations if o in {"CancelImageCreation", "DeleteImage"}] == [
        "CancelImageCreation",
        "DeleteImage",
    ]


def test_an_available_image_is_deleted_at_once(account: Account, image: CustomResource) -> None:
    arn = image.create(account.properties())["PhysicalResourceId"]
    account.advance(IMPORT)

    assert image.delete()["Status"] == "SUCCESS"

    assert account.images_of(image) == []
    assert "CancelImageCreation" not in account.operations_on(arn)


def test_deleting_an_image_that_is_gone_succeeds(account: Account, image: CustomResource) -> None:
    image.create(account.properties())
    image.delete()

    assert image.delete()["Status"] == "SUCCESS"


def test_the_image_of_a_create_that_was_cancelled_is_found_by_its_token(
    account: Account, image: CustomResource
) -> None:
    image.create(account.properties())

    response = image.send(image.delete_event(INVENTED) | ROLLS_BACK)

    assert response["Status"] == "SUCCESS"
    assert response["PhysicalResourceId"] == INVENTED
    assert account.images_of(image) == []


def test_the_image_of_another_resource_is_never_deleted(
    account: Account, image: CustomResource, other_image: CustomResource
) -> None:
    properties = account.properties()
    image.create(properties)
    theirs = other_image.create(properties)["PhysicalResourceId"]

    image.send(image.delete_event(INVENTED) | ROLLS_BACK)
    image.delete(theirs)

    assert account.images_of(image) == []
    assert account.images_of(other_image) == [theirs]


def test_a_delete_with_properties_that_no_release_ever_sent_succeeds(
    account: Account, image: CustomResource
) -> None:
    properties: dict[str, Any] = {
        ImageProperty.NAME: "rhel9",
        ImageProperty.STATE_MACHINE_ARN: account.properties()[ImageProperty.STATE_MACHINE_ARN],
    }

    assert image.delete(INVENTED, properties)["Status"] == "SUCCESS"


def test_an_image_that_a_recipe_uses_is_not_deleted_and_the_reason_says_why(
    account: Account, image: CustomResource
) -> None:
    arn = image.create(account.properties())["PhysicalResourceId"]
    account.advance(IMPORT)
    account.add_recipe(arn)

    response = image.delete()

    assert response["Status"] == "FAILED"
    assert "ResourceDependencyException" in response["Reason"]
    assert "Hint: another resource, such as an image recipe" in response["Reason"]
    assert account.images_of(image) == [arn]


def test_a_deletion_waits_for_the_cancellation_between_the_steps_and_not_in_the_function(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    account.knobs(cancel_seconds=2000.0)
    arn = image.create(account.properties())["PhysicalResourceId"]
    execution = image.start(image.delete_event(arn))
    start = aws.now()

    aws.step(execution)

    assert aws.now() - start <= 120
    assert execution.is_running
    assert execution.seconds > 0
    aws.work(lambda: not execution.is_running)
    assert image.responses()[-1]["Status"] == "SUCCESS", image.responses()[-1]["Reason"]
    assert account.images_of(image) == []


def test_a_deletion_that_takes_too_long_fails_before_cloudformation_stops_waiting(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    account.knobs(cancel_seconds=1e6)
    execution = image.start(image.create_event(account.waiting(timeout=60)))
    aws.step(execution)
    aws.sleep(10)
    start = aws.now()

    response = image.send(image.delete_event(execution.image))

    assert response["Status"] == "FAILED"
    assert "is still being cancelled" in response["Reason"]
    assert execution.status == "ABORTED"
    assert 600 < aws.now() - start < 900
