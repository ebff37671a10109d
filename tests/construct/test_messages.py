"""Every error and warning that the constructs can raise is in messages.txt, as a user sees it.

To write the file again: UPDATE_MESSAGES=1 make pytest ARGS=tests/construct/test_messages.py
"""

from __future__ import annotations

import ast
import os
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs

from cdk_vm_import import (
    AmiSettings,
    BootMode,
    ImportedVmImage,
    LicenseType,
    Platform,
    VmDisk,
    VmImportDashboard,
    VmImportProvider,
    VmImportRole,
    VmImportTask,
)

if TYPE_CHECKING:
    from collections.abc import Callable

FILE: Final = Path(__file__).with_name("messages.txt")
SOURCES: Final = Path(__file__).parents[2] / "constructs/cdk_vm_import"
ARN: Final = "arn:aws:imagebuilder:eu-west-1:123456789012:image/rhel9/1.0.0/1"
HERE: Final = cdk.Environment(account="210987654321", region="us-east-1")


def image(stack: cdk.Stack, name: str = "Image", **arguments: Any) -> ImportedVmImage:
    required: dict[str, Any] = {
        "image_name": "rhel9",
        "semantic_version": "1.0.0",
        "platform": Platform.LINUX,
    }
    if "vm_import_task" not in arguments:
        required["vm_import_task_id"] = "import-ami-0123456789abcdef0"
    return ImportedVmImage(stack, name, **required | arguments)


def task(stack: cdk.Stack, *disks: VmDisk, **arguments: Any) -> VmImportTask:
    return VmImportTask(stack, "Import", **{"disks": list(disks)} | arguments)


def bucket(stack: cdk.Stack) -> s3.IBucket:
    return s3.Bucket.from_bucket_name(stack, "Bucket", "disks")


def stored(stack: cdk.Stack, key: Any = "a.vmdk", **arguments: Any) -> VmDisk:
    found = stack.node.try_find_child("Bucket") or bucket(stack)
    return VmDisk.from_bucket(found, key, **arguments)  # type: ignore[arg-type]


def imported(stack: cdk.Stack, key: Any = "a.vmdk", **arguments: Any) -> VmImportTask:
    """A task with one disk in a bucket."""
    return task(stack, stored(stack, key), **arguments)


def local(stack: cdk.Stack, name: str, content: bytes) -> VmImportTask:
    """A task with a file of the current folder."""
    Path(name).write_bytes(content)
    return task(stack, VmDisk.from_asset(name))


def token(stack: cdk.Stack) -> str:
    return cdk.CfnParameter(stack, "Token").value_as_string


def other(stack: cdk.Stack) -> cdk.Stack:
    return cdk.Stack(stack.node.root, "Other")  # type: ignore[arg-type]


def buckets(stack: cdk.Stack) -> None:
    for index in range(100):
        found = s3.Bucket.from_bucket_name(stack, f"Bucket{index}", f"disks-{index}")
        VmImportTask(stack, f"Import{index}", disks=[VmDisk.from_bucket(found, "a.vmdk")])


def named(stack: cdk.Stack, name: object, **arguments: Any) -> object:
    return ImportedVmImage.from_image_name(stack, "Image", name, **arguments)  # type: ignore[arg-type]


def attributes(stack: cdk.Stack, **arguments: Any) -> Any:
    return ImportedVmImage.from_image_attributes(stack, "Image", **{"image_arn": ARN} | arguments)


def shared(stack: cdk.Stack, construct_id: str = "Sharing", **arguments: Any) -> AmiSettings:
    """The settings of an AMI of the stack."""
    if "image" not in arguments:
        arguments["image"] = image(stack)
    return AmiSettings(stack, construct_id, **arguments)


