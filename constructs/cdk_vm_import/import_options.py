"""What EC2's import can be told about a machine, besides its platform."""

from enum import Enum


class Architecture(Enum):
    """Processor of a virtual machine, in the words of ImportImage, which takes no arm64.

    See https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportImage.html
    """

    X86_64 = "x86_64"
    I386 = "i386"


class BootMode(Enum):
    """How a virtual machine starts, in the words of ImportImage, which takes no uefi-preferred.

    See https://docs.aws.amazon.com/vm-import/latest/userguide/prerequisites.html
    """

    LEGACY_BIOS = "legacy-bios"
    UEFI = "uefi"


class LicenseType(Enum):
    """Whose licence the operating system runs under: AWS's, or the one that it came with.

    See https://docs.aws.amazon.com/vm-import/latest/userguide/licensing.html
    """

    AWS = "AWS"
    BYOL = "BYOL"
