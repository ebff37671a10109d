from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_logs as logs
from hypothesis import example, given
from hypothesis import strategies as st

from cdk_vm_import import VmImportProvider, _validation
from contract import LOG_GROUP_NAME, ImageProperty, OwnTag, ResourceType

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.construct.conftest import ImportImage


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"image_name": "ab"}, "image_name 'ab' is not valid: use 3 to 128 letters, digits, "),
        ({"image_name": "x" * 129}, "hyphens, underscores or inner spaces."),
        ({"image_name": " golden"}, "image_name ' golden' is not valid"),
        ({"image_name": "golden!"}, "image_name 'golden!' is not valid"),
        ({"image_name": "golden\n"}, r"image_name 'golden\n' is not valid"),
        ({"image_name": 5}, "image_name 5 is not a string: use a str."),
        ({"semantic_version": "1.0"}, "semantic_version '1.0' is not valid: use X.Y.Z"),
        ({"semantic_version": "1.0.0.0"}, "semantic_version '1.0.0.0' is not valid"),
        ({"semantic_version": "v1.0.0"}, "semantic_version 'v1.0.0' is not valid"),
        ({"semantic_version": "1.0.x"}, "semantic_version '1.0.x' is not valid"),
        ({"semantic_version": "1.0.-1"}, "semantic_version '1.0.-1' is not valid"),
        ({"semantic_version": "1.0.٣"}, "semantic_version '1.0.٣' is not valid"),
        ({"semantic_version": "1.0.0\n"}, r"semantic_version '1.0.0\n' is not valid"),
        ({"semantic_version": "01.0.0"}, "without leading zeros, such as '1.0.0'."),
        ({"semantic_version": "1.0.1073741824"}, "whole numbers from 0 to 1073741823"),
        ({"semantic_version": 1.0}, "semantic_version 1.0 is not a string"),
        ({"platform": "Linux"}, "platform 'Linux' is not a Platform: use Platform.WINDOWS, "),
        ({"vm_import_task_id": "ami-0123456789abcdef0"}, "is not the id of an ImportImage task"),
        ({"vm_import_task_id": "import-ami-"}, "use import-ami- and 8 to 17 hexadecimal digits"),
        ({"vm_import_task_id": "import-ami-0123456789ABCDEF0"}, "is not the id of an ImportImage"),
        ({"vm_import_task_id": "import-snap-0123456789abcdef0"}, "accepts only ImportImage tasks"),
        ({"vm_import_task_id": None}, "vm_import_task or vm_import_task_id is required"),
        ({"description": ""}, "description has 0 characters: use 1 to 1024, or leave it out."),
        ({"description": "x" * 1025}, "description has 1025 characters: use 1 to 1024"),
        ({"os_version": ""}, "os_version has 0 characters"),
        ({"os_version": 9}, "os_version 9 is not a string"),
        ({"client_token": ""}, "client_token has 0 characters: use 1 to 36"),
        ({"client_token": "x" * 37}, "client_token has 37 characters: use 1 to 36"),
        ({"tags": ["a"]}, "tags ['a'] is not a mapping"),
        ({"tags": {str(n): "" for n in range(47)}}, "tags has 47 entries: use at most 46."),
        ({"tags": {"": "x"}}, "tag key '' is not valid"),
        ({"tags": {"x" * 129: "x"}}, "use 1 to 128 letters"),
        ({"tags": {"a,b": "x"}}, "tag key 'a,b' is not valid"),
        ({"tags": {"aws:x": "x"}}, "tag key 'aws:x' has a reserved prefix"),
        ({"tags": {"AWS:x": "x"}}, "tag key 'AWS:x' has a reserved prefix"),
        ({"tags": {OwnTag.STACK: "x"}}, "use a key that does not start with aws: or"),
        ({"tags": {"a": "x" * 257}}, "tag 'a' has a value of 257 characters: use at most 256."),
        ({"tags": {"a": 1}}, "value of tag 'a': 1 is not a string"),
        ({"removal_policy": cdk.RemovalPolicy.SNAPSHOT}, "removal_policy SNAPSHOT is not possible"),
    ],
)
def test_an_error_names_the_construct_the_invalid_value_and_what_is_allowed(
    stack: cdk.Stack, import_image: ImportImage, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)) as raised:
        import_image(stack, **arguments)

    assert all(line.startswith("Stack/Image: ") for line in str(raised.value).splitlines())


@pytest.mark.parametrize(
    "arguments",
    [
        {"image_name": "abc"},
        {"image_name": "-" + "x y_z-" * 21 + "_"},
        {"semantic_version": "0.0.0"},
        {"semantic_version": "1073741823.1073741823.1073741823"},
        {"vm_import_task_id": "import-ami-0a1b2c3d"},
        {"description": "x" * 1024},
        {"os_version": "Red Hat Enterprise Linux 9.4 (Plow)"},
        {"client_token": "x" * 36},
        {"tags": {}},
        {"tags": {f"team {n}_.:/=+-@": "ü, ö" * 64 for n in range(46)}},
        {"tags": {"awsome": "x", "cdk-vm-importer": "x"}},
    ],
)
def test_values_that_image_builder_accepts_are_accepted(
    stack: cdk.Stack, import_image: ImportImage, arguments: dict[str, Any]
) -> None:
    import_image(stack, **arguments)

    assertions.Template.from_stack(stack).resource_count_is(ResourceType.IMAGE, 1)


