"""The operating systems that Image Builder tells apart."""

from enum import Enum


class Platform(Enum):
    """Operating system of a virtual machine, in the words of ImportVmImage.

    See https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_ImportVmImage.html
    """

    WINDOWS = "Windows"
    LINUX = "Linux"
    MACOS = "macOS"
