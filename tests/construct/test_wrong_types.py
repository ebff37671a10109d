"""A wrong type fails at synth like a wrong value: path, value, what is allowed and what to do."""

from __future__ import annotations

import enum
import inspect
import itertools
import re
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from hypothesis import given, settings
from hypothesis import strategies as st

import cdk_vm_import
from cdk_vm_import import (
    AmiSettings,
    ImportedVmImage,
    IVmImage,
    Platform,
    VmDisk,
    VmImportDashboard,
    VmImportProvider,
    VmImportRole,
    VmImportTask,
)

if TYPE_CHECKING:
    from collections.abc import Callable

STACK = cdk.Stack(cdk.App(), "Stack")
NUMBERS = itertools.count()
BUCKET = s3.Bucket(STACK, "Bucket")
DISK = VmDisk.from_bucket(BUCKET, "rhel9.vmdk")
IMAGE: dict[str, Any] = {
    "image_name": "rhel9-golden",
    "semantic_version": "1.0.0",
    "platform": Platform.LINUX,
    "vm_import_task_id": "import-ami-0123456789abcdef0",
}


def image(stack: cdk.Stack) -> ImportedVmImage:
    return ImportedVmImage(stack, "Image", **IMAGE)


# Public constructors with arguments that are valid.
CONSTRUCTORS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "ImportedVmImage": (ImportedVmImage, IMAGE),
    "from_image_arn": (
        ImportedVmImage.from_image_arn,
        {"image_arn": "arn:aws:imagebuilder:us-east-1:123456789012:image/a/1.0.0/1"},
    ),
    "from_image_attributes": (
        ImportedVmImage.from_image_attributes,
        {
            "image_arn": "arn:aws:imagebuilder:us-east-1:123456789012:image/a/1.0.0/1",
            "image_id": "ami-0123456789abcdef0",
            "platform": Platform.LINUX,
        },
    ),
    "from_image_name": (ImportedVmImage.from_image_name, {"image_name": "rhel9-golden"}),
    "AmiSettings": (AmiSettings, {"imds_support": "v2.0"}),
    "VmImportTask": (VmImportTask, {"disks": [DISK]}),
    "VmImportRole": (VmImportRole, {"disks": [DISK]}),
    "VmImportProvider": (VmImportProvider, {}),
    "VmImportDashboard": (VmImportDashboard, {}),
    "from_bucket": (VmDisk.from_bucket, {"bucket": BUCKET, "key": "rhel9.vmdk"}),
    "from_asset": (VmDisk.from_asset, {"path": __file__}),
    "from_snapshot": (VmDisk.from_snapshot, {"snapshot_id": "snap-0123456789abcdef0"}),
}
OF_DISKS = ("from_bucket", "from_asset", "from_snapshot")
ROLE = iam.Role(STACK, "Role", assumed_by=iam.AccountRootPrincipal())
RULE: dict[str, Any] = dict.fromkeys(("target", "description", "rule_name")) | {
    "construct_id": "Rule"
}
# Public methods, called in a stack, with all their arguments.
METHODS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "apply_removal_policy": (
        lambda stack, policy: image(stack).apply_removal_policy(policy),
        {"policy": cdk.RemovalPolicy.DESTROY},
    ),
    "publish_image_id_to_ssm": (
        lambda stack, parameter_name: image(stack).publish_image_id_to_ssm(parameter_name),
        {"parameter_name": "/images/rhel9"},
    ),
    "grant": (
        lambda stack, grantee, actions: image(stack).grant(grantee, actions),
        {"grantee": ROLE, "actions": "imagebuilder:GetImage"},
    ),
    "grant_read": (lambda stack, grantee: image(stack).grant_read(grantee), {"grantee": ROLE}),
    "on_state_change": (lambda stack, **rule: image(stack).on_state_change(**rule), RULE),
    "on_available": (lambda stack, **rule: image(stack).on_available(**rule), RULE),
    "on_failed": (lambda stack, **rule: image(stack).on_failed(**rule), RULE),
    # `options` stands for any of them.
    "metric": (
        lambda stack, metric_name, options: image(stack).metric(metric_name, period=options),
        {"metric_name": "Failed", "options": cdk.Duration.minutes(5)},
    ),
    "metric_duration": (
        lambda stack, options: image(stack).metric_duration(statistic=options),
        {"options": "Average"},
    ),
    "metric_failed": (
        lambda stack, options: image(stack).metric_failed(visible=options),
        {"options": True},
    ),
    "metric_errors": (
        lambda stack, options: VmImportProvider(stack, "Provider").metric_errors(unit=options),
        {"options": cloudwatch.Unit.COUNT},
    ),
    "metric_failed_executions": (
        lambda stack, options: VmImportProvider(stack, "Provider").metric_failed_executions(
            label=options
        ),
        {"options": "failed"},
    ),
    "get_or_create": (lambda _, scope: VmImportProvider.get_or_create(scope), {"scope": STACK}),
}


