"""Formats of disks, and how to recognise the format of a file."""

from enum import Enum
from pathlib import Path, PurePosixPath


class DiskFormat(Enum):
    """Format of a disk, as ImportImage calls it.

    See https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImageDiskContainer.html
    """

    OVA = "OVA"
    VMDK = "VMDK"
    VHD = "VHD"
    VHDX = "VHDX"
    RAW = "RAW"


def format_of_name(name: str) -> DiskFormat | None:
    """Return the format that the ending of a file name stands for, or None."""
    ending = PurePosixPath(name).suffix.removeprefix(".").upper()
    return DiskFormat.__members__.get(ending)


def problem_of_file(path: Path, disk_format: DiskFormat) -> str | None:
    """Return why a file is not a disk of the format, or None if it may be one.

    VM Import would detect the problem too, but only after the upload.

    Args:
        path: The file. Only its first and last bytes are read.
        disk_format: The expected format.
    """
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(max(0, path.stat().st_size - 512))
        tail = file.read(512)
    if head.startswith(b"QFI\xfb"):
        return (
            "is a qcow2 disk, which ImportImage does not support: convert it with "
            "'qemu-img convert -O raw'."
        )
    if head.startswith(b"# Disk DescriptorFile"):
        return (
            "is only the descriptor of a VMDK, and the disk is in other files: create one file "
            "with 'qemu-img convert -O vmdk -o subformat=streamOptimized'."
        )
    found = _format_of(head, tail)
    if found is None:
        return f"is not a {disk_format.value} disk, and not a disk of another supported format."
    if found is not disk_format:
        return (
            f"is not a {disk_format.value} disk, but {found.value}: correct the format or the "
            "ending of the file name."
        )
    return None


def _format_of(head: bytes, tail: bytes) -> DiskFormat | None:
    # The signatures of the formats' specifications. A VHD of fixed size has only a footer.
    if head.startswith(b"KDMV"):
        return DiskFormat.VMDK
    if head.startswith(b"vhdxfile"):
        return DiskFormat.VHDX
    if head.startswith(b"conectix") or tail.startswith(b"conectix"):
        return DiskFormat.VHD
    if head[257:262] == b"ustar":
        return DiskFormat.OVA
    # The boot signature of an MBR. A GPT contains one too.
    return DiskFormat.RAW if head[510:] == b"\x55\xaa" else None