# What a user does -> the message. In the order of the arguments.
CASES: dict[str, Callable[[cdk.Stack], object]] = {
    # where
    "an image outside of a stack": lambda _: image("here"),  # type: ignore[arg-type]
    "an id that is empty": lambda s: image(s, ""),
    # an image
    "image_name=9": lambda s: image(s, image_name=9),
    "image_name='a/b'": lambda s: image(s, image_name="a/b"),
    "semantic_version='1.0'": lambda s: image(s, semantic_version="1.0"),
    "platform='Linux'": lambda s: image(s, platform="linux"),
    "no task": lambda s: image(s, vm_import_task_id=None),
    "vm_import_task_id='ami-0'": lambda s: image(s, vm_import_task_id="ami-0"),
    "vm_import_task_id='import-snap-...'": lambda s: image(
        s, vm_import_task_id="import-snap-0123456789abcdef0"
    ),
    "vm_import_task='import-ami-0'": lambda s: image(s, vm_import_task="import-ami-0"),
    "a task of another stack": lambda s: image(s, vm_import_task=imported(other(s))),
    "another platform than the task": lambda s: image(
        s,
        platform=Platform.WINDOWS,
        vm_import_task=imported(s, platform=Platform.LINUX, license_type=LicenseType.BYOL),
    ),
    "description=''": lambda s: image(s, description=""),
    "log_group='name'": lambda s: image(s, log_group="name"),
    "a log group of another name": lambda s: image(
        s, log_group=logs.LogGroup.from_log_group_name(s, "Logs", "images")
    ),
    "a log group without a name": lambda s: image(s, log_group=logs.LogGroup(s, "Logs")),
    "tags=['a']": lambda s: image(s, tags=["a"]),
    "47 tags": lambda s: image(s, tags={str(number): "" for number in range(47)}),
    "a tag key with a question mark": lambda s: image(s, tags={"why?": ""}),
    "a tag key of AWS": lambda s: image(s, tags={"aws:name": ""}),
    "a tag value that is a number": lambda s: image(s, tags={"team": 1}),
    "a tag value of 257 characters": lambda s: image(s, tags={"team": "x" * 257}),
    "wait_for_available='no'": lambda s: image(s, wait_for_available="no"),
    "timeout=60": lambda s: image(s, timeout=60),
    "timeout=Duration.hours(13)": lambda s: image(s, timeout=cdk.Duration.hours(13)),
    "a timeout that is a token": lambda s: image(
        s, timeout=cdk.Duration.minutes(cdk.Token.as_number({"Ref": "Minutes"}))
    ),
    "removal_policy='destroy'": lambda s: image(s, removal_policy="destroy"),
    "removal_policy=RemovalPolicy.SNAPSHOT": lambda s: image(
        s, removal_policy=cdk.RemovalPolicy.SNAPSHOT
    ),
    "export_name='a b'": lambda s: image(s, export_name="a b"),
    "an export without an output": lambda s: image(s, export_name="a", stack_output=False),
    "provider='mine'": lambda s: image(s, provider="mine"),
    "a provider of another stack": lambda s: image(s, provider=VmImportProvider(other(s), "P")),
    "another construct with the provider's id": lambda s: [
        cdk.CfnResource(s, "VmImportProvider", type="AWS::SNS::Topic"),
        image(s),
    ],
    "delete_ami with an image that is retained": lambda s: image(s, delete_ami=True),
    "two images of one version": lambda s: [image(s), image(s, "Second")],
    "image_id without a wait": lambda s: image(s, wait_for_available=False).image_id,
    "events of a name that is a token": lambda s: image(s, image_name=token(s)).on_failed("Rule"),
    "publish_image_id_to_ssm('a b')": lambda s: image(s).publish_image_id_to_ssm("a b"),
    "publish_image_id_to_ssm twice": lambda s: [
        found := image(s),
        found.publish_image_id_to_ssm("a"),
        found.publish_image_id_to_ssm("b"),
    ],
    "metric('Available')": lambda s: image(s).metric("Available"),
    "metric_failed(statistic=1)": lambda s: image(s).metric_failed(statistic=1),  # type: ignore[arg-type]
    "metric_failed(period=Duration.seconds(7))": lambda s: image(s).metric_failed(
        period=cdk.Duration.seconds(7)
    ),
    "metric_duration(dimensions_map={})": lambda s: image(s).metric_duration(
        dimensions_map={}  # type: ignore[call-arg]
    ),
    "add_query_definition twice": lambda s: [
        found := image(s),
        found.add_query_definition(),
        found.add_query_definition(),
    ],
    "grant(None)": lambda s: image(s).grant_read(None),  # type: ignore[arg-type]
    "grant without actions": lambda s: image(s).grant(iam.User(s, "User")),
    "grant of 'GetImage'": lambda s: image(s).grant(iam.User(s, "User"), "GetImage"),
    "target='topic' of a rule": lambda s: image(s).on_failed("Rule", target="topic"),  # type: ignore[arg-type]
    "rule_name='a b'": lambda s: image(s).on_failed("Rule", rule_name="a b"),
    "201 images with outputs": lambda s: [image(s, f"Image{n}") for n in range(201)],
    # an image from elsewhere
    "from_image_arn('ami-0')": lambda s: ImportedVmImage.from_image_arn(s, "Image", "ami-0"),
    "from_image_attributes(image_id='0')": lambda s: attributes(s, image_id="0"),
    "image_id of an image from its ARN": lambda s: attributes(s).image_id,
    "metric_failed of an image from its ARN": lambda s: attributes(s).metric_failed(),
    "to_machine_image in another Region": lambda s: (
        attributes(s, image_id="ami-0123456789abcdef0", platform=Platform.LINUX)
        .to_machine_image()
        .get_image(cdk.Stack(s, "Other", env=HERE))
    ),
    "to_machine_image of an image from its ARN": lambda s: attributes(s).to_machine_image(),
    "an image of another account and Region": lambda s: attributes(
        cdk.Stack(s.node.root, "There", env=HERE)  # type: ignore[arg-type]
    ),
    "from_image_name of a token": lambda s: named(s, token(s)),
    "from_image_name(semantic_version='x.1.0')": lambda s: named(
        s, "rhel9", semantic_version="x.1.0"
    ),
    "image_id of an image from its name": lambda s: named(s, "rhel9").image_id,  # type: ignore[attr-defined]
    # the settings of an AMI
    "no settings": shared,
    "image='ami-0'": lambda s: shared(s, image="ami-0", imds_support="v2.0"),
    "settings of an image from its ARN": lambda s: shared(
        s, image=attributes(s, image_id="ami-0123456789abcdef0"), imds_support="v2.0"
    ),
    "settings of an image of another stack": lambda s: shared(
        s, image=image(other(s)), imds_support="v2.0"
    ),
    "settings of an image without a wait": lambda s: shared(
        s, image=image(s, wait_for_available=False), imds_support="v2.0"
    ),
    "settings twice": lambda s: [
        first := image(s),
        shared(s, image=first, imds_support="v2.0"),
        shared(s, "Second", image=first, imds_support="v2.0"),
    ],
    "settings of an image with 45 tags": lambda s: shared(
        s, image=image(s, tags={str(number): "" for number in range(45)}), imds_support="v2.0"
    ),
    "account_ids='111122223333'": lambda s: shared(s, account_ids="111122223333"),
    "account_ids=['1111-2222-3333']": lambda s: shared(s, account_ids=["1111-2222-3333"]),
    "organization_arns=['o-a1b2c3d4e5']": lambda s: shared(s, organization_arns=["o-a1b2c3d4e5"]),
    "organizational_unit_arns=['ou-ab12-11111111']": lambda s: shared(
        s, organizational_unit_arns=["ou-ab12-11111111"]
    ),
    "imds_support='required'": lambda s: shared(s, imds_support="required"),
    "deprecation_date='2030-01-01'": lambda s: shared(s, deprecation_date="2030-01-01"),
    "a date without a time zone": lambda s: shared(
        s,
        deprecation_date=datetime(2030, 1, 1),  # noqa: DTZ001
    ),
    "a date after ten years": lambda s: shared(
        s, deprecation_date=datetime(2999, 1, 1, tzinfo=UTC)
    ),
    "a date before 2006": lambda s: shared(
        s, deprecation_date=datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))
    ),
    "a date in the past": lambda s: shared(s, deprecation_date=datetime(2020, 1, 1, tzinfo=UTC)),
    "removal_policy=RemovalPolicy.SNAPSHOT of settings": lambda s: shared(
        s, imds_support="v2.0", removal_policy=cdk.RemovalPolicy.SNAPSHOT
    ),
    # an import task
    "disks=[]": task,
    "disks='a.vmdk'": lambda s: task(s, disks="a.vmdk"),
    "disks=['a.vmdk']": lambda s: task(s, disks=["a.vmdk"]),
    "22 disks": lambda s: task(s, *[stored(s)] * 22),
    "an OVA and another disk": lambda s: task(s, stored(s, "a.ova"), stored(s)),
    "two disks on one device": lambda s: task(
        s, *[stored(s, device_name="/dev/sdf") for _ in range(2)]
    ),
    "platform=Platform.MACOS": lambda s: imported(s, platform=Platform.MACOS),
    "platform='linux'": lambda s: imported(s, platform="linux"),
    "architecture='arm64'": lambda s: imported(s, architecture="arm64"),
    "boot_mode='uefi-preferred'": lambda s: imported(s, boot_mode="uefi-preferred"),
    "UEFI with a snapshot": lambda s: task(
        s, VmDisk.from_snapshot("snap-0123456789abcdef0"), boot_mode=BootMode.UEFI
    ),
    "Linux with AWS's licence": lambda s: imported(
        s, platform=Platform.LINUX, license_type=LicenseType.AWS
    ),
    "Windows without a licence": lambda s: imported(s, platform=Platform.WINDOWS),
    "two licences": lambda s: imported(
        s, license_type=LicenseType.BYOL, usage_operation="RunInstances"
    ),
    "usage_operation='RHEL'": lambda s: imported(s, usage_operation="RHEL"),
    "license_configurations=['lic-0']": lambda s: imported(s, license_configurations=["lic-0"]),
    "a key without encryption": lambda s: imported(
        s, encrypted=False, encryption_key=kms.Key(s, "Key")
    ),
    # a disk
    "bucket=None": lambda s: task(s, VmDisk.from_bucket(None, "a.vmdk")),  # type: ignore[arg-type]
    "key=None": lambda s: imported(s, None),
    "key=''": lambda s: imported(s, ""),
    "key='s3://disks/a.vmdk'": lambda s: imported(s, "s3://disks/a.vmdk"),
    "key='a.iso'": lambda s: imported(s, "a.iso"),
    "key='a.qcow2'": lambda s: imported(s, "a.qcow2"),
    "a key that is a token": lambda s: imported(s, token(s)),
    "format='raw'": lambda s: task(s, stored(s, format="raw")),
    "encryption_key='alias'": lambda s: task(s, stored(s, encryption_key="alias")),
    "path=None": lambda s: task(s, VmDisk.from_asset(None)),  # type: ignore[arg-type]
    "a path with a null character": lambda s: task(s, VmDisk.from_asset("\0")),
    "a path that does not exist": lambda s: task(s, VmDisk.from_asset("/disks/a.vmdk")),
    "a file of no known format": lambda s: local(s, "a.vhdx", b""),
    "a file of another format": lambda s: local(s, "a.ova", b"KDMV".ljust(512, b"\0")),
    "a descriptor of a VMDK": lambda s: local(s, "a.vmdk", b"# Disk DescriptorFile\n"),
    "a VMDK that is not stream-optimized": lambda s: local(s, "a.vmdk", b"COWD".ljust(512, b"\0")),
    "snapshot_id=None": lambda s: task(s, VmDisk.from_snapshot(None)),  # type: ignore[arg-type]
    "snapshot_id='ami-0'": lambda s: task(s, VmDisk.from_snapshot("ami-0")),
    # a role
    "role_name='a b'": lambda s: VmImportRole(s, "Role", disks=[stored(s)], role_name="a b"),
    "disks of a role in 300 buckets": lambda s: VmImportRole(
        s,
        "Role",
        disks=[
            VmDisk.from_bucket(s3.Bucket.from_bucket_name(s, f"B{n}", f"disks-{n}"), "a.vmdk")
            for n in range(300)
        ],
    ),
    # a provider
    "a provider after its first image": lambda s: [
        image(s),
        VmImportProvider(s, "VmImportProvider"),
    ],
    "vpc='vpc-0'": lambda s: VmImportProvider(s, "Provider", vpc="vpc-0"),  # type: ignore[arg-type]
    "vpc_subnets='private'": lambda s: VmImportProvider(
        s,
        "Provider",
        vpc=ec2.Vpc(s, "Vpc"),
        vpc_subnets="private",  # type: ignore[arg-type]
    ),
    "security_groups without a VPC": lambda s: VmImportProvider(
        s, "Provider", security_groups=[ec2.SecurityGroup(s, "Group", vpc=ec2.Vpc(s, "Vpc"))]
    ),
    "log_retention=90": lambda s: VmImportProvider(s, "Provider", log_retention=90),  # type: ignore[arg-type]
    "architecture='arm64' of a provider": lambda s: VmImportProvider(
        s,
        "Provider",
        architecture="arm64",  # type: ignore[arg-type]
    ),
    "memory_size='256'": lambda s: VmImportProvider(s, "Provider", memory_size="256"),  # type: ignore[arg-type]
    "memory_size=64": lambda s: VmImportProvider(s, "Provider", memory_size=64),
    "metric_errors(period=300)": lambda s: VmImportProvider(s, "Provider").metric_errors(
        period=300  # type: ignore[arg-type]
    ),
    "add_query_definitions twice": lambda s: [
        found := VmImportProvider(s, "Provider"),
        found.add_query_definitions(),
        found.add_query_definitions(),
    ],
    "runtime='python3.13'": lambda s: VmImportProvider(s, "Provider", runtime="python3.13"),  # type: ignore[arg-type]
    "a runtime that is not Python": lambda s: VmImportProvider(
        s, "Provider", runtime=lambda_.Runtime.NODEJS_22_X
    ),
    "function_name='a b'": lambda s: VmImportProvider(s, "Provider", function_name="a b"),
    "role='mine'": lambda s: VmImportProvider(s, "Provider", role="mine"),  # type: ignore[arg-type]
    "a role that Lambda may not assume": lambda s: VmImportProvider(
        s, "Provider", role=iam.Role(s, "Role", assumed_by=iam.AccountRootPrincipal())
    ),
    "a role that accepts no policies": lambda s: VmImportProvider(
        s,
        "Provider",
        role=iam.Role.from_role_arn(
            s, "Role", "arn:aws:iam::123456789012:role/import", mutable=False
        ),
    ),
    "reserved_concurrent_executions='10'": lambda s: VmImportProvider(
        s,
        "Provider",
        reserved_concurrent_executions="10",  # type: ignore[arg-type]
    ),
    "reserved_concurrent_executions=0": lambda s: VmImportProvider(
        s, "Provider", reserved_concurrent_executions=0
    ),
    "dead_letter_queue='undelivered'": lambda s: VmImportProvider(
        s,
        "Provider",
        dead_letter_queue="undelivered",  # type: ignore[arg-type]
    ),
    "a FIFO queue for dead letters": lambda s: VmImportProvider(
        s, "Provider", dead_letter_queue=sqs.Queue(s, "Queue", fifo=True)
    ),
    "tracing=True": lambda s: VmImportProvider(s, "Provider", tracing=True),  # type: ignore[arg-type]
    "log_executions='yes'": lambda s: VmImportProvider(s, "Provider", log_executions="yes"),  # type: ignore[arg-type]
    "disks in 100 buckets": buckets,
    # a dashboard
    "a dashboard without the only provider of the stack": lambda s: [
        VmImportProvider(s, "Mine"),
        VmImportDashboard(s, "Imports"),
    ],
    "provider='mine' of a dashboard": lambda s: VmImportDashboard(
        s,
        "Imports",
        provider="mine",  # type: ignore[arg-type]
    ),
    "dashboard_name='a b'": lambda s: VmImportDashboard(s, "Imports", dashboard_name="a b"),
}


