from __future__ import annotations

import inspect
import lzma
from typing import TYPE_CHECKING, Any, Protocol

import aws_cdk as cdk
import botocore.session
import botocore.validate
import pytest
from aws_cdk import assertions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3

import import_task_properties
from cdk_vm_import import (
    Architecture,
    BootMode,
    DiskFormat,
    LicenseType,
    Platform,
    VmDisk,
    VmImportProvider,
    VmImportTask,
    _contract,
)
from image_properties import Owner
from tests.disks.real_disks import FORMATS, real_disk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from constructs import Construct

    from tests.construct.conftest import ImportImage, ResourcesOf

TASK = "Custom::VmImportTask"
IMAGE = "Custom::ImportedVmImage"
LICENSE = (
    "arn:aws:license-manager:us-east-1:123456789012:license-configuration:lic-0123456789abcdef"
)


KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


class ImportDisks(Protocol):
    def __call__(
        self, scope: Construct, construct_id: str = "Import", **arguments: Any
    ) -> VmImportTask: ...


def bucket(stack: cdk.Stack) -> s3.IBucket:
    child = stack.node.try_find_child("Disks")
    return child if isinstance(child, s3.Bucket) else s3.Bucket(stack, "Disks")


@pytest.fixture
def import_disks() -> ImportDisks:
    """Imports disks with the arguments that matter to a test, and some for the others."""

    def call(scope: Construct, construct_id: str = "Import", **arguments: Any) -> VmImportTask:
        disks = arguments.pop("disks", None)
        if disks is None:
            disks = [VmDisk.from_bucket(bucket(cdk.Stack.of(scope)), "rhel9.vmdk")]
        return VmImportTask(scope, construct_id, disks=disks, **arguments)

    return call


@pytest.fixture
def task_properties(stack: cdk.Stack, resources_of: ResourcesOf) -> Callable[[], dict[str, Any]]:
    def call() -> dict[str, Any]:
        (task,) = resources_of(stack, TASK).values()
        return {key: v for key, v in task["Properties"].items() if key != "ServiceToken"}

    return call


# The task


def test_disks_alone_give_a_task_with_a_role_of_its_own(
    stack: cdk.Stack, import_disks: ImportDisks, task_properties: Callable[[], dict[str, Any]]
) -> None:
    task = import_disks(stack)

    assert task_properties() == {
        "DiskContainers": [
            {
                "Format": "VMDK",
                "UserBucket": {
                    "S3Bucket": stack.resolve(bucket(stack).bucket_name),
                    "S3Key": "rhel9.vmdk",
                },
            }
        ],
        "RoleName": stack.resolve(task.role.role_name),
        "Waiter": {"Ref": "VmImportProviderWaiterF6FCE749"},
    }


def test_every_argument_becomes_a_property(
    stack: cdk.Stack, import_disks: ImportDisks, task_properties: Callable[[], dict[str, Any]]
) -> None:
    key = kms.Key(stack, "Key")
    import_disks(
        stack,
        disks=[
            VmDisk.from_snapshot(
                "snap-0123456789abcdef0", device_name="/dev/sda1", description="The system"
            )
        ],
        platform=Platform.WINDOWS,
        architecture=Architecture.X86_64,
        boot_mode=BootMode.UEFI,
        license_type=LicenseType.BYOL,
        license_configurations=[LICENSE],
        encryption_key=key,
        description="The golden machine",
        role=iam.Role.from_role_name(stack, "Role", "vmimport"),
        tags={"team": "images"},
        client_token="a-token-of-my-own",
    )

    assert task_properties() == {
        "DiskContainers": [
            {
                "SnapshotId": "snap-0123456789abcdef0",
                "DeviceName": "/dev/sda1",
                "Description": "The system",
            }
        ],
        "Platform": "Windows",
        "Architecture": "x86_64",
        "BootMode": "uefi",
        "LicenseType": "BYOL",
        "LicenseSpecifications": [{"LicenseConfigurationArn": LICENSE}],
        "Encrypted": True,
        "KmsKeyId": stack.resolve(key.key_arn),
        "Description": "The golden machine",
        "RoleName": "vmimport",
        "Tags": {"team": "images"},
        "ClientToken": "a-token-of-my-own",
        "Waiter": {"Ref": "VmImportProviderWaiterF6FCE749"},
    }


def test_a_usage_operation_takes_the_place_of_a_license_type(
    stack: cdk.Stack, import_disks: ImportDisks, task_properties: Callable[[], dict[str, Any]]
) -> None:
    import_disks(stack, platform=Platform.WINDOWS, usage_operation="RunInstances:0002")

    assert task_properties()["UsageOperation"] == "RunInstances:0002"


