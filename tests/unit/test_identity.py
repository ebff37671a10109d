"""Owners, idempotency tokens and placeholders."""

from __future__ import annotations

import uuid

import pytest

from aws.ec2 import ImportTask
from contract import ImageProperty, OwnTag
from identity import MAX_TOKENS, Lookup, Owner, Placeholder, Record, tokens_of

OWNER = Owner("arn:aws:cloudformation:us-east-1:000000000000:stack/images/1f", "GoldenImageF00D")
IDENTITY: dict[str, str] = {ImageProperty.NAME: "rhel9", ImageProperty.SEMANTIC_VERSION: "1.0.0"}
TAGS = {OwnTag.STACK.value: OWNER.stack_id, OwnTag.RESOURCE.value: OWNER.logical_id}


def test_tokens_are_different_uuids() -> None:
    tokens = tokens_of(OWNER, IDENTITY)

    assert [str(uuid.UUID(token)) for token in tokens] == list(tokens)
    assert len(set(tokens)) == MAX_TOKENS == 5


def test_tokens_do_not_depend_on_the_order_of_the_identity() -> None:
    assert tokens_of(OWNER, dict(reversed(IDENTITY.items()))) == tokens_of(OWNER, IDENTITY)


@pytest.mark.parametrize(
    "owner", [Owner(OWNER.stack_id, "Other"), Owner("other", OWNER.logical_id)]
)
def test_another_resource_has_other_tokens(owner: Owner) -> None:
    assert not set(tokens_of(owner, IDENTITY)) & set(tokens_of(OWNER, IDENTITY))


def test_another_identity_has_other_tokens() -> None:
    other = {**IDENTITY, ImageProperty.SEMANTIC_VERSION: "1.0.1"}

    assert not set(tokens_of(OWNER, other)) & set(tokens_of(OWNER, IDENTITY))


def test_a_placeholder_leads_to_the_same_lookup() -> None:
    lookup = Lookup("rhel9/1.0.0", tokens_of(OWNER, IDENTITY))

    physical_id = lookup.placeholder("20261124T031500Z-request")
    assert physical_id == f"rhel9/1.0.0/{lookup.tokens[0]}/20261124T031500Z-request"
    assert Placeholder.read(physical_id) == Placeholder(lookup, "20261124T031500Z-request")


@pytest.mark.parametrize(
    "record", [Record("token"), Record("token", "1-2-3", "first"), Record("token", "", "a", "b")]
)
def test_a_record_survives_its_tag(record: Record) -> None:
    existing = ImportTask("import-ami-0123456789abcdef0", "active", record.tag)

    assert existing.record == record
    assert record.tag[OwnTag.TOKEN].startswith("token")


def test_the_last_event_that_used_an_image_is_the_one_that_it_belongs_to() -> None:
    assert Record("token", "", "a", "b").belongs_to == "b"
    assert Record("token", "", "a").belongs_to == "a"


@pytest.mark.parametrize(
    "physical_id",
    [
        "",
        "images-GoldenImage-1ABCDEFGHIJKL",
        "2026/11/23/[$LATEST]0123456789abcdef",
        "c91417b0-0e8f-5788-95f7-291b677d437f",
        "arn:aws:imagebuilder:us-east-1:000000000000:image/rhel9/1.0.0/1",
        "import-ami-0123456789abcdef0",
    ],
)
def test_other_physical_ids_are_no_placeholders(physical_id: str) -> None:
    assert Placeholder.read(physical_id) is None


@pytest.mark.parametrize(
    ("tags", "owns", "is_another"),
    [
        (TAGS, True, False),
        ({**TAGS, "team": "images"}, True, False),
        ({}, False, False),
        ({OwnTag.STACK.value: OWNER.stack_id}, False, False),
        ({**TAGS, OwnTag.RESOURCE.value: "Other"}, False, True),
        ({OwnTag.STACK.value: "other"}, False, True),
    ],
)
def test_an_owner_recognises_its_own_by_both_tags(
    tags: dict[str, str], *, owns: bool, is_another: bool
) -> None:
    assert OWNER.owns(tags) is owns
    assert OWNER.is_another(tags) is is_another