def messages_of(case: Callable[[cdk.Stack], object]) -> list[str]:
    """What a user sees who does that: an error of a constructor, of synthesis, or warnings."""
    app = cdk.App()
    stack = cdk.Stack(app, "Stack")
    try:
        case(stack)
    except ValueError as error:
        return str(error).splitlines()
    try:
        app.synth()
    except RuntimeError as error:
        return re.findall(r"^\s*(\[Stack\b.*)$", str(error), re.MULTILINE)
    stacks = [node for node in app.node.find_all() if isinstance(node, cdk.Stack)]
    return [
        f"warning: {message.id.removeprefix('/')}: {message.entry.data}"
        for found in stacks
        for message in assertions.Annotations.from_stack(found).find_warning(
            "*", assertions.Match.any_value()
        )
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    """All messages as the file has them."""
    folder = Path.cwd()
    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.chdir(tmp_path_factory.mktemp("messages"))
        found = {title: messages_of(case) for title, case in CASES.items()}
    assert Path.cwd() == folder
    assert [title for title, messages in found.items() if not messages] == []
    text = "\n".join("\n    ".join([title, *lines]) + "\n" for title, lines in found.items())
    return re.sub(r"TOKEN\.\d+", "TOKEN.1", text)


def templates() -> dict[str, str]:
    """The texts in the sources that have several words, with where they are."""
    found = {}
    for source in SOURCES.glob("*.py"):
        tree = ast.parse(source.read_text())
        skipped: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr):
                skipped |= {id(node.value)}  # a docstring
            if isinstance(node, ast.keyword) and node.arg in {"description", "title", "label"}:
                skipped |= {id(node.value)}  # in the template
            if isinstance(node, ast.JoinedStr):
                skipped |= {id(part) for part in node.values}
        for node in ast.walk(tree):
            if id(node) in skipped:
                continue
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts = [
                part.value if isinstance(part, ast.Constant) else None
                for part in parts
                if isinstance(part, (ast.Constant, ast.FormattedValue))
            ]
            pattern = "".join(re.escape(text) if isinstance(text, str) else ".*" for text in texts)
            if pattern.count("\\ ") > 2:
                found[pattern] = f"{source.name}:{getattr(node, 'lineno', 0)}"
    return found


# Texts that are no messages of a constructor or of synthesis.
OTHERS: Final = {
    "EC2\\ Image\\ Builder\\ Image\\ State\\ Change": "a detail type",
    "is\\ not\\ installed": "needs an installation that is broken",
    "has\\ no\\ contract\\.py": "needs an installation that is broken",
    "to_base_image\\ needs\\ the\\ package": "tested in test_interoperability.py",
    "a\\ local\\ disk\\ has": "tested in test_conventions.py: it takes a file of 2 GiB",
    "module\\ ": "an AttributeError of Python",
    "@timestamp": "a query",
    "ispresent": "a query",
    "latest": "a query",
    "filter\\ .*\\ =\\ '": "a query",
    "SEARCH": "a search expression",
}


def test_the_file_has_all_messages_as_a_user_sees_them(written: str) -> None:
    if "UPDATE_MESSAGES" in os.environ:
        FILE.write_text(written)

    assert FILE.read_text() == written


def test_each_text_in_the_sources_is_in_a_message() -> None:
    text = FILE.read_text()
    missing = {
        pattern: where
        for pattern, where in templates().items()
        if not re.search(pattern, text) and not any(other in pattern for other in OTHERS)
    }

    assert missing == {}
