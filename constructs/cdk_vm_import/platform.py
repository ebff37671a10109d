"""The operating systems that Image Builder distinguishes."""

from enum import Enum


class Platform(Enum):
    """Operating system of a virtual machine, as ImportVmImage calls it.

    See https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_ImportVmImage.html
    """

    WINDOWS = "Windows"
    LINUX = "Linux"
    MACOS = "macOS"