def test_encryption_needs_no_key(
    stack: cdk.Stack, import_disks: ImportDisks, task_properties: Callable[[], dict[str, Any]]
) -> None:
    import_disks(stack, encrypted=True)

    found = task_properties()
    assert found["Encrypted"] is True
    assert "KmsKeyId" not in found


def test_the_id_is_asked_of_the_task(stack: cdk.Stack, import_disks: ImportDisks) -> None:
    assert stack.resolve(import_disks(stack).import_task_id) == {
        "Fn::GetAtt": ["Import98530AF4", "ImportTaskId"]
    }


def test_tags_of_the_app_reach_the_task(
    app: cdk.App,
    stack: cdk.Stack,
    import_disks: ImportDisks,
    task_properties: Callable[[], dict[str, Any]],
) -> None:
    import_disks(stack)
    cdk.Tags.of(app).add("team", "images")

    assert task_properties()["Tags"] == {"team": "images"}


def test_task_and_image_share_the_function(
    stack: cdk.Stack,
    import_disks: ImportDisks,
    import_image: ImportImage,
    resources_of: ResourcesOf,
) -> None:
    import_image(stack, vm_import_task=import_disks(stack), vm_import_task_id=None)

    assert len(resources_of(stack, "AWS::Lambda::Function")) == 1


# The contract with the handler and with deployed stacks


def test_the_names_of_the_resource_are_pinned() -> None:
    assert _contract.TASK_RESOURCE_TYPE == import_task_properties.RESOURCE_TYPE == TASK
    assert [str(name) for name in _contract.TaskProperty] == [
        "DiskContainers",
        "Platform",
        "Architecture",
        "BootMode",
        "LicenseType",
        "UsageOperation",
        "LicenseSpecifications",
        "Encrypted",
        "KmsKeyId",
        "Description",
        "ClientToken",
        "RoleName",
        "Tags",
        "Waiter",
        "DeleteAmi",
    ]
    assert [str(name) for name in _contract.TaskAttribute] == ["ImportTaskId"]


def test_the_arguments_are_pinned_and_keyword_only() -> None:
    parameters = inspect.signature(VmImportTask.__init__).parameters.values()

    assert [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY] == [
        "disks",
        "platform",
        "architecture",
        "boot_mode",
        "license_type",
        "usage_operation",
        "license_configurations",
        "encrypted",
        "encryption_key",
        "description",
        "role",
        "tags",
        "client_token",
        "provider",
    ]


def test_the_logical_ids_are_pinned(
    stack: cdk.Stack, import_disks: ImportDisks, resources_of: ResourcesOf
) -> None:
    import_disks(stack)

    assert list(resources_of(stack, TASK)) == ["Import98530AF4"]
    assert "ImportRoleDBDBFD64" in resources_of(stack, "AWS::IAM::Role")


def test_the_handler_makes_a_request_of_the_properties_that_the_model_accepts(
    stack: cdk.Stack, import_disks: ImportDisks, task_properties: Callable[[], dict[str, Any]]
) -> None:
    import_disks(
        stack,
        disks=[VmDisk.from_snapshot("snap-01234567", description="The system")],
        platform=Platform.WINDOWS,
        architecture=Architecture.I386,
        boot_mode=BootMode.LEGACY_BIOS,
        license_type=LicenseType.AWS,
        license_configurations=[LICENSE],
        encryption_key=kms.Key.from_key_arn(stack, "Key", KEY),
        role=iam.Role.from_role_name(stack, "Role", "vmimport"),
        tags={"team": "images"},
    )
    parsed = import_task_properties.ImportTaskProperties.parse(task_properties())
    request = parsed.request(Owner("stack", "Import"), "token")

    model: Any = botocore.session.get_session().get_service_model("ec2")
    shape = model.operation_model("ImportImage").input_shape
    assert not botocore.validate.ParamValidator().validate(request, shape).has_errors()
    (specification,) = request.pop("TagSpecifications")
    assert {tag["Key"] for tag in specification["Tags"]} >= {str(t) for t in _contract.OwnTag}
    assert request == {
        **{key: v for key, v in task_properties().items() if key not in {"Tags", "Waiter"}},
        "ClientToken": "token",
    }


# The disks


@pytest.mark.parametrize("ending", ["ova", "vmdk", "vhd", "vhdx", "raw", "VMDK", "Ova"])
def test_the_format_is_that_of_the_ending(stack: cdk.Stack, ending: str) -> None:
    disk = VmDisk.from_bucket(bucket(stack), f"disks/rhel9.{ending}")

    assert disk.problems == []
    assert disk.format is DiskFormat(ending.upper())


