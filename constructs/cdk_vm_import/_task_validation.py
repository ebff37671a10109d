"""Checks of what an import task is given. Each yields its problems; unresolved tokens pass.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportImage.html
"""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from aws_cdk import Token

from cdk_vm_import.disk_format import DiskFormat
from cdk_vm_import.import_options import Architecture, BootMode, LicenseType
from cdk_vm_import.platform import Platform

if TYPE_CHECKING:
    from cdk_vm_import.vm_disk import VmDisk

_SNAPSHOT = re.compile(r"snap-[0-9a-f]{8,17}")
_USAGE_OPERATION = re.compile(r"RunInstances(:[0-9a-z]{4})?")
_LICENSE_CONFIGURATION = re.compile(
    r"arn:aws[^:]*:license-manager:[^:]+:[0-9]{12}:license-configuration:lic-[0-9a-f]+"
)
_ADVICE = {
    "arm64": (
        "ImportImage refuses arm64: import the disk with 'aws ec2 import-snapshot' and "
        "'aws ec2 register-image --architecture arm64', and build on that AMI; Image Builder "
        "cannot take it as an imported image"
    ),
    "uefi-preferred": (
        "ImportImage refuses uefi-preferred: give BootMode.UEFI, or BootMode.LEGACY_BIOS if the "
        "machine starts that way too"
    ),
}


def snapshot_id(value: str) -> Iterator[str]:
    """Check for the id of a snapshot."""
    if not (Token.is_unresolved(value) or _SNAPSHOT.fullmatch(value)):
        yield "is not the id of a snapshot: give snap- and 8 to 17 hex digits"


def disks(value: Sequence["VmDisk"]) -> Iterator[str]:
    """Check each disk, and that they go together."""
    if not value:
        yield "disks is empty: give at least one"
    for disk in value:
        yield from disk.problems
    if len(value) > 1 and any(disk.format is DiskFormat.OVA for disk in value):
        yield "an OVA holds all disks of a machine: give it alone"


def choices(
    platform: object, architecture: object, boot_mode: object, license_type: object
) -> Iterator[str]:
    """Check what has few values."""
    if platform is Platform.MACOS:
        yield "platform macOS is none that ImportImage takes: give Platform.LINUX or .WINDOWS"
    for argument, value, known in (
        ("platform", platform, Platform),
        ("architecture", architecture, Architecture),
        ("boot_mode", boot_mode, BootMode),
        ("license_type", license_type, LicenseType),
    ):
        if value is None or isinstance(value, known):
            continue
        spelled = str(getattr(value, "value", value)).lower().replace("_", "-")
        names = ", ".join(f"{known.__name__}.{member.name}" for member in known)
        yield _ADVICE.get(spelled, f"{argument} {value!r} is no {known.__name__}: give {names}")


def license_of(
    platform: object, license_type: object, usage_operation: str | None
) -> Iterator[str]:
    """Check that the licence is one of the platform."""
    if platform is Platform.LINUX and license_type is LicenseType.AWS:
        yield (
            "license_type AWS is not for Linux: give LicenseType.BYOL; a subscription of AWS has "
            "a usage_operation of its own, such as 'RunInstances:0010' for RHEL"
        )
    if platform is Platform.WINDOWS and license_type is None and usage_operation is None:
        yield (
            "platform Windows needs a licence: give license_type, LicenseType.AWS or "
            "LicenseType.BYOL, or usage_operation"
        )
    if license_type is not None and usage_operation is not None:
        yield "license_type and usage_operation both say how the system is licensed: give one"
    if not (
        usage_operation is None
        or Token.is_unresolved(usage_operation)
        or _USAGE_OPERATION.fullmatch(usage_operation)
    ):
        yield (
            f"usage_operation {usage_operation!r} is none: give 'RunInstances', or that with a "
            "colon and four characters, such as 'RunInstances:0002'"
        )


def license_configurations(value: Sequence[str]) -> Iterator[str]:
    """Check for ARNs of License Manager."""
    for arn in value:
        if not (Token.is_unresolved(arn) or _LICENSE_CONFIGURATION.fullmatch(arn)):
            yield (
                f"license configuration {arn!r} is not the ARN of one: give "
                "arn:<partition>:license-manager:<region>:<account>:license-configuration:lic-..."
            )


def snapshots_start(
    value: Sequence["VmDisk"], boot_mode: object, platform: object
) -> Iterator[str]:
    """Check that EC2 can start a machine that it gets as snapshots."""
    if boot_mode is BootMode.UEFI and platform is None and any(disk.is_snapshot for disk in value):
        yield "boot_mode UEFI with a snapshot needs the platform: give it"
