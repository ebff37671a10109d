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

import contract
from cdk_vm_import import (
    Architecture,
    BootMode,
    DiskFormat,
    LicenseType,
    Platform,
    VmDisk,
    VmImportProvider,
    VmImportTask,
)
from contract import ImageProperty, OwnTag, ResourceType, TaskAttribute, TaskProperty
from identity import Owner
from import_task.properties import ImportTaskProperties
from tests.disks.real_disks import FORMATS, real_disk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from constructs import Construct

    from tests.construct.conftest import ImportImage, Predecessors, ResourcesOf

TASK = ResourceType.IMPORT_TASK
IMAGE = ResourceType.IMAGE
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
    """Imports disks with the arguments that matter to a test, and defaults for the others."""

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


def test_a_task_without_a_role_gets_the_role_of_the_stack(
    stack: cdk.Stack, import_disks: ImportDisks, task_properties: Callable[[], dict[str, Any]]
) -> None:
    task = import_disks(stack)

    assert task_properties() == {
        TaskProperty.DISK_CONTAINERS: [
            {
                "Format": "VMDK",
                "UserBucket": {
                    "S3Bucket": stack.resolve(bucket(stack).bucket_name),
                    "S3Key": "rhel9.vmdk",
                },
            }
        ],
        TaskProperty.ROLE_NAME: stack.resolve(task.role.role_name),
        TaskProperty.STATE_MACHINE_ARN: {"Ref": "VmImportProviderEventStateMachine79B5AC06"},
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
        TaskProperty.DISK_CONTAINERS: [
            {
                "SnapshotId": "snap-0123456789abcdef0",
                "DeviceName": "/dev/sda1",
                "Description": "The system",
            }
        ],
        TaskProperty.PLATFORM: "Windows",
        TaskProperty.ARCHITECTURE: "x86_64",
        TaskProperty.BOOT_MODE: "uefi",
        TaskProperty.LICENSE_TYPE: "BYOL",
        TaskProperty.LICENSE_SPECIFICATIONS: [{"LicenseConfigurationArn": LICENSE}],
        TaskProperty.ENCRYPTED: True,
        TaskProperty.KMS_KEY_ID: stack.resolve(key.key_arn),
        TaskProperty.DESCRIPTION: "The golden machine",
        TaskProperty.ROLE_NAME: "vmimport",
        TaskProperty.TAGS: {"team": "images"},
        TaskProperty.CLIENT_TOKEN: "a-token-of-my-own",
        TaskProperty.STATE_MACHINE_ARN: {"Ref": "VmImportProviderEventStateMachine79B5AC06"},
    }


def test_a_usage_operation_can_replace_the_license_type(
    stack: cdk.Stack, import_disks: ImportDisks, task_properties: Callable[[], dict[str, Any]]
) -> None:
    import_disks(stack, platform=Platform.WINDOWS, usage_operation="RunInstances:0002")

    assert task_properties()[TaskProperty.USAGE_OPERATION] == "RunInstances:0002"


def test_encryption_does_not_require_a_key(
    stack: cdk.Stack, import_disks: ImportDisks, task_properties: Callable[[], dict[str, Any]]
) -> None:
    import_disks(stack, encrypted=True)

    found = task_properties()
    assert found[TaskProperty.ENCRYPTED] is True
    assert TaskProperty.KMS_KEY_ID not in found


def test_the_task_id_is_an_attribute_of_the_resource(
    stack: cdk.Stack, import_disks: ImportDisks
) -> None:
    assert stack.resolve(import_disks(stack).import_task_id) == {
        "Fn::GetAtt": ["Import98530AF4", TaskAttribute.IMPORT_TASK_ID]
    }


def test_tags_of_the_app_reach_the_task(
    app: cdk.App,
    stack: cdk.Stack,
    import_disks: ImportDisks,
    task_properties: Callable[[], dict[str, Any]],
) -> None:
    import_disks(stack)
    cdk.Tags.of(app).add("team", "images")

    assert task_properties()[TaskProperty.TAGS] == {"team": "images"}


def test_task_and_image_share_the_function(
    stack: cdk.Stack,
    import_disks: ImportDisks,
    import_image: ImportImage,
    resources_of: ResourcesOf,
) -> None:
    import_image(stack, vm_import_task=import_disks(stack), vm_import_task_id=None)

    assert len(resources_of(stack, "AWS::Lambda::Function")) == 1