def test_an_error_lists_all_problems_of_an_image(
    stack: cdk.Stack, new_stack: Callable[[], cdk.Stack], import_image: ImportImage
) -> None:
    with pytest.raises(ValueError, match=r"^Stack/Image: ") as raised:
        import_image(
            stack,
            image_name="x",
            semantic_version="1",
            platform=None,
            vm_import_task_id="x",
            description="",
            os_version="",
            log_group=logs.LogGroup(stack, "Log"),
            tags={"aws:a": "x", "b": "x" * 257},
            client_token="",
            removal_policy=cdk.RemovalPolicy.SNAPSHOT,
            provider=VmImportProvider(new_stack(), "Elsewhere"),
        )

    lines = str(raised.value).splitlines()
    assert [line.removeprefix("Stack/Image: ").split()[0] for line in lines] == [
        "image_name",
        "semantic_version",
        "platform",
        "vm_import_task_id",
        "description",
        "os_version",
        "log_group",
        "tag",
        "tag",
        "client_token",
        "removal_policy",
        "provider",
    ]


def test_an_image_with_problems_adds_nothing_to_the_stack(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    with pytest.raises(ValueError, match="semantic_version"):
        import_image(stack, semantic_version="1.0")

    assert stack.node.children == []


def test_a_log_group_with_another_prefix_than_aws_imagebuilder_is_refused(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    log_group = logs.LogGroup.from_log_group_name(stack, "Log", "/golden")

    with pytest.raises(ValueError, match=r"log_group '/golden' is not valid.* /aws/imagebuilder/"):
        import_image(stack, log_group=log_group)


def test_the_name_of_a_log_group_of_this_app_is_checked(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    log_group = logs.LogGroup(stack, "Log", log_group_name="/golden")

    with pytest.raises(ValueError, match=r"log_group '/golden' is not valid.* /aws/imagebuilder/"):
        import_image(stack, log_group=log_group)


def test_a_log_group_with_a_generated_name_is_refused(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    log_group = logs.LogGroup(stack, "Log")

    with pytest.raises(ValueError, match="log_group has no log_group_name"):
        import_image(stack, log_group=log_group)


def test_a_log_group_with_a_token_as_name_is_accepted(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    name = cdk.CfnParameter(stack, "Name").value_as_string
    import_image(stack, log_group=logs.LogGroup.from_log_group_name(stack, "Log", name))

    assertions.Template.from_stack(stack).has_resource_properties(
        ResourceType.IMAGE, {ImageProperty.LOGGING_CONFIGURATION: {LOG_GROUP_NAME: {"Ref": "Name"}}}
    )


def test_a_provider_of_another_stack_is_refused(
    app: cdk.App, stack: cdk.Stack, import_image: ImportImage
) -> None:
    provider = VmImportProvider(cdk.Stack(app, "Other"), "Provider")

    with pytest.raises(ValueError, match="provider Other/Provider belongs to another stack"):
        import_image(stack, provider=provider)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("aws:team", "x", "tag key 'aws:team' has a reserved prefix"),
        (OwnTag.TOKEN, "x", f"tag key '{OwnTag.TOKEN}' has a reserved prefix"),
        ("team", "x" * 257, "tag 'team' has a value of 257 characters"),
    ],
)
def test_tags_that_are_added_later_are_checked_at_synthesis(
    app: cdk.App,
    stack: cdk.Stack,
    import_image: ImportImage,
    key: str,
    value: str,
    problem: str,
) -> None:
    import_image(stack)
    cdk.Tags.of(app).add(key, value)

    with pytest.raises(RuntimeError, match=re.escape(f"[Stack/Image] {problem}")):
        app.synth()


def test_the_tags_of_the_argument_and_of_scopes_are_counted_together(
    app: cdk.App, stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack, tags={str(number): "" for number in range(46)})
    cdk.Tags.of(app).add("one more", "")

    with pytest.raises(RuntimeError, match="tags has 47 entries: use at most 46"):
        app.synth()


# Characters of every kind, with some that a careless pattern accepts.
texts = st.text(st.sampled_from("aZ0-_ .x:/ü٣\n"), max_size=12)


@given(texts)
@example("golden\n")
def test_image_names_are_accepted_if_the_model_accepts_them(text: str) -> None:
    model = re.compile("[-_A-Za-z-0-9][-_A-Za-z0-9 ]{1,126}[-_A-Za-z-0-9]")

    assert (not list(_validation.image_name(text))) == bool(model.fullmatch(text))


@given(st.lists(st.integers(0, 2**30 - 1), min_size=3, max_size=3))
def test_every_version_of_three_numbers_in_the_range_is_accepted(nodes: list[int]) -> None:
    assert not list(_validation.semantic_version(".".join(map(str, nodes))))


@given(texts)
def test_tag_keys_are_accepted_if_the_model_accepts_them(text: str) -> None:
    model = re.compile(r"(?!aws:)[a-zA-Z0-9\s_.:/=+\-@]{1,128}", re.ASCII)

    assert (not list(_validation.tags({text: ""}))) == bool(model.fullmatch(text))
