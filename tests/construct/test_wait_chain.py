"""How a deployment waits for an image: the image resource, and a link for each further hour."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_imagebuilder as imagebuilder
from aws_cdk import aws_ssm as ssm

import contract
from cdk_vm_import import Platform
from contract import ImageAttribute, ImageProperty, ResourceType, WaitAttribute, WaitProperty

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.construct.conftest import ImportImage, ResourcesOf

IMAGE = ResourceType.IMAGE
LINK = ResourceType.WAIT
TWO_HOURS = cdk.Duration.hours(2)
TWELVE_HOURS = cdk.Duration.hours(12)


def resources(stack: cdk.Stack) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = assertions.Template.from_stack(stack).to_json()["Resources"]
    return found


def properties(stack: cdk.Stack) -> dict[str, Any]:
    (image,) = assertions.Template.from_stack(stack).find_resources(IMAGE).values()
    return dict(image["Properties"])


def links(stack: cdk.Stack) -> list[tuple[str, dict[str, Any]]]:
    """The links in the order of the chain: logical ids and properties."""
    found = {n: r["Properties"] for n, r in resources(stack).items() if r["Type"] == LINK}
    chain: list[tuple[str, dict[str, Any]]] = []
    (previous,) = (n for n, r in resources(stack).items() if r["Type"] == IMAGE)
    while len(chain) < len(found):
        ((name, link),) = (
            (name, link)
            for name, link in found.items()
            if link[WaitProperty.IMAGE_ARN] == {"Fn::GetAtt": [previous, ImageAttribute.IMAGE_ARN]}
        )
        chain.append((name, link))
        previous = name
    return chain


def depends_on(stack: cdk.Stack, logical_id: str) -> set[str]:
    """All resources that CloudFormation creates before this one."""
    found = resources(stack)
    before: set[str] = set()
    new = {logical_id}
    while new:
        text = json.dumps([found[name] for name in new])
        new = {name for name in found if f'"{name}"' in text} - before
        before |= new
    return before - {logical_id}


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        (cdk.Duration.minutes(1), [60]),
        (cdk.Duration.minutes(59), [3540]),
        (cdk.Duration.hours(1), [3600]),
        # A link waits at least a minute.
        (cdk.Duration.seconds(3601), [3600, 60]),
        (cdk.Duration.minutes(61), [3600, 60]),
        (cdk.Duration.hours(1.1), [3600, 360]),
        (cdk.Duration.minutes(150), [3600, 3600, 1800]),
        (cdk.Duration.hours(3), [3600] * 3),
        (cdk.Duration.hours(6), [3600] * 6),
        (cdk.Duration.hours(12), [3600] * 12),
    ],
    ids=["1 min", "59 min", "1 h", "3601 s", "61 min", "1.1 h", "2.5 h", "3 h", "6 h", "12 h"],
)
def test_the_image_waits_for_the_first_hour_and_a_link_for_each_further_hour(
    stack: cdk.Stack, import_image: ImportImage, timeout: cdk.Duration, seconds: list[int]
) -> None:
    import_image(stack, timeout=timeout)

    chain = [properties(stack), *(link for _, link in links(stack))]
    assert [waiting[ImageProperty.TIMEOUT_SECONDS] for waiting in chain] == seconds
    assert [waiting.get(ImageProperty.CONTINUE_AFTER_TIMEOUT, False) for waiting in chain] == [
        *[True] * (len(seconds) - 1),
        False,
    ]
    assert [waiting["ServiceTimeout"] for waiting in chain] == [
        str(contract.service_timeout(wait)) for wait in seconds
    ]


@pytest.mark.parametrize(
    ("minutes", "service_timeout"),
    [(1, "900"), (20, "1320"), (58, "3600"), (60, "3600")],
)
def test_cloudformation_waits_longer_than_the_function(
    stack: cdk.Stack, import_image: ImportImage, minutes: int, service_timeout: str
) -> None:
    import_image(stack, timeout=cdk.Duration.minutes(minutes))

    found = properties(stack)
    assert found["ServiceTimeout"] == service_timeout
    assert (
        contract.wait_limit(found[ImageProperty.TIMEOUT_SECONDS])
        <= int(service_timeout) - contract.GRACE
    )


def test_the_default_timeout_is_an_hour(stack: cdk.Stack, import_image: ImportImage) -> None:
    import_image(stack)

    assert properties(stack)[ImageProperty.TIMEOUT_SECONDS] == 3600
    assert links(stack) == []


def test_without_waiting_the_template_has_no_timeout_and_no_links(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack, wait_for_available=False, timeout=TWELVE_HOURS)

    found = properties(stack)
    assert (
        not {ImageProperty.TIMEOUT_SECONDS, ImageProperty.CONTINUE_AFTER_TIMEOUT, "ServiceTimeout"}
        & found.keys()
    )
    assert links(stack) == []


def test_a_link_has_these_properties(stack: cdk.Stack, import_image: ImportImage) -> None:
    import_image(stack, timeout=cdk.Duration.hours(3))

    image = properties(stack)
    (second, first_link), (third, last_link) = links(stack)
    assert (second, third) == ("ImageWait2A14E77CC", "ImageWait3F6D85905")
    assert first_link == {
        "ServiceToken": image["ServiceToken"],
        "ServiceTimeout": "3600",
        WaitProperty.STATE_MACHINE_ARN: image[ImageProperty.STATE_MACHINE_ARN],
        WaitProperty.IMAGE_ARN: {"Fn::GetAtt": ["Image9D742C96", ImageAttribute.IMAGE_ARN]},
        WaitProperty.IMAGE_LOGICAL_ID: "Image9D742C96",
        WaitProperty.VM_IMPORT_TASK_ID: {
            "Fn::GetAtt": ["Image9D742C96", ImageAttribute.VM_IMPORT_TASK_ID]
        },
        WaitProperty.IMPORT_FAILED: {"Fn::GetAtt": ["Image9D742C96", ImageAttribute.IMPORT_FAILED]},
        WaitProperty.TIMEOUT_SECONDS: 3600,
        WaitProperty.CONTINUE_AFTER_TIMEOUT: True,
    }
    assert last_link == {
        **{
            name: v for name, v in first_link.items() if name != WaitProperty.CONTINUE_AFTER_TIMEOUT
        },
        WaitProperty.IMAGE_ARN: {"Fn::GetAtt": [second, WaitAttribute.IMAGE_ARN]},
    }


def test_a_link_is_deleted_with_the_stack_whatever_happens_to_the_image(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    import_image(stack, timeout=TWO_HOURS, removal_policy=cdk.RemovalPolicy.RETAIN)

    (link,) = resources_of(stack, LINK).values()
    assert (link["DeletionPolicy"], link["UpdateReplacePolicy"]) == ("Delete", "Delete")


def test_no_template_uses_a_wait_condition(stack: cdk.Stack, import_image: ImportImage) -> None:
    import_image(stack, timeout=TWELVE_HOURS)

    text = json.dumps(assertions.Template.from_stack(stack).to_json())
    assert "WaitCondition" not in text
    assert "WaitHandle" not in text


def test_links_are_created_one_after_the_other(stack: cdk.Stack, import_image: ImportImage) -> None:
    import_image(stack, timeout=TWELVE_HOURS)

    chain = ["Image9D742C96", *(name for name, _ in links(stack))]
    assert len(chain) == 12
    for position, name in enumerate(chain):
        assert depends_on(stack, name) & set(chain) == set(chain[:position])


def recipe(stack: cdk.Stack, parent_image: str) -> str:
    created = imagebuilder.CfnImageRecipe(
        stack, "Consumer", name="recipe", version="1.0.0", parent_image=parent_image
    )
    return str(stack.resolve(created.logical_id))


@pytest.mark.parametrize(
    "attribute",
    [
        "image_arn",
        "image_version_arn",
        "latest_image_arn",
        "latest_major_image_arn",
        "latest_minor_image_arn",
    ],
)
def test_a_recipe_is_created_after_the_last_link(
    stack: cdk.Stack, import_image: ImportImage, attribute: str
) -> None:
    image = import_image(stack, timeout=TWELVE_HOURS)
    consumer = recipe(stack, getattr(image, attribute))

    chain = {"Image9D742C96", *(name for name, _ in links(stack))}
    assert chain <= depends_on(stack, consumer)


def test_a_resource_that_depends_on_the_construct_is_created_after_the_last_link(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    image = import_image(stack, timeout=TWELVE_HOURS)
    topic = cdk.CfnResource(stack, "Consumer", type="AWS::SNS::Topic")
    topic.node.add_dependency(image)

    assert {name for name, _ in links(stack)} <= depends_on(stack, "Consumer")


def test_a_parameter_with_the_ami_is_created_after_the_last_link(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    image = import_image(stack, timeout=TWELVE_HOURS)
    ssm.CfnParameter(stack, "Consumer", type="String", value=image.image_id)

    (*_, (last, _)) = links(stack)
    assert resources(stack)["Consumer"]["Properties"]["Value"] == {
        "Fn::GetAtt": [last, WaitAttribute.IMAGE_ID]
    }
    assert {name for name, _ in links(stack)} <= depends_on(stack, "Consumer")


def test_outputs_have_the_values_of_the_last_link(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    image = import_image(stack, timeout=TWELVE_HOURS, export_name="golden")
    cdk.CfnOutput(stack, "AmiId", value=image.image_id)

    (*_, (last, _)) = links(stack)
    outputs = assertions.Template.from_stack(stack).to_json()["Outputs"]
    assert outputs["ImageImageArnCD42D5A5"] == {
        "Description": "ARN of the imported Image Builder image",
        "Value": {"Fn::GetAtt": [last, WaitAttribute.IMAGE_ARN]},
        "Export": {"Name": "golden"},
    }
    assert outputs["AmiId"] == {"Value": {"Fn::GetAtt": [last, WaitAttribute.IMAGE_ID]}}


def test_another_stack_gets_the_ami_of_the_last_link(
    app: cdk.App, stack: cdk.Stack, import_image: ImportImage
) -> None:
    image = import_image(stack, timeout=TWELVE_HOURS)
    other = cdk.Stack(app, "Other")
    ssm.CfnParameter(other, "Ami", type="String", value=image.image_id)

    (*_, (last, _)) = links(stack)
    outputs = assertions.Template.from_stack(stack).to_json()["Outputs"]
    assert {"Fn::GetAtt": [last, WaitAttribute.IMAGE_ID]} in [
        output["Value"] for output in outputs.values()
    ]
    assert stack in other.dependencies


def test_the_arns_of_a_chain_are_parts_of_the_arn_of_the_last_link(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    image = import_image(stack, timeout=TWO_HOURS)
    arn = "arn:aws:imagebuilder:eu-west-1:123456789012:image/rhel9-golden/1.0.0/7"

    assert evaluate(stack.resolve(image.image_version_arn), arn) == arn.removesuffix("/7")
    assert evaluate(stack.resolve(image.latest_image_arn), arn) == arn.replace("1.0.0/7", "x.x.x")
    major, minor = image.latest_major_image_arn, image.latest_minor_image_arn
    assert evaluate(stack.resolve(major), arn) == arn.replace("1.0.0/7", "1.x.x")
    assert evaluate(stack.resolve(minor), arn) == arn.replace("1.0.0/7", "1.0.x")


def evaluate(value: Any, image_arn: str) -> Any:
    """What CloudFormation makes of an expression if the link has this ARN."""
    match value:
        case {"Fn::Join": [separator, parts]}:
            return separator.join(evaluate(part, image_arn) for part in parts)
        case {"Fn::Select": [index, parts]}:
            return evaluate(parts, image_arn)[int(index)]
        case {"Fn::Split": [separator, text]}:
            return evaluate(text, image_arn).split(separator)
        case {"Fn::GetAtt": ["ImageWait2A14E77CC", WaitAttribute.IMAGE_ARN]}:
            return image_arn
    return value


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"timeout": TWO_HOURS}, {"timeout": TWELVE_HOURS}),
        ({"timeout": cdk.Duration.hours(1)}, {"timeout": TWO_HOURS}),
        ({"wait_for_available": False}, {"timeout": TWELVE_HOURS}),
    ],
    ids=["2 h and 12 h", "1 h and 2 h", "no wait and 12 h"],
)
def test_a_change_of_the_timeout_adds_or_removes_links_and_replaces_nothing(
    new_stack: Callable[[], cdk.Stack],
    import_image: ImportImage,
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    shorter, longer = new_stack(), new_stack()
    import_image(shorter, **before)
    import_image(longer, **after)

    old, new = resources(shorter), resources(longer)
    assert old.keys() < new.keys()
    assert {new[name]["Type"] for name in new.keys() - old.keys()} == {LINK}
    waiting = {
        ImageProperty.TIMEOUT_SECONDS,
        ImageProperty.CONTINUE_AFTER_TIMEOUT,
        "ServiceTimeout",
    }
    for name in old:
        if old[name]["Type"] != LINK:
            for resource in (old[name], new[name]):
                resource["Properties"] = {
                    key: v for key, v in resource["Properties"].items() if key not in waiting
                }
            assert old[name] == new[name]


def test_an_image_of_a_chain_may_change_by_a_parameter_alone(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    task = cdk.CfnParameter(stack, "Task", default="import-ami-0123456789abcdef0")
    import_image(stack, timeout=TWELVE_HOURS, vm_import_task_id=task.value_as_string)

    assert properties(stack)[ImageProperty.VM_IMPORT_TASK_ID] == {"Ref": "Task"}
    assert {name for name, _ in links(stack)} == {
        name for name in resources(stack) if name.startswith("ImageWait")
    }


@pytest.mark.parametrize(
    ("timeout", "problem"),
    [
        (cdk.Duration.seconds(59), "timeout 59 seconds is not valid: use 1 minute to 12 hours"),
        (cdk.Duration.hours(13), "timeout 13 hours is not valid: use 1 minute to 12 hours"),
        (cdk.Duration.minutes(cdk.Token.as_number({"Ref": "P"})), "timeout is a token"),
        (3600, "timeout 3600 is not a Duration"),
    ],
    ids=["59 seconds", "13 hours", "token", "number"],
)
def test_a_timeout_out_of_range_is_refused(
    stack: cdk.Stack, import_image: ImportImage, timeout: Any, problem: str
) -> None:
    with pytest.raises(ValueError, match=f"^Stack/Image: {problem}"):
        import_image(stack, timeout=timeout)


def test_without_waiting_there_is_no_image_id(stack: cdk.Stack, import_image: ImportImage) -> None:
    image = import_image(stack, wait_for_available=False)

    for ask in (lambda: image.image_id, image.to_machine_image):
        with pytest.raises(
            ValueError, match=r"^Stack/Image: image_id is not available, because with wait_for_"
        ):
            ask()


@pytest.mark.parametrize("timeout", [cdk.Duration.hours(1), TWO_HOURS], ids=["1 h", "2 h"])
@pytest.mark.parametrize(
    ("platform", "system"),
    [
        (Platform.LINUX, ec2.OperatingSystemType.LINUX),
        (Platform.WINDOWS, ec2.OperatingSystemType.WINDOWS),
    ],
)
def test_an_instance_launches_from_the_image(
    stack: cdk.Stack,
    import_image: ImportImage,
    timeout: cdk.Duration,
    platform: Platform,
    system: ec2.OperatingSystemType,
) -> None:
    image = import_image(stack, timeout=timeout, platform=platform)
    ec2.Instance(
        stack,
        "Instance",
        vpc=ec2.Vpc(stack, "Vpc"),
        instance_type=ec2.InstanceType("t3.micro"),
        machine_image=image.to_machine_image(),
    )

    assertions.Template.from_stack(stack).has_resource_properties(
        "AWS::EC2::Instance", {"ImageId": stack.resolve(image.image_id)}
    )
    assert image.to_machine_image().get_image(stack).os_type == system