# The public contract


def test_the_names_of_the_resource_are_pinned() -> None:
    assert contract.ResourceType.IMPORT_TASK.value == "Custom::VmImportTask"
    assert [str(name) for name in contract.TaskProperty] == [
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
        "StateMachineArn",
        "DeleteAmi",
    ]
    assert [str(name) for name in contract.TaskAttribute] == ["ImportTaskId"]


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
    assert "VmImportTaskRoleCEF30FC9" in resources_of(stack, "AWS::IAM::Role")


def test_the_handler_makes_a_request_from_the_template_that_the_model_accepts(
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
    found = task_properties()
    request = ImportTaskProperties.read(found).request(Owner("stack", "Import"), "token")

    model: Any = botocore.session.get_session().get_service_model("ec2")
    shape = model.operation_model("ImportImage").input_shape
    assert not botocore.validate.ParamValidator().validate(request, shape).has_errors()
    (specification,) = request.pop("TagSpecifications")
    assert {tag["Key"] for tag in specification["Tags"]} >= {str(t) for t in contract.OwnTag}
    own = {contract.TaskProperty.TAGS, contract.TaskProperty.STATE_MACHINE_ARN}
    assert request == {
        **{name: value for name, value in found.items() if name not in own},
        "ClientToken": "token",
    }


# The disks


@pytest.mark.parametrize("ending", ["ova", "vmdk", "vhd", "vhdx", "raw", "VMDK", "Ova"])
def test_the_format_derives_from_the_ending_of_the_key(stack: cdk.Stack, ending: str) -> None:
    disk = VmDisk.from_bucket(bucket(stack), f"disks/rhel9.{ending}")

    assert disk._problems == []
    assert disk.format is DiskFormat(ending.upper())


def test_a_given_format_takes_precedence_over_the_ending(stack: cdk.Stack) -> None:
    disk = VmDisk.from_bucket(bucket(stack), "rhel9.img", format=DiskFormat.RAW)

    assert disk._problems == []
    assert disk.format is DiskFormat.RAW


@pytest.mark.parametrize("disk_format", FORMATS)
def test_a_real_disk_of_each_format_is_accepted(tmp_path: Path, disk_format: str) -> None:
    path = tmp_path / f"disk.{disk_format.lower()}"
    path.write_bytes(real_disk(disk_format))

    assert VmDisk.from_asset(str(path))._problems == []


def test_a_vhd_of_fixed_size_is_recognised_by_its_footer(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhd"
    path.write_bytes(real_disk("RAW") + b"conectix".ljust(512, b"\0"))

    assert VmDisk.from_asset(str(path))._problems == []


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("disk.vmdk", real_disk("RAW"), "is RAW, not VMDK: correct the format"),
        ("disk.raw", real_disk("VHDX"), "is VHDX, not RAW"),
        ("disk.ova", real_disk("VMDK"), "is VMDK, not OVA"),
        ("disk.vhdx", b"", "is not VHDX, and not in another supported format."),
        ("disk.raw", bytes(1024), "is not RAW, and not in another supported format."),
        ("disk.raw", lzma.compress(bytes(1024)), "is not RAW, and not in another"),
        ("disk.raw", b"QFI\xfb".ljust(512, b"\0"), "is a qcow2 disk, which ImportImage does not"),
        ("disk.vmdk", b"# Disk DescriptorFile\n", "is only the descriptor of a VMDK"),
        ("disk.qcow2", b"QFI\xfb", "is a qcow2 disk, which ImportImage does not support: convert"),
        (
            "disk.VDI",
            b"<<< Oracle",
            "is a vdi disk, which ImportImage does not support: convert it",
        ),
        ("disk.iso", b"", "has a name without one of the endings .ova, .vmdk, .vhd"),
        ("disk.vmdk", b"COWD".ljust(512, b"\0"), "is a VMDK that is not stream-optimized, which"),
    ],
)
def test_a_file_with_another_format_than_its_name_is_an_error_at_synthesis(
    stack: cdk.Stack,
    import_disks: ImportDisks,
    tmp_path: Path,
    name: str,
    content: bytes,
    problem: str,
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r"^Stack/Import: ") as error:
        import_disks(stack, disks=[VmDisk.from_asset(str(path))])

    assert f"disk {str(path)!r} {problem}" in str(error.value)


