"""Formats of disks, and how a file tells its own."""

from enum import Enum
from pathlib import Path, PurePosixPath


class DiskFormat(Enum):
    """Format of a disk, in the words of ImportImage.

    See https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImageDiskContainer.html
    """

    OVA = "OVA"
    VMDK = "VMDK"
    VHD = "VHD"
    VHDX = "VHDX"
    RAW = "RAW"


def format_of_name(name: str) -> DiskFormat | None:
    """Give the format that the ending of a file name stands for, if there is one."""
    ending = PurePosixPath(name).suffix.removeprefix(".").upper()
    return DiskFormat.__members__.get(ending)


def problem_of_file(path: Path, disk_format: DiskFormat) -> str | None:
    """Say why a file is no disk of the format, by its magic bytes; None if it may be one.

    VM Import would find out too, but only after the upload.
    """
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(max(0, path.stat().st_size - 512))
        tail = file.read(512)
    if head.startswith(b"QFI\xfb"):
        return "is a qcow2 disk, which ImportImage does not take: qemu-img convert -O raw makes one"
    if head.startswith(b"# Disk DescriptorFile"):
        return (
            "is only the descriptor of a VMDK, with the disk in other files: "
            "qemu-img convert -O vmdk -o subformat=streamOptimized makes one file"
        )
    found = _format_of(head, tail)
    if found is None:
        return f"is no {disk_format.value} disk, nor a disk of any other format"
    return None if found is disk_format else f"is no {disk_format.value} disk, but {found.value}"


def _format_of(head: bytes, tail: bytes) -> DiskFormat | None:
    # Each is the first bytes of the format's specification; a VHD of fixed size has only a footer.
    if head.startswith(b"KDMV"):
        return DiskFormat.VMDK
    if head.startswith(b"vhdxfile"):
        return DiskFormat.VHDX
    if head.startswith(b"conectix") or tail.startswith(b"conectix"):
        return DiskFormat.VHD
    if head[257:262] == b"ustar":
        return DiskFormat.OVA
    # The boot signature of an MBR, which a GPT has too.
    return DiskFormat.RAW if head[510:] == b"\x55\xaa" else None