def test_a_format_that_is_given_wins_over_the_ending(stack: cdk.Stack) -> None:
    disk = VmDisk.from_bucket(bucket(stack), "rhel9.img", format=DiskFormat.RAW)

    assert disk.problems == []
    assert disk.format is DiskFormat.RAW


@pytest.mark.parametrize("disk_format", FORMATS)
def test_a_real_disk_of_each_format_is_taken(tmp_path: Path, disk_format: str) -> None:
    path = tmp_path / f"disk.{disk_format.lower()}"
    path.write_bytes(real_disk(disk_format))

    assert VmDisk.from_asset(str(path)).problems == []


def test_a_vhd_of_fixed_size_is_told_by_its_footer(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhd"
    path.write_bytes(real_disk("RAW") + b"conectix".ljust(512, b"\0"))

    assert VmDisk.from_asset(str(path)).problems == []


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("disk.vmdk", real_disk("RAW"), "is no VMDK disk, but RAW"),
        ("disk.raw", real_disk("VHDX"), "is no RAW disk, but VHDX"),
        ("disk.ova", real_disk("VMDK"), "is no OVA disk, but VMDK"),
        ("disk.vhdx", b"", "is no VHDX disk, nor a disk of any other format"),
        ("disk.raw", bytes(1024), "is no RAW disk, nor a disk of any other format"),
        ("disk.raw", lzma.compress(bytes(1024)), "is no RAW disk, nor a disk of any other"),
        ("disk.raw", b"QFI\xfb".ljust(512, b"\0"), "is a qcow2 disk, which ImportImage does not"),
        ("disk.vmdk", b"# Disk DescriptorFile\n", "is only the descriptor of a VMDK"),
        ("disk.qcow2", b"QFI\xfb", "has a name that ends in none of .ova, .vmdk, .vhd, .vhdx"),
    ],
)
def test_a_file_that_is_no_disk_of_its_format_is_told_at_synth(
    stack: cdk.Stack,
    import_disks: ImportDisks,
    tmp_path: Path,
    name: str,
    content: bytes,
    problem: str,
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(ValueError, match="wrong arguments for the import Stack/Import") as error:
        import_disks(stack, disks=[VmDisk.from_asset(str(path))])

    assert f"disk {str(path)!r} {problem}" in str(error.value)


def test_a_file_becomes_an_asset_that_task_and_role_share(
    stack: cdk.Stack,
    import_disks: ImportDisks,
    task_properties: Callable[[], dict[str, Any]],
    tmp_path: Path,
) -> None:
    path = tmp_path / "rhel9.vmdk"
    path.write_bytes(real_disk("VMDK"))
    import_disks(stack, disks=[VmDisk.from_asset(str(path))])

    assets = [child for child in stack.node.children if child.node.id.startswith("VmDisk")]
    (container,) = task_properties()["DiskContainers"]
    assert len(assets) == 1
    assert container["Format"] == "VMDK"
    assert container["UserBucket"]["S3Key"].endswith(".vmdk")


def test_another_content_is_another_disk(
    import_disks: ImportDisks, resources_of: ResourcesOf, tmp_path: Path
) -> None:
    path = tmp_path / "disk.raw"
    keys = []
    for index in range(2):
        path.write_bytes(real_disk("RAW") + bytes(512 * index))
        stack = cdk.Stack(cdk.App(), "Stack")
        import_disks(stack, disks=[VmDisk.from_asset(str(path))])
        (task,) = resources_of(stack, TASK).values()
        keys.append(task["Properties"]["DiskContainers"][0]["UserBucket"]["S3Key"])

    assert keys[0] != keys[1]


# What does not go together


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"disks": []}, "disks is empty: give at least one"),
    ({"platform": Platform.MACOS}, "platform macOS is none that ImportImage takes"),
    ({"platform": "Linux"}, "platform 'Linux' is no Platform: give Platform.WINDOWS, Platform.LI"),
    ({"architecture": "arm64"}, "ImportImage refuses arm64: import the disk with 'aws ec2 import"),
    ({"architecture": "sparc"}, "architecture 'sparc' is no Architecture: give Architecture.X86_6"),
    ({"boot_mode": "uefi-preferred"}, "ImportImage refuses uefi-preferred: give BootMode.UEFI"),
    (
        {"platform": Platform.LINUX, "license_type": LicenseType.AWS},
        "license_type AWS is not for Linux: give LicenseType.BYOL",
    ),
    ({"platform": Platform.WINDOWS}, "platform Windows needs a licence: give license_type"),
    (
        {"license_type": LicenseType.BYOL, "usage_operation": "RunInstances:0800"},
        "license_type and usage_operation both say how the system is licensed: give one",
    ),
    ({"usage_operation": "RunInstances:800"}, "usage_operation 'RunInstances:800' is none"),
    ({"license_configurations": ["lic-1"]}, "license configuration 'lic-1' is not the ARN of one"),
    ({"description": ""}, "description has 0 characters: give 1 to 255"),
    ({"client_token": "x" * 65}, "client_token has 65 characters: give 1 to 64"),
    ({"tags": {"cdk-vm-import:token": "x"}}, "has a reserved prefix"),
    (
        {
            "disks": [VmDisk.from_snapshot("snap-01234567")],
            "boot_mode": BootMode.UEFI,
        },
        "boot_mode UEFI with a snapshot needs the platform: give it",
    ),
    ({"disks": [VmDisk.from_snapshot("vol-1")]}, "disk 'vol-1' is not the id of a snapshot"),
    (
        {"disks": [VmDisk.from_snapshot("snap-01234567", device_name="")]},
        "disk 'snap-01234567' device_name has 0 characters",
    ),
    ({"disks": [VmDisk.from_asset("no/such.raw")]}, "disk 'no/such.raw' is no file: the path"),
]