@pytest.mark.parametrize(
    ("at", "size"),
    [
        pytest.param(10, 1, id="without the flag for compressed grains"),
        pytest.param(77, 2, id="without a method of compression"),
    ],
)
def test_a_vmdk_that_is_not_stream_optimized_is_an_error_that_says_how_to_convert_it(
    tmp_path: Path, at: int, size: int
) -> None:
    path = tmp_path / "disk.vmdk"
    disk = real_disk("VMDK")
    path.write_bytes(disk[:at] + bytes(size) + disk[at + size :])

    (problem,) = VmDisk.from_asset(str(path))._problems
    assert problem == (
        f"disk {str(path)!r} is a VMDK that is not stream-optimized, which ImportImage does not "
        "support: convert it with 'qemu-img convert -O vmdk -o subformat=streamOptimized'."
    )


@pytest.mark.parametrize("disk_format", [None, DiskFormat.RAW])
def test_a_qcow2_in_a_bucket_is_an_error_by_its_name(
    stack: cdk.Stack, disk_format: DiskFormat | None
) -> None:
    (problem,) = VmDisk.from_bucket(bucket(stack), "a.qcow2", format=disk_format)._problems

    assert problem == (
        "disk 'a.qcow2' is a qcow2 disk, which ImportImage does not support: convert it with "
        "'qemu-img convert -f qcow2 -O raw', or with "
        "'qemu-img convert -O vmdk -o subformat=streamOptimized', which makes a smaller file."
    )


def test_two_files_of_the_same_name_are_two_assets(
    stack: cdk.Stack,
    import_disks: ImportDisks,
    task_properties: Callable[[], dict[str, Any]],
    tmp_path: Path,
) -> None:
    paths = [tmp_path / folder / "disk.raw" for folder in ("system", "data")]
    for index, path in enumerate(paths):
        path.parent.mkdir()
        path.write_bytes(bytes(509) + bytes([index, 0x55, 0xAA]))
    import_disks(stack, disks=[VmDisk.from_asset(str(path)) for path in paths])

    keys = [
        container["UserBucket"]["S3Key"]
        for container in task_properties()[TaskProperty.DISK_CONTAINERS]
    ]
    assert len(set(keys)) == 2


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
    (container,) = task_properties()[TaskProperty.DISK_CONTAINERS]
    assert len(assets) == 1
    assert container["Format"] == "VMDK"
    assert container["UserBucket"]["S3Key"].endswith(".vmdk")


def test_a_change_of_the_file_changes_the_disk(
    new_stack: Callable[[], cdk.Stack],
    import_disks: ImportDisks,
    resources_of: ResourcesOf,
    tmp_path: Path,
) -> None:
    path = tmp_path / "disk.raw"
    keys = []
    for index in range(2):
        path.write_bytes(real_disk("RAW") + bytes(512 * index))
        stack = new_stack()
        import_disks(stack, disks=[VmDisk.from_asset(str(path))])
        (task,) = resources_of(stack, TASK).values()
        keys.append(task["Properties"][TaskProperty.DISK_CONTAINERS][0]["UserBucket"]["S3Key"])

    assert keys[0] != keys[1]


# The order of creation


@pytest.fixture
def created_first(
    stack: cdk.Stack, resources_of: ResourcesOf, predecessors: Predecessors
) -> Callable[[], dict[str, list[str]]]:
    """The resources that are created before the task, by type."""

    def call() -> dict[str, list[str]]:
        (task,) = resources_of(stack, TASK)
        return predecessors(stack, task)

    return call


def vm_import_role(stack: cdk.Stack) -> iam.Role:
    return iam.Role(stack, "Role", assumed_by=iam.ServicePrincipal("vmie.amazonaws.com"))


def grant(stack: cdk.Stack, role: iam.Role) -> None:
    bucket(stack).grant_read(role)


def attach_policy(stack: cdk.Stack, role: iam.Role) -> None:
    statement = iam.PolicyStatement(actions=["ec2:RegisterImage"], resources=["*"])
    iam.Policy(stack, "Policy", statements=[statement], roles=[role])


def attach_managed_policy(stack: cdk.Stack, role: iam.Role) -> None:
    statement = iam.PolicyStatement(actions=["ec2:RegisterImage"], resources=["*"])
    iam.ManagedPolicy(stack, "Policy", statements=[statement], roles=[role])


