"""Options of an import task with a few possible values."""

from enum import Enum


class Architecture(Enum):
    """Processor architecture of a virtual machine. ImportImage does not support arm64.

    See https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportImage.html
    """

    X86_64 = "x86_64"
    I386 = "i386"


class BootMode(Enum):
    """Boot mode of a virtual machine. ImportImage does not support uefi-preferred.

    See https://docs.aws.amazon.com/vm-import/latest/userguide/prerequisites.html
    """

    LEGACY_BIOS = "legacy-bios"
    UEFI = "uefi"


class LicenseType(Enum):
    """Licence of the operating system: AWS's, or the one that the system came with (BYOL).

    See https://docs.aws.amazon.com/vm-import/latest/userguide/licensing.html
    """

    AWS = "AWS"
    BYOL = "BYOL"
