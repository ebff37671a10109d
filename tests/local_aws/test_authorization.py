"""The permissions that each operation requires."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.account import RAW, Account, policy, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_aws import LocalAws

STACK = "arn:aws:cloudformation:us-east-1:1:stack/a/b"
READ_TASKS = ("ec2:DescribeImages", "ec2:DescribeImportImageTasks")
_numbers = itertools.count(1)


@pytest.fixture
def admin(enforcing: LocalAws) -> Account:
    """Return the root user of a new account."""
    return Account(enforcing, enforcing.session(), f"7{next(_numbers):011d}")


def allow(*actions: str, on: str = "*", when: object = None) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": on}
    return statement | ({"Condition": when} if when else {})


def user(admin: Account, *statements: dict[str, Any]) -> Account:
    """Create a user with only these permissions."""
    name = f"user-{next(_numbers)}"
    admin.iam.create_user(UserName=name)
    if statements:
        admin.iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=policy(*statements))
    key = admin.iam.create_access_key(UserName=name)["AccessKey"]
    secrets = {
        "aws_access_key_id": key["AccessKeyId"],
        "aws_secret_access_key": key["SecretAccessKey"],
    }
    someone = object.__new__(Account)
    someone.__dict__ |= admin.__dict__
    client: Any = admin.server.session().client
    someone.ec2, someone.images = client("ec2", **secrets), client("imagebuilder", **secrets)
    return someone


def arn(admin: Account, resource: str) -> str:
    return f"arn:aws:imagebuilder:us-east-1:{admin.account_id}:{resource}"


def denied(call: Callable[[], object], action: str, resource: str = "") -> None:
    """Check that a call of Image Builder is denied, and for which action and resource."""
    code, status, message = refused(call)
    assert (code, status) == ("AccessDeniedException", 403)
    assert f"is not authorized to perform: {action} on resource: {resource}" in message


def test_a_denial_of_image_builder_is_an_access_denied_exception(admin: Account) -> None:
    denied(user(admin).images.list_images, "imagebuilder:ListImages", "*")


def test_a_denial_of_ec2_is_an_unauthorized_operation(admin: Account) -> None:
    code, status, message = refused(user(admin).ec2.describe_import_image_tasks)
    assert (code, status) == ("UnauthorizedOperation", 403)
    assert "is not authorized to perform: ec2:DescribeImportImageTasks on resource: *" in message


def test_a_wrong_signature_is_refused_before_all_else(admin: Account) -> None:
    admin.iam.create_user(UserName="someone")
    key = admin.iam.create_access_key(UserName="someone")["AccessKey"]["AccessKeyId"]
    client: Any = admin.server.session().client
    forged = client("imagebuilder", aws_access_key_id=key, aws_secret_access_key="guess")
    with pytest.raises(ClientError, match="signature"):
        forged.list_images()


def test_importing_an_image_is_authorized_on_its_version(admin: Account) -> None:
    version = arn(admin, "image/golden/1.0.0")
    more = allow(*READ_TASKS, "iam:CreateServiceLinkedRole")
    task = admin.start()
    user(admin, allow("imagebuilder:ImportVmImage", on=version), more).import_image(task)
    other = user(admin, allow("imagebuilder:ImportVmImage", on=f"{version}/1"), more)
    denied(lambda: other.import_image(task), "imagebuilder:ImportVmImage", version)


def test_importing_an_image_with_tags_needs_tag_resource_too(admin: Account) -> None:
    may = allow("imagebuilder:ImportVmImage", "iam:CreateServiceLinkedRole", *READ_TASKS)
    task = admin.start()
    tags = {"stack": STACK}
    build = arn(admin, "image/golden/1.0.0/1")
    someone = user(admin, may)
    denied(lambda: someone.import_image(task, tags=tags), "imagebuilder:TagResource", build)
    someone.import_image(task)
    tagging = allow(
        "imagebuilder:TagResource", when={"StringEquals": {"aws:RequestTag/stack": STACK}}
    )
    user(admin, may, tagging).import_image(task, tags=tags)
    denied(
        lambda: user(admin, may, tagging).import_image(task, tags={"stack": "other"}),
        "imagebuilder:TagResource",
    )


@pytest.mark.parametrize("action", READ_TASKS)
def test_importing_an_image_needs_permission_to_read_its_task_and_ami(
    admin: Account, action: str
) -> None:
    others = {"imagebuilder:ImportVmImage", "iam:CreateServiceLinkedRole", *READ_TASKS} - {action}
    task = admin.start()
    denied(lambda: user(admin, allow(*others)).import_image(task), action, "*")


def test_the_first_import_of_an_account_creates_the_service_linked_role(admin: Account) -> None:
    task = admin.start()
    path = "aws-service-role/imagebuilder.amazonaws.com/AWSServiceRoleForImageBuilder"
    role = f"arn:aws:iam::{admin.account_id}:role/{path}"
    someone = user(admin, allow("imagebuilder:ImportVmImage", *READ_TASKS))
    denied(lambda: someone.import_image(task), "iam:CreateServiceLinkedRole", role)
    for name in ("other.amazonaws.com", "imagebuilder.amazonaws.com"):
        first = allow(
            "iam:CreateServiceLinkedRole",
            on=role,
            when={"StringEquals": {"iam:AWSServiceName": name}},
        )
        may = user(admin, allow("imagebuilder:ImportVmImage", *READ_TASKS), first)
        if name.startswith("other"):
            denied(lambda may=may: may.import_image(task), "iam:CreateServiceLinkedRole")  # type: ignore[misc]
        else:
            may.import_image(task)
    made = admin.iam.get_role(RoleName="AWSServiceRoleForImageBuilder")["Role"]
    assert made["Arn"] == role
    someone.import_image(task)


@pytest.mark.parametrize(
    ("operation", "action"),
    [
        ("get_image", "GetImage"),
        ("delete_image", "DeleteImage"),
        ("cancel_image_creation", "CancelImageCreation"),
    ],
)
def test_get_delete_and_cancel_are_authorized_on_the_build_and_its_tags(
    admin: Account, operation: str, action: str
) -> None:
    task = admin.start()
    mine = admin.import_image(task, tags={"stack": STACK})
    other = admin.import_image(task)
    if operation == "delete_image":
        admin.finish()
    owned = {"StringEquals": {"aws:ResourceTag/stack": STACK}}
    images = arn(admin, "image/golden/1.0.0/*")
    someone = user(admin, allow(f"imagebuilder:{action}", on=images, when=owned))
    call = getattr(someone.images, operation)
    denied(lambda: call(imageBuildVersionArn=other), f"imagebuilder:{action}", other)
    call(imageBuildVersionArn=mine)


def test_a_policy_that_requires_a_tag_denies_a_deleted_resource(admin: Account) -> None:
    owned = {"StringEquals": {"aws:ResourceTag/stack": STACK}}
    someone = user(admin, allow("imagebuilder:DeleteImage", when=owned))
    gone = arn(admin, "image/golden/1.0.0/1")
    denied(
        lambda: someone.images.delete_image(imageBuildVersionArn=gone),
        "imagebuilder:DeleteImage",
        gone,
    )
    admin.server.knobs(checked_first="existence")
    try:
        refusal = refused(lambda: someone.images.delete_image(imageBuildVersionArn=gone))
    finally:
        admin.server.knobs(checked_first="permissions")
    assert refusal[:2] == ("ResourceNotFoundException", 404)


def test_tagging_is_authorized_by_request_tags_resource_tags_and_tag_keys(admin: Account) -> None:
    image = admin.import_image(tags={"stack": STACK})
    keys = {"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}
    someone = user(
        admin,
        allow("imagebuilder:TagResource", when={"StringEquals": {"aws:RequestTag/a": "1"}}),
        allow("imagebuilder:UntagResource", when=keys),
    )
    someone.images.tag_resource(resourceArn=image, tags={"a": "1"})
    denied(
        lambda: someone.images.tag_resource(resourceArn=image, tags={"a": "2"}),
        "imagebuilder:TagResource",
        image,
    )
    someone.images.untag_resource(resourceArn=image, tagKeys=["a"])
    denied(
        lambda: someone.images.untag_resource(resourceArn=image, tagKeys=["a", "stack"]),
        "imagebuilder:UntagResource",
        image,
    )


def test_listing_builds_is_authorized_on_all_builds_of_the_version(admin: Account) -> None:
    version = arn(admin, "image/golden/1.0.0")
    action = "imagebuilder:ListImageBuildVersions"
    someone = user(admin, allow(action, on=f"{version}/*"))
    someone.images.list_image_build_versions(imageVersionArn=version)
    other = user(admin, allow(action, on=version))
    denied(
        lambda: other.images.list_image_build_versions(imageVersionArn=version),
        action,
        f"{version}/*",
    )


def test_describe_calls_have_no_resource_types(admin: Account) -> None:
    user(admin, allow("ec2:DescribeImportImageTasks")).ec2.describe_import_image_tasks()
    someone = user(admin, allow("ec2:DescribeImportImageTasks", on="arn:aws:ec2:*:*:*/*"))
    refusal = refused(someone.ec2.describe_import_image_tasks)
    assert refusal[0] == "UnauthorizedOperation"


def test_import_image_is_authorized_on_image_and_task_and_tags(admin: Account) -> None:
    admin.make_role()
    role = allow("iam:PassRole", "s3:GetBucketLocation", "s3:GetObject")
    image, task = "arn:aws:ec2:*::image/*", "arn:aws:ec2:*:*:import-image-task/*"
    tags = [{"ResourceType": "import-image-task", "Tags": [{"Key": "a", "Value": "b"}]}]
    half = user(admin, role, allow("ec2:ImportImage", on=image))
    assert refused(lambda: start(half))[0] == "UnauthorizedOperation"
    both = [role, allow("ec2:ImportImage", on=image), allow("ec2:ImportImage", on=task)]
    start(user(admin, *both))
    untagged = user(admin, *both)
    assert refused(lambda: start(untagged, TagSpecifications=tags))[0] == "UnauthorizedOperation"
    on_create = {"StringEquals": {"ec2:CreateAction": "ImportImage"}}
    start(
        user(admin, *both, allow("ec2:CreateTags", on=task, when=on_create)), TagSpecifications=tags
    )


def test_import_image_is_authorized_on_its_ami(admin: Account) -> None:
    admin.make_role()
    role = allow("iam:PassRole", "s3:GetBucketLocation", "s3:GetObject")
    on_task = allow("ec2:ImportImage", on="arn:aws:ec2:*:*:import-image-task/*")

    refusal = refused(lambda: start(user(admin, role, on_task)))

    assert refusal[0] == "UnauthorizedOperation"
    start(user(admin, role, on_task, allow("ec2:ImportImage", on="arn:aws:ec2:*::image/*")))


def test_import_image_is_authorized_on_each_snapshot(admin: Account) -> None:
    admin.make_role()
    snapshots = ["snap-0123456789abcdef0", "snap-0123456789abcdef1"]
    disks: Any = [{"SnapshotId": snapshot} for snapshot in snapshots]
    kinds = ("import-image-task/*", "image/*", *(f"snapshot/{id_}" for id_ in snapshots))
    *others, on_second = (allow("ec2:ImportImage", on=f"arn:aws:ec2:*:*:{kind}") for kind in kinds)
    may = [allow("iam:PassRole"), *others]
    someone = user(admin, *may)

    refusal = refused(lambda: someone.ec2.import_image(DiskContainers=disks))

    assert refusal[0] == "UnauthorizedOperation"
    assert user(admin, *may, on_second).ec2.import_image(DiskContainers=disks)


def start(someone: Account, *keys: str, **more: Any) -> str:
    """Start an import of the objects with these keys, or of disk.raw."""
    disks: Any = [
        {"Format": "RAW", "UserBucket": {"S3Bucket": someone.bucket, "S3Key": key}}
        for key in keys or ("disk.raw",)
    ]
    return str(someone.ec2.import_image(DiskContainers=disks, **more)["ImportTaskId"])


def test_import_image_needs_permission_to_pass_the_role(admin: Account) -> None:
    admin.make_role()
    read = allow("s3:GetBucketLocation", "s3:GetObject")
    code, _, message = refused(lambda: start(user(admin, allow("ec2:ImportImage"), read)))
    assert code == "InvalidParameter"
    assert message.startswith("The service role vmimport does not exist or does not have")
    to_vm_import = {"StringEquals": {"iam:PassedToService": "vmie.amazonaws.com"}}
    role = f"arn:aws:iam::{admin.account_id}:role/vmimport"
    passing = allow("iam:PassRole", on=role, when=to_vm_import)
    start(user(admin, allow("ec2:ImportImage"), passing, read))


def test_import_image_needs_permission_to_read_the_disks(admin: Account) -> None:
    admin.make_role()
    start_tasks = allow("ec2:ImportImage", "iam:PassRole")
    bucket, disk = f"arn:aws:s3:::{admin.bucket}", f"arn:aws:s3:::{admin.bucket}/disk.raw"
    location, content = allow("s3:GetBucketLocation", on=bucket), allow("s3:GetObject", on=disk)

    for incomplete in ([start_tasks, location], [start_tasks, content]):
        someone = user(admin, *incomplete)
        code, _, message = refused(lambda someone=someone: start(someone))  # type: ignore[misc]
        assert code == "InvalidParameter"
        assert message.startswith("The service role vmimport does not exist or does not have")
    someone = user(admin, start_tasks, location, content)
    start(someone)
    admin.s3.put_object(Bucket=admin.bucket, Key="second.raw", Body=RAW)
    assert refused(lambda: start(someone, "disk.raw", "second.raw"))[0] == "InvalidParameter"
    admin.server.knobs(import_checks_caller=False)
    try:
        start(user(admin, start_tasks))
    finally:
        admin.server.knobs(import_checks_caller=True)


@pytest.mark.parametrize("operation", ["create_tags", "delete_tags"])
def test_tags_are_authorized_on_each_resource(admin: Account, operation: str) -> None:
    specification = {"ResourceType": "import-image-task", "Tags": [{"Key": "a", "Value": "b"}]}
    mine, other = admin.start(TagSpecifications=[specification]), admin.start()
    owned = {"StringEquals": {"aws:ResourceTag/a": "b"}}
    someone = user(admin, allow("ec2:CreateTags", "ec2:DeleteTags", when=owned))
    change = getattr(someone.ec2, operation)
    tags = [{"Key": "c", "Value": "d"}]

    change(Resources=[mine], Tags=tags)

    refusal = refused(lambda: change(Resources=[mine, other], Tags=tags))
    assert refusal[0] == "UnauthorizedOperation"


@pytest.mark.parametrize("operation", ["create_tags", "delete_tags"])
def test_tags_of_ec2_are_authorized_by_their_values(admin: Account, operation: str) -> None:
    task_id = admin.start()
    of_stack = {"StringEquals": {"aws:RequestTag/stack": STACK}}
    someone = user(admin, allow("ec2:CreateTags", "ec2:DeleteTags", when=of_stack))
    change = getattr(someone.ec2, operation)

    change(Resources=[task_id], Tags=[{"Key": "stack", "Value": STACK}])

    other = [{"Key": "stack", "Value": "other"}]
    refusal = refused(lambda: change(Resources=[task_id], Tags=other))
    assert refusal[0] == "UnauthorizedOperation"


def test_cancelling_a_task_is_authorized_by_its_tags(admin: Account) -> None:
    specification = {"ResourceType": "import-image-task", "Tags": [{"Key": "a", "Value": "b"}]}
    mine, other = admin.start(TagSpecifications=[specification]), admin.start()
    owned = {"StringEquals": {"aws:ResourceTag/a": "b"}}
    someone = user(admin, allow("ec2:CancelImportTask", when=owned))
    someone.ec2.cancel_import_task(ImportTaskId=mine)
    refusal = refused(lambda: someone.ec2.cancel_import_task(ImportTaskId=other))
    assert refusal[0] == "UnauthorizedOperation"


def test_the_attributes_of_an_ami_are_authorized_by_its_tags(admin: Account) -> None:
    tasks = admin.start(), admin.start()
    admin.finish()
    mine, other = (admin.task(task_id)["ImageId"] for task_id in tasks)
    admin.ec2.create_tags(Resources=[mine], Tags=[{"Key": "a", "Value": "b"}])
    date = datetime.fromtimestamp(admin.server.now(), UTC) + timedelta(days=30)
    actions = ("ModifyImageAttribute", "EnableImageDeprecation", "DisableImageDeprecation")
    someone = user(
        admin,
        allow(
            *(f"ec2:{action}" for action in actions),
            on="arn:aws:ec2:us-east-1::image/*",
            when={"StringEquals": {"aws:ResourceTag/a": "b"}},
        ),
    )
    calls: list[Callable[[str], object]] = [
        lambda ami: someone.ec2.modify_image_attribute(
            ImageId=ami, LaunchPermission={"Add": [{"UserId": "111122223333"}]}
        ),
        lambda ami: someone.ec2.enable_image_deprecation(ImageId=ami, DeprecateAt=date),
        lambda ami: someone.ec2.disable_image_deprecation(ImageId=ami),
    ]

    for action, call in zip(actions, calls, strict=True):
        call(mine)
        code, _, message = refused(lambda call=call: call(other))  # type: ignore[misc]
        assert code == "UnauthorizedOperation"
        assert f"ec2:{action} on resource: arn:aws:ec2:us-east-1::image/{other}" in message


def test_amis_and_snapshots_have_no_account_in_their_arns(admin: Account) -> None:
    task_id = admin.start()
    admin.finish()
    task = admin.task(task_id)
    image, snapshot = task["ImageId"], task["SnapshotDetails"][0]["SnapshotId"]
    with_account = user(
        admin, allow("ec2:DeregisterImage", on=f"arn:aws:ec2:*:{admin.account_id}:image/*")
    )
    refusal = refused(lambda: with_account.ec2.deregister_image(ImageId=image))
    assert refusal[0] == "UnauthorizedOperation"
    someone = user(
        admin,
        allow("ec2:DeregisterImage", on="arn:aws:ec2:us-east-1::image/*"),
        allow("ec2:DeleteSnapshot", on="arn:aws:ec2:us-east-1::snapshot/*"),
    )
    someone.ec2.deregister_image(ImageId=image)
    someone.ec2.delete_snapshot(SnapshotId=snapshot)


def test_snapshots_without_permission_to_delete_are_retained_when_the_ami_is_deregistered(
    admin: Account,
) -> None:
    task_id = admin.start()
    admin.finish()
    task = admin.task(task_id)
    snapshot = task["SnapshotDetails"][0]["SnapshotId"]
    someone = user(admin, allow("ec2:DeregisterImage"))
    result = someone.ec2.deregister_image(ImageId=task["ImageId"], DeleteAssociatedSnapshots=True)
    assert result["DeleteSnapshotResults"] == [
        {"SnapshotId": snapshot, "ReturnCode": "missing-permissions"}
    ]
    assert len(admin.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 1


def test_creating_a_recipe_is_authorized_on_the_recipe(admin: Account) -> None:
    recipe = arn(admin, "image-recipe/my-recipe/1.0.0")
    someone = user(
        admin, allow("imagebuilder:CreateImageRecipe", on=recipe), allow("ec2:DescribeImages")
    )
    wanted: Any = {"semanticVersion": "1.0.0", "parentImage": "ami-0123456789abcdef0"}
    someone.images.create_image_recipe(name="My Recipe", **wanted)
    denied(
        lambda: someone.images.create_image_recipe(name="other", **wanted),
        "imagebuilder:CreateImageRecipe",
        arn(admin, "image-recipe/other/1.0.0"),
    )


def test_a_recipe_needs_permission_to_read_what_it_names(admin: Account) -> None:
    parent = admin.import_image(tags={"stack": STACK})
    component = "arn:aws:imagebuilder:us-east-1:aws:component/update-linux/x.x.x"
    may = [allow("imagebuilder:CreateImageRecipe"), allow("ec2:DescribeImages")]
    read = allow(
        "imagebuilder:GetImage",
        on=parent,
        when={"StringEquals": {"aws:ResourceTag/stack": STACK}},
    )
    wanted: Any = {
        "name": "recipe",
        "semanticVersion": "1.0.0",
        "parentImage": parent,
        "components": [{"componentArn": component}],
    }
    someone = user(admin, *may)
    denied(lambda: someone.images.create_image_recipe(**wanted), "imagebuilder:GetImage", parent)
    someone = user(admin, *may, read)
    denied(
        lambda: someone.images.create_image_recipe(**wanted),
        "imagebuilder:GetComponent",
        component,
    )
    someone = user(admin, *may, read, allow("imagebuilder:GetComponent", on=component))
    assert someone.images.create_image_recipe(**wanted)["imageRecipeArn"]


def test_a_recipe_needs_permission_to_read_each_of_its_components(admin: Account) -> None:
    prefix = "arn:aws:imagebuilder:us-east-1:aws:component"
    first, second = f"{prefix}/update-linux/x.x.x", f"{prefix}/python-3-linux/x.x.x"
    may = [allow("imagebuilder:CreateImageRecipe"), allow("ec2:DescribeImages")]
    someone = user(admin, *may, allow("imagebuilder:GetComponent", on=first))
    wanted: Any = {
        "name": "recipe",
        "semanticVersion": "1.0.0",
        "parentImage": "ami-0123456789abcdef0",
        "components": [{"componentArn": first}, {"componentArn": second}],
    }

    denied(
        lambda: someone.images.create_image_recipe(**wanted), "imagebuilder:GetComponent", second
    )


def test_a_pipeline_needs_permission_to_read_its_parts(admin: Account) -> None:
    recipe = arn(admin, "image-recipe/recipe/1.0.0")
    infrastructure = arn(admin, "infrastructure-configuration/infra")
    wanted: Any = {
        "name": "pipeline",
        "imageRecipeArn": recipe,
        "infrastructureConfigurationArn": infrastructure,
    }
    someone = user(admin, allow("imagebuilder:CreateImagePipeline"))
    denied(
        lambda: someone.images.create_image_pipeline(**wanted),
        "imagebuilder:GetImageRecipe",
        recipe,
    )
    may = [allow("imagebuilder:CreateImagePipeline"), allow("imagebuilder:GetImageRecipe")]
    someone = user(admin, *may)
    denied(
        lambda: someone.images.create_image_pipeline(**wanted),
        "imagebuilder:GetInfrastructureConfiguration",
        infrastructure,
    )