def attach_role_policy(stack: cdk.Stack, role: iam.Role) -> None:
    iam.CfnRolePolicy(stack, "Policy", policy_name="Policy", role_name=role.role_name)


@pytest.mark.parametrize(
    ("add_policy", "resource_type"),
    [
        (grant, "AWS::IAM::Policy"),
        (attach_policy, "AWS::IAM::Policy"),
        (attach_managed_policy, "AWS::IAM::ManagedPolicy"),
        (attach_role_policy, "AWS::IAM::RolePolicy"),
    ],
)
@pytest.mark.parametrize("imported", [False, True])
def test_a_task_waits_for_each_policy_of_its_role_also_one_that_is_added_later(
    stack: cdk.Stack,
    import_disks: ImportDisks,
    created_first: Callable[[], dict[str, list[str]]],
    add_policy: Callable[[cdk.Stack, iam.IRole], None],
    resource_type: str,
    imported: bool,  # noqa: FBT001 - a parameter
) -> None:
    role = iam.Role.from_role_name(stack, "R", "vmimport") if imported else vm_import_role(stack)
    import_disks(stack, role=role)
    add_policy(stack, role)

    assert len(created_first()[resource_type]) == 1


def test_a_task_waits_for_the_policies_of_the_shared_role(
    stack: cdk.Stack,
    import_disks: ImportDisks,
    created_first: Callable[[], dict[str, list[str]]],
) -> None:
    task = import_disks(stack)
    bucket(stack).grant_read(task.role)

    found = created_first()
    assert len(found["AWS::IAM::Policy"]) == 1
    assert "VmImportTaskRoleCEF30FC9" in found["AWS::IAM::Role"]


