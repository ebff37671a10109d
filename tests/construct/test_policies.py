"""The policies of a template, as the simulated IAM evaluates them, and their size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3

from cdk_vm_import import VmDisk, VmImportRole, VmImportTask
from cdk_vm_import._inline_policy import size_of
from contract import OwnTag
from local_aws import seams

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.construct.conftest import ImportImage, ResourcesOf

ROLE = "AWS::IAM::Role"
ACCOUNT = "123456789012"
REGION = "ap-southeast-1"
OWN = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/Stack/8dd0cbe0-66a2-11ef-b79b-0242ac120002"
OTHER = OWN.replace("stack/Stack", "stack/Other")
PARAMETERS = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::StackId": OWN,
    "AWS::URLSuffix": "amazonaws.com",
}
TAG = OwnTag.STACK
IMAGE = f"arn:aws:imagebuilder:{REGION}:{ACCOUNT}:image/golden/1.0.0/1"
TASK = f"arn:aws:ec2:{REGION}:{ACCOUNT}:import-image-task/import-ami-0123456789abcdef0"
AMI = f"arn:aws:ec2:{REGION}::image/ami-0123456789abcdef0"
SNAPSHOT = f"arn:aws:ec2:{REGION}::snapshot/snap-0123456789abcdef0"
# The actions that add tags, and their resources.
TAGGED = [("imagebuilder:TagResource", IMAGE)] + [
    ("ec2:CreateTags", arn) for arn in (TASK, AMI, SNAPSHOT)
]


def deployed(value: Any) -> Any:  # noqa: PLR0911 - any JSON
    """Return a policy as CloudFormation would create it. References become long names and ARNs."""
    match value:
        case {"Ref": str(name)}:
            return PARAMETERS.get(name, name.lower()[-63:].rjust(63, "x"))
        case {"Fn::GetAtt": [str(name), str()]}:
            return f"arn:aws:iam::{ACCOUNT}:role/{name[-64:].rjust(64, 'x')}"
        case {"Fn::Join": [str(separator), list(parts)]}:
            return separator.join(map(deployed, parts))
        case {"Fn::Sub": str(text)}:
            for name, replacement in PARAMETERS.items():
                text = text.replace(f"${{{name}}}", replacement)
            return text
        case {"Fn::Select": [2, _]}:
            return OWN.rpartition("/")[2]
        case dict():
            return {key: deployed(item) for key, item in value.items()}
        case list():
            return [deployed(item) for item in value]
    return value


def documents(stack: cdk.Stack, role: str) -> list[dict[str, Any]]:
    """The inline policies of a role."""
    template = assertions.Template.from_stack(stack).to_json()
    policies = template["Resources"][role]["Properties"]["Policies"]
    return [deployed(policy["PolicyDocument"]) for policy in policies]


@pytest.fixture
def may(
    stack: cdk.Stack, import_image: ImportImage
) -> Callable[[str, str, Mapping[str, str]], bool]:
    """Whether the function of a stack with an image and a task may take an action."""
    bucket = s3.Bucket.from_bucket_name(stack, "Disks", "disks")
    VmImportTask(stack, "Import", disks=[VmDisk.from_bucket(bucket, "a.vmdk")])
    import_image(stack)
    policies = [
        seams.parse_policy_document(json.dumps(document))
        for document in documents(stack, "VmImportProviderRole84245795")
    ]

    def call(action: str, resource: str, keys: Mapping[str, str]) -> bool:
        context = seams.EvalContext(
            principal_arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/function/function",
            principal_type="AssumedRole",
            principal_account=ACCOUNT,
            action=action,
            resource_arn=resource,
            region=REGION,
            service_context={key.lower(): value for key, value in keys.items()},
        )
        return bool(seams.evaluate(context, policies).decision == "Allow")

    return call


@pytest.mark.parametrize(("action", "resource"), TAGGED)
@pytest.mark.parametrize(
    ("before", "request_tags", "allowed"),
    [
        pytest.param(None, OWN, True, id="new resource"),
        pytest.param(OWN, OWN, True, id="own resource"),
        pytest.param(OWN, None, True, id="other tags of an own resource"),
        pytest.param(OTHER, OWN, False, id="resource of another stack"),
        pytest.param(OTHER, None, False, id="other tags of another stack's resource"),
        pytest.param(OWN, OTHER, False, id="own resource for another stack"),
        pytest.param(None, OTHER, False, id="new resource for another stack"),
        pytest.param(None, None, False, id="other tags of a new resource"),
    ],
)
def test_the_function_tags_only_new_resources_and_those_of_its_stack(
    may: Callable[..., bool],
    action: str,
    resource: str,
    before: str | None,
    request_tags: str | None,
    allowed: bool,  # noqa: FBT001 - a parameter
) -> None:
    keys = {f"aws:ResourceTag/{TAG}": before, f"aws:RequestTag/{TAG}": request_tags}
    given = {key: value for key, value in keys.items() if value}
    if action == "ec2:CreateTags" and resource in {AMI, SNAPSHOT} and request_tags is None:
        # EC2 creates no AMI with tags of ours, so the function always sends its stack's tag.
        allowed = False

    assert may(action, resource, given) is allowed


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("imagebuilder:DeleteImage", IMAGE),
        ("imagebuilder:CancelImageCreation", IMAGE),
        ("imagebuilder:UntagResource", IMAGE),
        ("ec2:CancelImportTask", TASK),
        ("ec2:DeleteTags", TASK),
        ("ec2:DeleteTags", AMI),
        ("ec2:DeleteTags", SNAPSHOT),
        ("ec2:DeregisterImage", AMI),
        ("ec2:DisableImageDeprecation", AMI),
        ("ec2:EnableImageDeprecation", AMI),
        ("ec2:ModifyImageAttribute", AMI),
        ("ec2:DeleteSnapshot", SNAPSHOT),
    ],
)
def test_the_function_deletes_and_cancels_only_what_has_the_tag_of_its_stack(
    may: Callable[..., bool], action: str, resource: str
) -> None:
    assert may(action, resource, {f"aws:ResourceTag/{TAG}": OWN})
    assert not may(action, resource, {f"aws:ResourceTag/{TAG}": OTHER})
    assert not may(action, resource, {})


def test_importing_an_image_or_a_disk_requires_the_tag_of_the_stack(
    may: Callable[..., bool],
) -> None:
    for action, resource in (("imagebuilder:ImportVmImage", IMAGE), ("ec2:ImportImage", TASK)):
        assert may(action, resource, {f"aws:RequestTag/{TAG}": OWN})
        assert not may(action, resource, {f"aws:RequestTag/{TAG}": OTHER})
        assert not may(action, resource, {})


def test_a_version_that_another_stack_imported_too_can_be_imported(
    may: Callable[..., bool],
) -> None:
    """AWS does not document whether the tags of earlier builds count for ImportVmImage."""
    keys = {f"aws:RequestTag/{TAG}": OWN, f"aws:ResourceTag/{TAG}": OTHER}

    assert may("imagebuilder:ImportVmImage", IMAGE.rpartition("/")[0], keys)


# Size


@pytest.mark.parametrize("count", [1, 10, 100, 400])
def test_all_policies_stay_below_the_limit_of_iam_for_each_number_of_tasks(
    stack: cdk.Stack, resources_of: ResourcesOf, count: int
) -> None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""
    bucket = s3.Bucket(stack, "Disks")
    for index in range(count):
        disk = VmDisk.from_bucket(bucket, f"golden-images/rhel9/{index:03}.vmdk")
        VmImportTask(stack, f"Import{index}", disks=[disk])

    roles = resources_of(stack, ROLE)
    assert len(roles) == 3
    for role in roles:
        size = sum(len(json.dumps(d, separators=(",", ":"))) for d in documents(stack, role))
        assert size <= 10_240


@pytest.mark.parametrize("count", [20, 21])
def test_a_policy_names_up_to_20_objects_and_then_their_buckets(
    stack: cdk.Stack, count: int
) -> None:
    buckets = [s3.Bucket.from_bucket_name(stack, name, name) for name in ("first", "second")]
    for index in range(count):
        disk = VmDisk.from_bucket(buckets[index % 2], f"{index}.vmdk")
        VmImportTask(stack, f"Import{index}", disks=[disk])

    (policy,) = documents(stack, "VmImportTaskRoleCEF30FC9")
    (statement,) = [s for s in policy["Statement"] if s["Sid"] == "ReadDisks"]
    named = {f"arn:aws:s3:::{buckets[i % 2].bucket_name}/{i}.vmdk" for i in range(count)}
    whole = {"arn:aws:s3:::first/*", "arn:aws:s3:::second/*"}
    assert set(statement["Resource"]) == (named if count == 20 else whole)


def test_local_disks_share_one_bucket_in_the_policy(stack: cdk.Stack, tmp_path: Path) -> None:
    for index in range(21):
        path = tmp_path / f"{index}.raw"
        path.write_bytes(bytes(509) + bytes([index, 0x55, 0xAA]))
        VmImportTask(stack, f"Import{index}", disks=[VmDisk.from_asset(str(path))])

    (policy,) = documents(stack, "VmImportTaskRoleCEF30FC9")
    (statement,) = [s for s in policy["Statement"] if s["Sid"] == "ReadDisks"]
    assert statement["Resource"] == f"arn:aws:s3:::cdk-hnb659fds-assets-{ACCOUNT}-{REGION}/*"


def test_disks_in_too_many_buckets_are_an_error_at_synthesis(
    app: cdk.App, stack: cdk.Stack
) -> None:
    for index in range(100):
        bucket = s3.Bucket.from_bucket_name(stack, f"Bucket{index}", f"disks-{index}")
        VmImportTask(stack, f"Import{index}", disks=[VmDisk.from_bucket(bucket, "a.vmdk")])

    with pytest.raises(Exception, match=r"IAM allows 10240: use fewer roles and fewer buckets"):
        app.synth()


def test_too_many_roles_are_an_error_at_synthesis(app: cdk.App, stack: cdk.Stack) -> None:
    bucket = s3.Bucket.from_bucket_name(stack, "Bucket", "disks")
    disks = [VmDisk.from_bucket(bucket, "a.vmdk")]
    for index in range(100):
        role = iam.Role.from_role_name(stack, f"Role{index}", f"vmimport-{index}")
        VmImportTask(stack, f"Import{index}", disks=disks, role=role)

    with pytest.raises(Exception, match=r"IAM allows 10240: use fewer roles and fewer buckets"):
        app.synth()


def test_the_size_at_synthesis_is_at_least_the_size_in_iam(
    stack: cdk.Stack,
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(510) + b"\x55\xaa")
    disks = [
        VmDisk.from_bucket(s3.Bucket(stack, "Disks"), "a.vmdk"),
        VmDisk.from_asset(str(path)),
    ]
    VmImportTask(stack, "Import", disks=disks)
    VmImportTask(stack, "Other", disks=disks, role=VmImportRole(stack, "Role", disks=disks))

    template = assertions.Template.from_stack(stack).to_json()
    for resource in template["Resources"].values():
        for policy in resource.get("Properties", {}).get("Policies", []):
            document = policy["PolicyDocument"]
            real = len(json.dumps(deployed(document), separators=(",", ":")))
            estimated = size_of(document, stack.stack_name)
            assert real <= estimated < real * 1.2
