"""What follows from the properties alone; most of it is public contract."""

from __future__ import annotations

import dataclasses
import uuid

import pytest
from image_properties import ImageProperties, Owner, Sought, generations, is_image_arn

from errors import PropertyError

OWNER = Owner("arn:aws:cloudformation:us-east-1:000000000000:stack/images/1f", "GoldenImageF00D")
PROPERTIES = {
    "ServiceToken": "arn:aws:lambda:us-east-1:000000000000:function:f",
    "Name": "RHEL 9_golden",
    "SemanticVersion": "1.0.0",
    "Platform": "Linux",
    "VmImportTaskId": "import-ami-0123456789abcdef0",
    "Description": "d",
    "OsVersion": "RHEL 9",
    "LoggingConfiguration": {"LogGroupName": "/aws/imagebuilder/rhel9"},
    "Tags": {"team": "images"},
}
IMAGE = ImageProperties.parse(PROPERTIES)


def test_the_token_of_a_deployed_image_never_changes() -> None:
    assert IMAGE.tokens(OWNER) == (
        "c91417b0-0e8f-5788-95f7-291b677d437f",
        "3d48c072-ba42-5d8f-9c7e-3aa2f38e7cd5",
        "11faab71-ec18-52b0-a2fa-dded930a9e62",
        "b166bbfe-a920-507c-982c-841af5f5e031",
        "1c582683-4062-59af-8fd6-e3711eb221ff",
    )


def test_a_token_is_a_uuid_of_36_characters() -> None:
    assert [str(uuid.UUID(token)) for token in IMAGE.tokens(OWNER)] == list(IMAGE.tokens(OWNER))


def test_the_placeholder_id_of_a_deployed_image_never_changes() -> None:
    assert IMAGE.placeholder(OWNER) == "rhel-9-golden/1.0.0/c91417b0-0e8f-5788-95f7-291b677d437f"


def test_a_placeholder_finds_all_generations_of_its_image() -> None:
    assert Sought.by_placeholder(IMAGE.placeholder(OWNER)) == Sought.by_properties(IMAGE, OWNER)


@pytest.mark.parametrize(
    "physical_id", ["images-GoldenImage-1ABCDEFGHIJKL", "", "2026/11/23/[$LATEST]0123456789abcdef"]
)
def test_an_id_that_cloudformation_invents_is_neither_arn_nor_placeholder(physical_id: str) -> None:
    assert not is_image_arn(physical_id)
    assert Sought.by_placeholder(physical_id) is None


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov", "aws-iso-b"])
def test_the_arn_of_a_build_is_one_in_every_partition(partition: str) -> None:
    image = f"arn:{partition}:imagebuilder:us-east-1:000000000000:image/rhel-9-golden/1.0.0"

    assert is_image_arn(f"{image}/12")
    assert not is_image_arn(image)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"semantic_version": "1.0.1"},
        {"platform": "Windows"},
        {"vm_import_task_id": "import-ami-1"},
        {"description": None},
        {"os_version": "RHEL 10"},
        {"log_group_name": None},
        {"client_token": "mine"},
    ],
)
def test_another_identity_has_another_token(change: dict[str, str | None]) -> None:
    other = dataclasses.replace(IMAGE, **change)  # type: ignore[arg-type]

    assert other.identity != IMAGE.identity
    assert not set(other.tokens(OWNER)) & set(IMAGE.tokens(OWNER))


def test_tags_are_no_part_of_the_identity() -> None:
    other = dataclasses.replace(IMAGE, tags={"team": "other"})

    assert other.tokens(OWNER) == IMAGE.tokens(OWNER)


@pytest.mark.parametrize(
    "owner", [Owner(OWNER.stack_id, "Other"), Owner("other", "GoldenImageF00D")]
)
def test_another_resource_has_another_token(owner: Owner) -> None:
    assert not set(IMAGE.tokens(owner)) & set(IMAGE.tokens(OWNER))


def test_a_client_token_that_the_user_gave_is_used_as_it_is() -> None:
    image = dataclasses.replace(IMAGE, client_token="my token")
    token, *_ = image.tokens(OWNER)

    request = image.request(OWNER, token)

    assert request["clientToken"] == "my token"
    assert request["tags"]["cdk-vm-import:token"] == token


def test_generations_do_not_repeat() -> None:
    assert len(set(generations("first"))) == 5


def test_an_unknown_property_is_passed_over() -> None:
    assert ImageProperties.parse({**PROPERTIES, "FromTheFuture": "x"}) == IMAGE


def test_all_missing_properties_are_named() -> None:
    with pytest.raises(PropertyError, match="Platform, VmImportTaskId"):
        ImageProperties.parse({"Name": "rhel9", "SemanticVersion": "1.0.0"})


def test_a_tag_that_would_replace_our_own_is_refused() -> None:
    with pytest.raises(PropertyError, match=r"cdk-vm-import:stack"):
        ImageProperties.parse({**PROPERTIES, "Tags": {"cdk-vm-import:stack": "x"}})


def test_the_request_has_nothing_that_was_not_given() -> None:
    names = ["Name", "SemanticVersion", "Platform", "VmImportTaskId"]
    image = ImageProperties.parse({name: PROPERTIES[name] for name in names})

    assert sorted(image.request(OWNER, "t")) == [
        "clientToken",
        "name",
        "platform",
        "semanticVersion",
        "tags",
        "vmImportTaskId",
    ]