def test_a_task_waits_for_the_policies_of_its_buckets_and_of_no_other_role_or_bucket(
    stack: cdk.Stack,
    import_disks: ImportDisks,
    created_first: Callable[[], dict[str, list[str]]],
) -> None:
    import_disks(stack)
    s3.Bucket(stack, "Other", enforce_ssl=True)
    other = iam.Role(stack, "OtherRole", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
    bucket(stack).grant_read(other)
    bucket(stack).add_to_resource_policy(
        iam.PolicyStatement(
            actions=["s3:GetObject"],
            principals=[iam.AnyPrincipal()],
            resources=[bucket(stack).arn_for_objects("*")],
        )
    )

    found = created_first()
    assert found["AWS::S3::BucketPolicy"] == ["DisksPolicy962B1097"]
    assert "AWS::IAM::Policy" not in found


# What is refused


NOT_VALID: list[tuple[dict[str, Any], str]] = [
    ({"disks": []}, "disks is empty: use at least one disk."),
    (
        {"platform": Platform.MACOS},
        "platform macOS is not supported by ImportImage: use Platform.L",
    ),
    ({"platform": "Linux"}, "platform 'Linux' is not one of Platform: use Platform.WINDOWS, P"),
    ({"architecture": "arm64"}, "architecture arm64 is not supported by ImportImage: import the d"),
    ({"architecture": "sparc"}, "architecture 'sparc' is not one of Architecture: use Architectur"),
    ({"boot_mode": "uefi-preferred"}, "boot_mode uefi-preferred is not supported by Import"),
    (
        {"platform": Platform.LINUX, "license_type": LicenseType.AWS},
        "license_type AWS is not possible for Linux: use LicenseType.BYOL",
    ),
    ({"platform": Platform.WINDOWS}, "platform Windows requires a licence: use license_type"),
    (
        {"license_type": LicenseType.BYOL, "usage_operation": "RunInstances:0800"},
        "license_type and usage_operation are both given: use one of them.",
    ),
    ({"usage_operation": "RunInstances:800"}, "usage_operation 'RunInstances:800' is not valid"),
    ({"license_configurations": ["lic-1"]}, "license configuration 'lic-1' is not valid: use its"),
    ({"description": ""}, "description has 0 characters: use 1 to 255"),
    ({"client_token": "x" * 65}, "client_token has 65 characters: use 1 to 64"),
    ({"tags": {OwnTag.TOKEN: "x"}}, "has a reserved prefix"),
    (
        {
            "disks": [VmDisk.from_snapshot("snap-01234567")],
            "boot_mode": BootMode.UEFI,
        },
        "platform is missing: boot_mode UEFI with a snapshot requires it.",
    ),
    ({"disks": [VmDisk.from_snapshot("vol-1")]}, "disk 'vol-1' is not the id of a snapshot"),
    (
        {"disks": [VmDisk.from_snapshot("snap-01234567", device_name="")]},
        "disk 'snap-01234567' device_name has 0 characters",
    ),
    ({"disks": [VmDisk.from_asset("no/such.raw")]}, "disk 'no/such.raw' is not a file: there"),
    (
        {"disks": [VmDisk.from_snapshot(f"snap-{index:08x}") for index in range(22)]},
        "disks has 22 entries: use at most 21. Import the others with 'aws ec2 import-snapshot'",
    ),
    (
        {"disks": [VmDisk.from_snapshot(f"snap-0123456{i}", device_name="/dev/sdb") for i in "78"]},
        "device_name '/dev/sdb' has 2 disks: use another device for each disk.",
    ),
]


@pytest.mark.parametrize(("arguments", "problem"), NOT_VALID)
def test_an_error_names_the_task_the_invalid_value_and_what_is_allowed(
    stack: cdk.Stack, import_disks: ImportDisks, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=r"^Stack/Import: ") as error:
        import_disks(stack, **arguments)

    assert problem in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_21_disks_on_different_devices_are_accepted(
    stack: cdk.Stack, import_disks: ImportDisks
) -> None:
    disks = [
        VmDisk.from_snapshot(f"snap-{index:08x}", device_name=f"/dev/sd{chr(97 + index)}")
        for index in range(20)
    ]

    import_disks(stack, disks=[*disks, VmDisk.from_snapshot("snap-01234567")])


def test_values_that_are_known_only_at_deployment_are_accepted(
    stack: cdk.Stack, import_disks: ImportDisks, task_properties: Callable[[], dict[str, Any]]
) -> None:
    parameter = cdk.CfnParameter(stack, "Parameter")
    value = parameter.value_as_string
    import_disks(
        stack,
        disks=[VmDisk.from_snapshot(value, device_name=value) for _ in range(2)],
        usage_operation=value,
        license_configurations=[value],
        description=value,
        client_token=value,
    )

    found = task_properties()
    assert found[TaskProperty.LICENSE_SPECIFICATIONS] == [
        {"LicenseConfigurationArn": {"Ref": "Parameter"}}
    ]


def test_tags_of_the_app_are_validated_at_synthesis(
    app: cdk.App, stack: cdk.Stack, import_disks: ImportDisks
) -> None:
    import_disks(stack)
    cdk.Tags.of(app).add(OwnTag.TOKEN, "x")

    with pytest.raises(Exception, match=r"Stack/Import\] tag key .* has a reserved prefix"):
        app.synth()


def test_an_ova_must_be_the_only_disk(stack: cdk.Stack, import_disks: ImportDisks) -> None:
    disks = [VmDisk.from_bucket(bucket(stack), name) for name in ("a.ova", "b.vmdk")]

    with pytest.raises(
        ValueError, match="disks has an OVA and other disks: an OVA contains all disks"
    ):
        import_disks(stack, disks=disks)


def test_the_ending_of_a_key_is_checked_though_the_rest_is_a_token(stack: cdk.Stack) -> None:
    key = f"{cdk.CfnParameter(stack, 'Folder').value_as_string}/rhel9.qcow2"

    (problem,) = VmDisk.from_bucket(bucket(stack), key, format=DiskFormat.RAW)._problems

    assert "is a qcow2 disk, which ImportImage does not support" in problem


def test_a_key_that_is_a_token_requires_a_format(
    stack: cdk.Stack, import_disks: ImportDisks
) -> None:
    key = cdk.CfnParameter(stack, "Key").value_as_string

    with pytest.raises(ValueError, match="has a name that is known only at deployment: use the"):
        import_disks(stack, disks=[VmDisk.from_bucket(bucket(stack), key)])
    import_disks(stack, disks=[VmDisk.from_bucket(bucket(stack), key, format=DiskFormat.VHD)])


def test_a_kms_key_without_encryption_is_an_error(
    stack: cdk.Stack, import_disks: ImportDisks
) -> None:
    with pytest.raises(ValueError, match="encrypted is False, but encryption_key is given"):
        import_disks(stack, encrypted=False, encryption_key=kms.Key(stack, "Key"))


def test_an_error_lists_all_problems_of_a_task(stack: cdk.Stack, import_disks: ImportDisks) -> None:
    with pytest.raises(ValueError, match=r"^Stack/Import: ") as error:
        import_disks(stack, platform=Platform.WINDOWS, architecture="arm64", description="")

    assert len(str(error.value).splitlines()) == 3


# The image of a task


def test_an_image_gets_the_id_of_its_task(
    stack: cdk.Stack,
    import_disks: ImportDisks,
    import_image: ImportImage,
    resources_of: ResourcesOf,
) -> None:
    task = import_disks(stack)
    import_image(stack, vm_import_task=task, vm_import_task_id=None)

    (image,) = resources_of(stack, IMAGE).values()
    assert image["Properties"][ImageProperty.VM_IMPORT_TASK_ID] == stack.resolve(
        task.import_task_id
    )


def test_an_image_requires_either_a_task_or_an_id(
    stack: cdk.Stack, import_disks: ImportDisks, import_image: ImportImage
) -> None:
    both: dict[str, Any] = {"vm_import_task": import_disks(stack)}
    none: dict[str, Any] = {"vm_import_task_id": None}

    for given in (both, none):
        with pytest.raises(ValueError, match="vm_import_task or vm_import_task_id is required"):
            import_image(stack, **given)


def test_an_image_and_its_task_must_have_the_same_platform_and_stack(
    app: cdk.App, stack: cdk.Stack, import_disks: ImportDisks, import_image: ImportImage
) -> None:
    task = import_disks(
        cdk.Stack(app, "Other"), platform=Platform.WINDOWS, license_type=LicenseType.AWS
    )

    with pytest.raises(ValueError, match="belongs to another stack: use its import_task") as error:
        import_image(stack, vm_import_task=task, vm_import_task_id=None)

    assert "is not the platform of vm_import_task" in str(error.value)


def test_another_disk_changes_no_logical_id_of_a_chain(
    new_stack: Callable[[], cdk.Stack], import_disks: ImportDisks, import_image: ImportImage
) -> None:
    ids: list[set[str]] = []
    for key in ("first.vmdk", "second.vmdk"):
        stack = new_stack()
        task = import_disks(stack, disks=[VmDisk.from_bucket(bucket(stack), key)])
        import_image(
            stack, vm_import_task=task, vm_import_task_id=None, timeout=cdk.Duration.hours(12)
        )
        ids.append(set(assertions.Template.from_stack(stack).to_json()["Resources"]))

    assert ids[0] == ids[1]


def test_delete_ami_is_a_property_of_the_task_that_creates_the_ami(
    stack: cdk.Stack,
    import_disks: ImportDisks,
    import_image: ImportImage,
    resources_of: ResourcesOf,
) -> None:
    import_image(stack, vm_import_task=import_disks(stack), vm_import_task_id=None, delete_ami=True)

    (image,) = resources_of(stack, IMAGE).values()
    (task,) = resources_of(stack, TASK).values()
    assert ImageProperty.DELETE_AMI not in image["Properties"]
    assert task["Properties"][TaskProperty.DELETE_AMI] is True


def test_delete_ami_is_a_property_of_the_image_if_the_stack_has_no_task(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    import_image(stack, delete_ami=True)

    (image,) = resources_of(stack, IMAGE).values()
    assert image["Properties"][ImageProperty.DELETE_AMI] is True


# Permissions of the function


def sids(stack: cdk.Stack, provider: VmImportProvider) -> dict[str, dict[str, Any]]:
    template = assertions.Template.from_stack(stack).to_json()
    role = stack.resolve(provider.function.role.role_name)["Ref"]  # type: ignore[union-attr]
    (policy,) = template["Resources"][role]["Properties"]["Policies"]
    return {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}


def test_without_a_task_the_function_may_not_import_disks(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack)

    allowed = str(sids(stack, VmImportProvider.get_or_create(stack)))
    for action in ("ImportImage", "PassRole", "GetObject"):
        assert f":{action}'" not in allowed


def test_only_the_start_of_imports_is_denied_after_tasks_and_delete_ami_are_removed(
    new_stack: Callable[[], cdk.Stack], import_disks: ImportDisks, import_image: ImportImage
) -> None:
    """CloudFormation updates the role first, and then deletes what the update removes."""
    before, after = new_stack(), new_stack()
    import_image(before)
    task = import_disks(before)
    deleted: dict[str, Any] = {"vm_import_task_id": None, "delete_ami": True}
    import_image(before, "FromTask", vm_import_task=task, **deleted)
    import_image(before, "WithAmi", semantic_version="2.0.0", delete_ami=True)
    import_image(after)

    allowed = sids(before, VmImportProvider.get_or_create(before))
    for sid in ("ImportDisksOfThisStack", "ImportDisks", "CheckDisks", "PassRolesToVmImport"):
        del allowed[sid]
    assert sids(after, VmImportProvider.get_or_create(after)) == allowed


def test_the_function_may_pass_only_the_roles_of_its_tasks_and_only_to_vm_import(
    stack: cdk.Stack, import_disks: ImportDisks
) -> None:
    roles = [iam.Role.from_role_name(stack, f"Role{index}", f"vmimport{index}") for index in "ab"]
    for role in [*roles, None]:
        import_disks(stack, f"Import{role and role.role_name}", role=role)
    shared = import_disks(stack).role

    statement = sids(stack, VmImportProvider.get_or_create(stack))["PassRolesToVmImport"]
    passed = [stack.resolve(role.role_arn) for role in [*roles, shared]]
    # A feature flag of CDK sorts the ARNs.
    assert sorted(map(str, statement.pop("Resource"))) == sorted(map(str, passed))
    assert statement == {
        "Sid": "PassRolesToVmImport",
        "Effect": "Allow",
        "Action": "iam:PassRole",
        "Condition": {"StringEquals": {"iam:PassedToService": "vmie.amazonaws.com"}},
    }


def test_the_function_has_what_the_guide_of_vm_import_lists_for_the_disks(
    stack: cdk.Stack, import_disks: ImportDisks
) -> None:
    """https://docs.aws.amazon.com/vm-import/latest/userguide/required-permissions.html"""
    disks = s3.Bucket.from_bucket_arn(stack, "Disks", "arn:aws:s3:::disks")
    import_disks(stack, disks=[VmDisk.from_bucket(disks, "rhel9.vmdk")])

    assert sids(stack, VmImportProvider.get_or_create(stack))["CheckDisks"] == {
        "Sid": "CheckDisks",
        "Effect": "Allow",
        "Action": ["s3:GetBucketLocation", "s3:GetObject"],
        "Resource": ["arn:aws:s3:::disks", "arn:aws:s3:::disks/rhel9.vmdk"],
    }


def test_the_function_may_change_only_tasks_and_amis_of_its_own_stack(
    stack: cdk.Stack, import_disks: ImportDisks, import_image: ImportImage
) -> None:
    import_image(stack, vm_import_task=import_disks(stack), vm_import_task_id=None, delete_ami=True)

    found = sids(stack, VmImportProvider.get_or_create(stack))
    on_resource = {f"aws:ResourceTag/{OwnTag.STACK}": {"Ref": "AWS::StackId"}}
    in_request = {f"aws:RequestTag/{OwnTag.STACK}": {"Ref": "AWS::StackId"}}
    assert found["ImportDisksOfThisStack"]["Condition"] == {
        "StringEquals": in_request,
        "StringEqualsIfExists": on_resource,
    }
    assert found["ChangeImportTasksOfThisStack"]["Condition"] == {
        "StringEquals": on_resource,
        "StringEqualsIfExists": in_request,
    }
    for name, action in (
        ("ChangeAmisOfThisStack", "ec2:DeregisterImage"),
        ("DeleteSnapshotsOfThisStack", "ec2:DeleteSnapshot"),
    ):
        assert action in found[name]["Action"]
        assert found[name]["Condition"] == {"StringEquals": on_resource}


def test_the_policy_grows_only_with_the_number_of_roles(
    new_stack: Callable[[], cdk.Stack], import_disks: ImportDisks
) -> None:
    found = []
    for count in (1, 40):
        stack = new_stack()
        role = iam.Role.from_role_name(stack, "Role", "vmimport")
        for index in range(count):
            import_disks(stack, f"Import{index}", role=role)
        found.append(sids(stack, VmImportProvider.get_or_create(stack)))

    one, forty = found
    assert one == forty
