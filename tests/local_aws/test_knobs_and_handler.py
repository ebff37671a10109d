"""The handler works with each value of each knob, so with each possible behaviour of AWS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from local_aws.server.knobs import Knobs
from tests.handler.conftest import (  # noqa: F401 - the handler's own fixtures
    authority,
    aws,
    knobs,
    local,
    prepared,
    resource,
    urls,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.handler.cloudformation import CustomResource
    from tests.handler.conftest import Aws

pytestmark = pytest.mark.slow

BOTH: dict[str, tuple[object, ...]] = {
    "import_seconds": (0, 600),
    "deleting_seconds": (0, 600),
    "image_watch_seconds": (0, 120),
    "cancel_seconds": (0, 120),
    "idempotency_seconds": (0, 86400),
    "idempotency_of_dead_image": ("replay", "import"),
    "idempotency_mismatch": ("refuse", "replay"),
    "unknown_task": ("refuse", "fail"),
    "cancel_import": ("cancel", "refuse"),
    "cancel_terminal_error": (
        "InvalidRequestException",
        "ResourceInUseException",
        "InvalidParameterValueException",
    ),
    "dependants_block_delete": (True, False),
    "unknown_image_version": ("empty", "not_found"),
    "tag_imported_ami": (True, False),
    "cancelled_task_message": ("Cancelled by user", ""),
    "snapshots_of_dead_import": ("keep", "delete"),
    "import_idempotency_seconds": (0, 86400),
}
EACH = [(knob, value) for knob, values in BOTH.items() for value in values]
# The knobs that affect a lost image.
OF_TOKENS = [(knob, value) for knob, value in EACH if knob.startswith("idempotency")]
IDS = [f"{knob}={value}" for knob, value in EACH]


def test_each_knob_is_tested() -> None:
    assert list(BOTH) == list(Knobs().as_dict())


@pytest.mark.parametrize(("knob", "value"), EACH, ids=IDS)
def test_a_resource_leaves_nothing_behind_with_any_knob(
    aws: Aws,  # noqa: F811
    resource: CustomResource,  # noqa: F811
    knobs: Callable[..., None],  # noqa: F811
    knob: str,
    value: object,
) -> None:
    knobs(**{"import_seconds": 120, knob: value})
    properties = aws.properties(Tags={"a": "1"})

    created = resource.create(properties)
    again = resource.create({**properties, "Tags": {"a": "2"}})
    assert [response["Status"] for response in (created, again)] == ["SUCCESS"] * 2, again["Reason"]
    assert created["PhysicalResourceId"] == again["PhysicalResourceId"]
    assert aws.all_images(resource) == [created["PhysicalResourceId"]]

    newer = resource.update({**properties, "SemanticVersion": "2.0.0"})
    assert newer["Status"] == "SUCCESS", newer["Reason"]
    assert resource.delete(created["PhysicalResourceId"], properties)["Status"] == "SUCCESS"
    assert aws.all_images(resource) == [newer["PhysicalResourceId"]]

    assert resource.delete()["Status"] == "SUCCESS"
    assert aws.all_images(resource) == []


@pytest.mark.parametrize(("knob", "value"), OF_TOKENS)
def test_a_lost_image_is_created_again_with_any_knob(
    aws: Aws,  # noqa: F811
    resource: CustomResource,  # noqa: F811
    knobs: Callable[..., None],  # noqa: F811
    knob: str,
    value: object,
) -> None:
    properties = aws.properties()
    aws.local.advance(3600)
    knobs(**{"image_watch_seconds": 0, knob: value})
    lost = resource.create(properties)["PhysicalResourceId"]
    aws.local.advance(3600)
    aws.delete(lost)

    response = resource.create(properties)

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert aws.all_images(resource) == [response["PhysicalResourceId"]]
    assert response["PhysicalResourceId"] != lost


@pytest.mark.parametrize("value", BOTH["unknown_task"])
def test_unknown_task_is_reported_with_either_value(
    aws: Aws,  # noqa: F811
    resource: CustomResource,  # noqa: F811
    knobs: Callable[..., None],  # noqa: F811
    value: str,
) -> None:
    knobs(unknown_task=value)
    response = resource.create(aws.properties(VmImportTaskId="import-ami-0123456789abcdef0"))
    assert response["Status"] == "FAILED"
    assert "EC2 does not know the import task import-ami-0123456789abcdef0" in response["Reason"]
    assert aws.all_images(resource) == []


@pytest.mark.parametrize("code", BOTH["cancel_terminal_error"])
def test_cancel_terminal_error_of_an_ended_import_is_no_failure(
    aws: Aws,  # noqa: F811
    resource: CustomResource,  # noqa: F811
    knobs: Callable[..., None],  # noqa: F811
    code: str,
) -> None:
    knobs(import_seconds=120)
    assert resource.create(aws.properties())["Status"] == "SUCCESS"
    ended = {"code": code, "message": "The image is AVAILABLE and cannot be cancelled."}
    aws.local.fault("imagebuilder", "CancelImageCreation", error=ended)
    assert resource.delete()["Status"] == "SUCCESS"
    assert aws.all_images(resource) == []


@pytest.mark.parametrize("blocks", BOTH["dependants_block_delete"])
def test_dependants_block_delete_is_reported_or_has_no_effect(
    aws: Aws,  # noqa: F811
    resource: CustomResource,  # noqa: F811
    knobs: Callable[..., None],  # noqa: F811
    *,
    blocks: bool,
) -> None:
    knobs(dependants_block_delete=blocks)
    arn = resource.create(aws.properties())["PhysicalResourceId"]
    aws.local.advance(3600)
    aws.recipe(arn)
    response = resource.delete()
    if blocks:
        assert response["Status"] == "FAILED"
        assert "has other resources depended on it" in response["Reason"]
    else:
        assert response["Status"] == "SUCCESS"


@pytest.mark.parametrize("message", BOTH["cancelled_task_message"])
def test_cancelled_task_message_is_reported(
    aws: Aws,  # noqa: F811
    resource: CustomResource,  # noqa: F811
    knobs: Callable[..., None],  # noqa: F811
    message: str,
) -> None:
    knobs(cancelled_task_message=message)
    properties = aws.properties()
    ec2: Any = aws.local.session().client("ec2")
    ec2.cancel_import_task(ImportTaskId=properties["VmImportTaskId"])
    response = resource.create(properties)
    assert response["Status"] == "FAILED"
    assert (message or "EC2 gives no reason") in response["Reason"]
