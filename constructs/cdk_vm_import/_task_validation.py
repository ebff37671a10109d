"""Checks of the arguments of an import task. Each yields a sentence per problem.

Unresolved tokens pass. The limits are those of ImportImage:
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportImage.html
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from aws_cdk import Token

from cdk_vm_import import _validation
from cdk_vm_import.disk_format import DiskFormat
from cdk_vm_import.import_options import Architecture, BootMode, LicenseType
from cdk_vm_import.platform import Platform
from cdk_vm_import.vm_disk import VmDisk

# https://docs.aws.amazon.com/vm-import/latest/userguide/prerequisites.html
_MAX_DISKS = 21
_USAGE_OPERATION = re.compile(r"RunInstances(:[0-9a-z]{4})?")
_LICENSE_CONFIGURATION = re.compile(
    r"arn:aws[^:]*:license-manager:[^:]+:[0-9]{12}:license-configuration:lic-[0-9a-f]+"
)
# Values that people try because EC2 supports them elsewhere.
_UNSUPPORTED = {
    "arm64": (
        "architecture arm64 is not supported by ImportImage: import the disk with "
        "'aws ec2 import-snapshot' and 'aws ec2 register-image --architecture arm64', and use "
        "that AMI as the parent of recipes. Image Builder cannot import it as an image."
    ),
    "uefi-preferred": (
        "boot_mode uefi-preferred is not supported by ImportImage: use BootMode.UEFI, or "
        "BootMode.LEGACY_BIOS if the machine can also boot in that mode."
    ),
}


def disks(value: Sequence[VmDisk]) -> Iterator[str]:
    """Check each disk, and their combination."""
    problems = [*_validation.listed("disks", value, VmDisk, "VmDisks, such as [disk]")]
    yield from problems
    if problems:
        return
    if not value:
        yield "disks is empty: use at least one disk."
    for disk in value:
        yield from disk._problems  # noqa: SLF001 - ours
    if len(value) > 1 and any(disk.format is DiskFormat.OVA for disk in value):
        yield "disks has an OVA and other disks: an OVA contains all disks, so use it alone."
    if len(value) > _MAX_DISKS:
        yield (
            f"disks has {len(value)} entries: use at most {_MAX_DISKS}. Import the others with "
            "'aws ec2 import-snapshot', and attach them to the instances of the AMI."
        )
    names = (disk._device_name for disk in value)  # noqa: SLF001 - ours
    devices = Counter(name for name in names if isinstance(name, str))
    for device, count in devices.items():
        if not Token.is_unresolved(device) and count > 1:
            yield f"device_name {device!r} has {count} disks: use another device for each disk."


def choices(
    platform: object, architecture: object, boot_mode: object, license_type: object
) -> Iterator[str]:
    """Check the arguments that are members of enums."""
    if platform is Platform.MACOS:
        yield (
            "platform macOS is not supported by ImportImage: use Platform.LINUX or "
            "Platform.WINDOWS."
        )
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
        yield _UNSUPPORTED.get(
            spelled,
            f"{argument} {_validation.shown(value)} is not one of {known.__name__}: use {names}.",
        )


def license_of(platform: object, license_type: object, usage_operation: object) -> Iterator[str]:
    """Check that platform and licence fit."""
    if platform is Platform.LINUX and license_type is LicenseType.AWS:
        yield (
            "license_type AWS is not possible for Linux: use LicenseType.BYOL. For a subscription "
            "that AWS bills, use its usage_operation, such as 'RunInstances:0010' for RHEL."
        )
    if platform is Platform.WINDOWS and license_type is None and usage_operation is None:
        yield (
            "platform Windows requires a licence: use license_type LicenseType.AWS or "
            "LicenseType.BYOL, or usage_operation."
        )
    if license_type is not None and usage_operation is not None:
        yield "license_type and usage_operation are both given: use one of them."
    if not (
        usage_operation is None
        or (
            isinstance(usage_operation, str)
            and (
                Token.is_unresolved(usage_operation) or _USAGE_OPERATION.fullmatch(usage_operation)
            )
        )
    ):
        yield (
            f"usage_operation {_validation.shown(usage_operation)} is not valid: use "
            "'RunInstances', or add a colon and four characters, such as 'RunInstances:0002'."
        )


def license_configurations(value: Sequence[str]) -> Iterator[str]:
    """Check for ARNs of License Manager configurations."""
    problems = [*_validation.listed("license_configurations", value, str, "ARNs")]
    yield from problems
    for arn in value if not problems else ():
        if not (Token.is_unresolved(arn) or _LICENSE_CONFIGURATION.fullmatch(arn)):
            yield (
                f"license configuration {_validation.shown(arn)} is not valid: use its ARN, "
                "arn:<partition>:license-manager:<region>:<account>:license-configuration:lic-..."
            )


def platform_of_snapshot(
    value: Sequence[VmDisk], boot_mode: object, platform: object
) -> Iterator[str]:
    """Check that the platform is given where EC2 cannot detect it."""
    if not isinstance(value, (list, tuple)):
        return
    snapshots = [disk for disk in value if isinstance(disk, VmDisk) and disk.is_snapshot]
    if boot_mode is BootMode.UEFI and platform is None and snapshots:
        yield "platform is missing: boot_mode UEFI with a snapshot requires it."