def parameters(function: Callable[..., Any]) -> list[str]:
    named = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    return [name for name in inspect.signature(named).parameters if name != "self"]


ARGUMENTS = [
    *((name, argument) for name, (f, _) in CONSTRUCTORS.items() for argument in parameters(f)),
    *((name, argument) for name, (_, valid) in METHODS.items() for argument in valid),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def create(name: str, **arguments: Any) -> None:
    """Call a function in a stack of its own; a disk reports what is wrong to its task."""
    stack = cdk.Stack(STACK, f"Own{next(NUMBERS)}")
    if name in METHODS:
        method, valid = METHODS[name]
        method(stack, **valid | arguments)
        return
    constructor, valid = CONSTRUCTORS[name]
    place: dict[str, Any] = {"scope": stack, "construct_id": "Thing"}
    if name == "AmiSettings":
        place["image"] = ImportedVmImage(stack, "Image", **IMAGE)
    if name in OF_DISKS:
        VmImportTask(stack, "Import", disks=[constructor(**valid | arguments)])
    else:
        constructor(**place | valid | arguments)


def test_every_argument_of_the_package_is_tried() -> None:
    public: set[tuple[str, str]] = set()
    for cls in (getattr(cdk_vm_import, name) for name in cdk_vm_import.__all__):
        if issubclass(cls, enum.Enum) or cls is IVmImage:
            continue
        functions = dict(inspect.getmembers(cls, inspect.isroutine))
        if cls is not VmDisk:  # whose constructor only its own methods call
            functions[cls.__name__] = cls
        public |= {
            (name, argument)
            for name, function in functions.items()
            if not name.startswith("_") and function.__module__.startswith("cdk_vm_import.")
            for argument in parameters(function)
        }

    assert public == {*ARGUMENTS}


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS, ids=[f"{n}-{a}" for n, a in ARGUMENTS])
@settings(max_examples=10, deadline=None)
@given(value=JSON)
def test_no_value_of_any_argument_raises_anything_but_our_error(
    name: str, argument: str, value: Any
) -> None:
    try:
        create(name, **{argument: value})
    except ValueError as error:
        lines = str(error).splitlines()
        assert argument in {"scope", "construct_id"} or all("Stack/" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("VmImportTask", {"disks": None}, "disks None is not a list: use a list of VmDisks"),
        ("VmImportTask", {"disks": DISK}, "is not a list: use a list of VmDisks, such as [disk]."),
        ("VmImportTask", {"disks": ["a.vmdk"]}, "disks has 'a.vmdk': use a list of VmDisks"),
        ("VmImportTask", {"encrypted": "yes"}, "encrypted 'yes' is not a bool: use True or False."),
        ("VmImportTask", {"role": "vmimport"}, "role 'vmimport' is not valid: use an iam.Role"),
        (
            "VmImportTask",
            {"license_configurations": "arn:aws"},
            "license_configurations 'arn:aws' is not a list: use a list of ARNs.",
        ),
        ("VmImportRole", {"disks": DISK}, "use a list of VmDisks, such as [disk]."),
        ("from_bucket", {"bucket": "disks"}, "bucket 'disks' is not valid: use an s3.Bucket"),
        ("from_bucket", {"bucket": None}, "has no bucket: use an s3.Bucket."),
        ("from_bucket", {"key": "s3://disks/a.vmdk"}, "is a URL: use the key alone, such as"),
        ("from_bucket", {"key": None}, "is not a string: use the key of an object."),
        ("from_asset", {"path": None}, "is not a path: use a str."),
        ("from_asset", {"path": "a\r.vmdk"}, "a\\r.vmdk'."),
        ("from_snapshot", {"snapshot_id": None}, "is not a string: use the id of a snapshot"),
        ("ImportedVmImage", {"image_name": None}, "image_name None is not a string: use a str."),
        ("ImportedVmImage", {"log_group": "/aws"}, "log_group '/aws' is not valid: use a logs."),
        ("ImportedVmImage", {"provider": "mine"}, "provider 'mine' is not a VmImportProvider"),
        (
            "ImportedVmImage",
            {"vm_import_task_id": None, "vm_import_task": "import-ami-0123456789abcdef0"},
            "is not a VmImportTask: use one, or the id of a task as vm_import_task_id.",
        ),
        ("ImportedVmImage", {"delete_ami": "false"}, "delete_ami 'false' is not a bool: use True"),
        ("ImportedVmImage", {"wait_for_available": 0}, "wait_for_available 0 is not a bool"),
        ("ImportedVmImage", {"removal_policy": None}, "removal_policy None is not a RemovalPolicy"),
        ("ImportedVmImage", {"export_name": "a b"}, "export_name 'a b' is not valid: use 1 to 255"),
        ("from_image_arn", {"image_arn": None}, "image_arn None is not a string: use a str."),
        (
            "VmImportProvider",
            {"memory_size": 64},
            "memory_size 64 is not valid: use a whole number",
        ),
        (
            "VmImportProvider",
            {"memory_size": float("-inf")},
            "memory_size -inf is not valid: use a whole number",
        ),
        ("VmImportProvider", {"vpc": "vpc-0"}, "vpc 'vpc-0' is not valid: use an ec2.Vpc"),
        ("VmImportProvider", {"architecture": "arm64"}, "use lambda_.Architecture.X86_64 or"),
        ("VmImportProvider", {"log_retention": 90}, "use a member of logs.RetentionDays."),
        ("grant_read", {"grantee": None}, "grantee None is not valid: use an iam.Role, or another"),
        ("grant", {"actions": "GetImage"}, "action 'GetImage' is not valid: use one such as 'im"),
        ("on_failed", {"target": "topic"}, "Image/Rule: target 'topic' is not valid: use a target"),
        ("on_failed", {"rule_name": "a b"}, "rule_name 'a b' is not valid: use 1 to 64 letters"),
    ],
)
def test_an_argument_of_a_wrong_type_is_named_with_what_is_allowed(
    name: str, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)) as raised:
        create(name, **arguments)

    assert "Stack/" in str(raised.value)


def test_a_scope_that_is_no_construct_is_refused() -> None:
    with pytest.raises(ValueError, match="Thing: scope None is not a construct: use the stack"):
        create("ImportedVmImage", scope=None)


def test_a_long_value_is_cut_in_an_error() -> None:
    with pytest.raises(ValueError, match=r"image_name 'x+\.\.\.x+' is not valid") as raised:
        create("ImportedVmImage", image_name="x" * 10_000)

    assert len(str(raised.value)) < 400


def test_a_provider_is_made_before_the_first_image() -> None:
    stack = cdk.Stack(cdk.App(), "Stack")
    ImportedVmImage(stack, "Image", **IMAGE)

    with pytest.raises(ValueError, match="create the provider before them"):
        VmImportProvider(stack, "VmImportProvider")