@pytest.mark.parametrize(("arguments", "problem"), WRONG)
def test_a_wrong_argument_is_told_with_what_to_give(
    stack: cdk.Stack, import_disks: ImportDisks, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match="wrong arguments for the import Stack/Import") as error:
        import_disks(stack, **arguments)

    assert problem in str(error.value)
    assert str(error.value).count("\n- ") == 1


def test_an_ova_goes_alone(stack: cdk.Stack, import_disks: ImportDisks) -> None:
    disks = [VmDisk.from_bucket(bucket(stack), name) for name in ("a.ova", "b.vmdk")]

    with pytest.raises(ValueError, match="an OVA holds all disks of a machine: give it alone"):
        import_disks(stack, disks=disks)


def test_a_name_that_only_the_deployment_knows_needs_a_format(
    stack: cdk.Stack, import_disks: ImportDisks
) -> None:
    key = cdk.CfnParameter(stack, "Key").value_as_string

    with pytest.raises(ValueError, match="has a name that only the deployment knows: give its"):
        import_disks(stack, disks=[VmDisk.from_bucket(bucket(stack), key)])
    import_disks(stack, disks=[VmDisk.from_bucket(bucket(stack), key, format=DiskFormat.VHD)])


def test_a_key_without_encryption_is_told(stack: cdk.Stack, import_disks: ImportDisks) -> None:
    with pytest.raises(ValueError, match="encrypted is False, but an encryption_key is given"):
        import_disks(stack, encrypted=False, encryption_key=kms.Key(stack, "Key"))


def test_all_problems_are_told_together(stack: cdk.Stack, import_disks: ImportDisks) -> None:
    with pytest.raises(ValueError, match="wrong arguments") as error:
        import_disks(stack, platform=Platform.WINDOWS, architecture="arm64", description="")

    assert str(error.value).count("\n- ") == 3


# The image of a task


def test_an_image_takes_the_id_of_its_task(
    stack: cdk.Stack,
    import_disks: ImportDisks,
    import_image: ImportImage,
    resources_of: ResourcesOf,
) -> None:
    task = import_disks(stack)
    import_image(stack, vm_import_task=task, vm_import_task_id=None)

    (image,) = resources_of(stack, IMAGE).values()
    assert image["Properties"]["VmImportTaskId"] == stack.resolve(task.import_task_id)


def test_an_image_takes_either_a_task_or_an_id(
    stack: cdk.Stack, import_disks: ImportDisks, import_image: ImportImage
) -> None:
    both: dict[str, Any] = {"vm_import_task": import_disks(stack)}
    none: dict[str, Any] = {"vm_import_task_id": None}

    for given in (both, none):
        with pytest.raises(ValueError, match="give either vm_import_task or vm_import_task_id"):
            import_image(stack, **given)


def test_an_image_and_its_task_are_of_one_platform_and_stack(
    app: cdk.App, stack: cdk.Stack, import_disks: ImportDisks, import_image: ImportImage
) -> None:
    task = import_disks(
        cdk.Stack(app, "Other"), platform=Platform.WINDOWS, license_type=LicenseType.AWS
    )

    with pytest.raises(ValueError, match="belongs to another stack: give its import_task") as error:
        import_image(stack, vm_import_task=task, vm_import_task_id=None)

    assert "is not that of vm_import_task" in str(error.value)


