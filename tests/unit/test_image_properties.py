"""The properties of an image, and what is derived from them; most of it is a public contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contract import IMAGE_BUILD_ARN, LOG_GROUP_NAME, ImageProperty, OwnTag
from errors import PropertyError
from identity import Owner, Placeholder
from image.properties import ImageProperties
from tests.support.properties import checked

FIXTURES = sorted((Path(__file__).parents[1] / "support" / "fixtures").glob("properties-*.json"))
OWNER = Owner("arn:aws:cloudformation:us-east-1:000000000000:stack/images/1f", "GoldenImageF00D")
PROPERTIES: dict[str, Any] = {
    "ServiceToken": "arn:aws:lambda:us-east-1:000000000000:function:f",
    ImageProperty.NAME: "RHEL 9_golden",
    ImageProperty.SEMANTIC_VERSION: "1.0.0",
    ImageProperty.PLATFORM: "Linux",
    ImageProperty.VM_IMPORT_TASK_ID: "import-ami-0123456789abcdef0",
    ImageProperty.DESCRIPTION: "d",
    ImageProperty.OS_VERSION: "RHEL 9",
    ImageProperty.LOGGING_CONFIGURATION: {LOG_GROUP_NAME: "/aws/imagebuilder/rhel9"},
    ImageProperty.TAGS: {"team": "images"},
}


def read(**changes: Any) -> ImageProperties:
    changed = {**PROPERTIES, **checked(ImageProperty, changes)}
    return ImageProperties.read({name: v for name, v in changed.items() if v is not None})


def test_the_tokens_of_a_deployed_image_never_change() -> None:
    assert read().lookup(OWNER).tokens == (
        "c91417b0-0e8f-5788-95f7-291b677d437f",
        "3d48c072-ba42-5d8f-9c7e-3aa2f38e7cd5",
        "11faab71-ec18-52b0-a2fa-dded930a9e62",
        "b166bbfe-a920-507c-982c-841af5f5e031",
        "1c582683-4062-59af-8fd6-e3711eb221ff",
    )


def test_the_placeholder_of_a_deployed_image_never_changes() -> None:
    lookup = read().lookup(OWNER)

    physical_id = lookup.placeholder("the-event")
    assert physical_id == "rhel-9-golden/1.0.0/c91417b0-0e8f-5788-95f7-291b677d437f/the-event"
    assert Placeholder.read(physical_id) == Placeholder(lookup, "the-event")


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov", "aws-iso-b"])
def test_the_arn_of_a_build_is_recognised_in_every_partition(partition: str) -> None:
    arn = f"arn:{partition}:imagebuilder:us-east-1:000000000000:image/rhel-9-golden/1.0.0"

    assert IMAGE_BUILD_ARN.fullmatch(f"{arn}/12")
    assert not IMAGE_BUILD_ARN.fullmatch(arn)


@pytest.mark.parametrize(
    "change",
    [
        {ImageProperty.NAME: "other"},
        {ImageProperty.SEMANTIC_VERSION: "1.0.1"},
        {ImageProperty.PLATFORM: "Windows"},
        {ImageProperty.VM_IMPORT_TASK_ID: "import-ami-1"},
        {ImageProperty.DESCRIPTION: None},
        {ImageProperty.OS_VERSION: "RHEL 10"},
        {ImageProperty.LOGGING_CONFIGURATION: None},
        {ImageProperty.CLIENT_TOKEN: "mine"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_identity_has_other_tokens(change: dict[str, Any]) -> None:
    other = read(**change)

    assert other.identity != read().identity
    assert not set(other.lookup(OWNER).tokens) & set(read().lookup(OWNER).tokens)


@pytest.mark.parametrize(
    "name",
    [
        ImageProperty.TAGS,
        ImageProperty.STATE_MACHINE_ARN,
        ImageProperty.TIMEOUT_SECONDS,
        ImageProperty.CONTINUE_AFTER_TIMEOUT,
        ImageProperty.DELETE_AMI,
        ImageProperty.RETAIN,
        "FromTheFuture",
    ],
)
def test_other_properties_are_not_part_of_the_identity(name: str) -> None:
    value = {"team": "other"} if name == ImageProperty.TAGS else "1"

    assert ImageProperties.read({**PROPERTIES, name: value}).lookup(OWNER) == read().lookup(OWNER)


def test_the_client_token_of_the_user_is_sent_as_it_is() -> None:
    request = read(ClientToken="my token").request(OWNER, "token")

    assert request["clientToken"] == "my token"
    assert request["tags"][OwnTag.TOKEN] == "token"


def test_the_request_has_the_tags_of_template_and_resource() -> None:
    assert read().request(OWNER, "token")["tags"] == {
        "team": "images",
        OwnTag.STACK: OWNER.stack_id,
        OwnTag.RESOURCE: OWNER.logical_id,
        OwnTag.TOKEN: "token",
    }


def test_the_request_has_only_what_is_given() -> None:
    names = [
        ImageProperty.NAME,
        ImageProperty.SEMANTIC_VERSION,
        ImageProperty.PLATFORM,
        ImageProperty.VM_IMPORT_TASK_ID,
    ]
    properties = ImageProperties.read({name: PROPERTIES[name] for name in names})

    assert sorted(properties.request(OWNER, "t")) == [
        "clientToken",
        "name",
        "platform",
        "semanticVersion",
        "tags",
        "vmImportTaskId",
    ]


def test_all_missing_properties_are_named() -> None:
    with pytest.raises(
        PropertyError, match=f"{ImageProperty.PLATFORM}, {ImageProperty.VM_IMPORT_TASK_ID}"
    ):
        ImageProperties.read({ImageProperty.NAME: "rhel9", ImageProperty.SEMANTIC_VERSION: "1.0.0"})


def test_all_properties_of_a_wrong_type_are_named() -> None:
    with pytest.raises(
        PropertyError, match=f"wrong type: {ImageProperty.OS_VERSION}, {ImageProperty.TAGS}"
    ):
        read(OsVersion=["RHEL 9"], Tags=["team"])


def test_a_reserved_tag_key_is_refused() -> None:
    with pytest.raises(PropertyError, match=OwnTag.STACK):
        read(Tags={OwnTag.STACK: "x"})


@pytest.mark.parametrize(
    "change",
    [{ImageProperty.NAME: "no/name"}, {ImageProperty.SEMANTIC_VERSION: "1.0"}],
    ids=lambda change: next(iter(change)),
)
def test_a_name_and_a_version_have_the_form_that_image_builder_accepts(
    change: dict[str, str],
) -> None:
    ((name, value),) = change.items()

    with pytest.raises(PropertyError, match=f"{name} {value!r}"):
        read(**change)


def test_properties_without_a_known_form_are_none() -> None:
    assert ImageProperties.read_known({ImageProperty.NAME: "rhel9"}) is None
    assert ImageProperties.read_known(PROPERTIES) == read()


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_the_properties_of_every_release_are_understood(fixture: Path) -> None:
    properties = json.loads(fixture.read_text())

    image = ImageProperties.read(properties)

    assert image.is_retained
    assert not image.delete_ami
    assert image.lookup(OWNER).tokens[0] == "6c21d14c-c068-5bdf-b1fb-436307b721da"