def test_another_disk_is_another_wait_in_the_twelve_hour_mode(
    import_disks: ImportDisks, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    handles: list[str] = []
    for key in ("first.vmdk", "second.vmdk", "first.vmdk"):
        stack = cdk.Stack(cdk.App(), "Stack")
        task = import_disks(stack, disks=[VmDisk.from_bucket(bucket(stack), key)])
        import_image(
            stack, vm_import_task=task, vm_import_task_id=None, timeout=cdk.Duration.hours(12)
        )
        handles += resources_of(stack, "AWS::CloudFormation::WaitConditionHandle")

    first, second, again = handles
    assert first == again != second


def test_delete_ami_is_told_to_the_task_that_makes_the_ami(
    stack: cdk.Stack,
    import_disks: ImportDisks,
    import_image: ImportImage,
    resources_of: ResourcesOf,
) -> None:
    import_image(stack, vm_import_task=import_disks(stack), vm_import_task_id=None, delete_ami=True)

    (image,) = resources_of(stack, IMAGE).values()
    (task,) = resources_of(stack, TASK).values()
    assert "DeleteAmi" not in image["Properties"]
    assert task["Properties"]["DeleteAmi"] is True


def test_delete_ami_is_told_to_the_image_if_the_task_is_from_elsewhere(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    import_image(stack, delete_ami=True)

    (image,) = resources_of(stack, IMAGE).values()
    assert image["Properties"]["DeleteAmi"] is True


# What the function may do


def sids(stack: cdk.Stack, provider: VmImportProvider) -> dict[str, dict[str, Any]]:
    template = assertions.Template.from_stack(stack).to_json()
    role = stack.resolve(provider.function.role.role_name)["Ref"]  # type: ignore[union-attr]
    (policy,) = template["Resources"][role]["Properties"]["Policies"]
    return {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}


def test_a_function_that_imports_no_disks_may_not(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack)

    allowed = str(sids(stack, VmImportProvider.get_or_create(stack)))
    for action in ("ImportImage", "PassRole", "CancelImportTask", "Deregister", "DeleteSnapshot"):
        assert f":{action}'" not in allowed


def test_the_function_may_pass_just_the_roles_of_its_tasks_and_just_to_vm_import(
    stack: cdk.Stack, import_disks: ImportDisks
) -> None:
    tasks = [import_disks(stack, f"Import{index}") for index in range(2)]

    assert sids(stack, VmImportProvider.get_or_create(stack))["PassRolesToVmImport"] == {
        "Sid": "PassRolesToVmImport",
        "Effect": "Allow",
        "Action": "iam:PassRole",
        "Resource": [stack.resolve(task.role.role_arn) for task in tasks],
        "Condition": {"StringEquals": {"iam:PassedToService": "vmie.amazonaws.com"}},
    }


def test_the_function_may_change_tasks_and_delete_amis_of_its_stack_alone(
    stack: cdk.Stack, import_disks: ImportDisks, import_image: ImportImage
) -> None:
    import_image(stack, vm_import_task=import_disks(stack), vm_import_task_id=None, delete_ami=True)

    found = sids(stack, VmImportProvider.get_or_create(stack))
    own = {"StringEquals": {"aws:ResourceTag/cdk-vm-import:stack": {"Ref": "AWS::StackId"}}}
    asked = {"StringEquals": {"aws:RequestTag/cdk-vm-import:stack": {"Ref": "AWS::StackId"}}}
    assert found["ImportDisksOfThisStack"]["Condition"] == asked
    assert found["ChangeImportTasksOfThisStack"]["Condition"] == own
    for kind, action in (("Ami", "DeregisterImage"), ("Snapshot", "DeleteSnapshot")):
        assert found[f"Delete{kind}sOfThisStack"]["Action"] == f"ec2:{action}"
        assert found[f"Delete{kind}sOfThisStack"]["Condition"] == own


def test_without_delete_ami_the_function_may_delete_no_ami(
    stack: cdk.Stack, import_disks: ImportDisks, import_image: ImportImage
) -> None:
    import_image(stack, vm_import_task=import_disks(stack), vm_import_task_id=None)

    assert "Deregister" not in str(sids(stack, VmImportProvider.get_or_create(stack)))


def test_the_policy_grows_by_nothing_but_roles(import_disks: ImportDisks) -> None:
    found = []
    for count in (1, 40):
        stack = cdk.Stack(cdk.App(), "Stack")
        role = iam.Role.from_role_name(stack, "Role", "vmimport")
        for index in range(count):
            import_disks(stack, f"Import{index}", role=role)
        found.append(sids(stack, VmImportProvider.get_or_create(stack)))

    one, forty = found
    assert one == forty
