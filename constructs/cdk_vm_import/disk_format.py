"""Formats of disks, and how to recognise the format of a file."""

import struct
from enum import Enum
from pathlib import Path, PurePosixPath

_TO_VMDK = "'qemu-img convert -O vmdk -o subformat=streamOptimized'"
# Endings of disks that people try. qemu-img has the same names for the formats.
_UNSUPPORTED = ("qcow", "qcow2", "qed", "vdi")

_VMDK_FLAGS, _VMDK_FLAGS_AT = struct.Struct("<I"), 8
_VMDK_COMPRESSION, _VMDK_COMPRESSION_AT = struct.Struct("<H"), 77
_VMDK_COMPRESSED = 1 << 16
_VMDK_DEFLATE = 1


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


def problem_of_name(name: str) -> str | None:
    """Return why a file with this name is no disk for ImportImage, or None if it may be one."""
    ending = PurePosixPath(name).suffix.removeprefix(".").lower()
    return _not_supported(ending) if ending in _UNSUPPORTED else None


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
        return _not_supported("qcow2")
    if head.startswith(b"# Disk DescriptorFile"):
        return (
            "is only the descriptor of a VMDK, and the disk is in other files: create one file "
            f"with {_TO_VMDK}."
        )
    found = _format_of(head, tail)
    if found is None:
        return f"is not {disk_format.value}, and not in another supported format."
    if found is not disk_format:
        return (
            f"is {found.value}, not {disk_format.value}: correct the format or the "
            "ending of the file name."
        )
    if found is DiskFormat.VMDK and not _is_stream_optimized(head):
        return (
            "is a VMDK that is not stream-optimized, which ImportImage does not support: convert "
            f"it with {_TO_VMDK}."
        )
    return None


def _not_supported(name: str) -> str:
    return (
        f"is a {name} disk, which ImportImage does not support: convert it with "
        f"'qemu-img convert -f {name} -O raw', or with {_TO_VMDK}, which makes a "
        "smaller file."
    )


def _is_stream_optimized(head: bytes) -> bool:
    """Return whether the header of a VMDK says that its grains are compressed.

    See SparseExtentHeader in VMware's Virtual Disk Format 5.0.
    """
    if len(head) < _VMDK_COMPRESSION.size + _VMDK_COMPRESSION_AT:
        return False
    (flags,) = _VMDK_FLAGS.unpack_from(head, _VMDK_FLAGS_AT)
    (compression,) = _VMDK_COMPRESSION.unpack_from(head, _VMDK_COMPRESSION_AT)
    return bool(flags & _VMDK_COMPRESSED) and compression == _VMDK_DEFLATE


def _format_of(head: bytes, tail: bytes) -> DiskFormat | None:
    # The signatures of the formats' specifications. A VHD of fixed size has only a footer.
    if head.startswith((b"KDMV", b"COWD")):
        return DiskFormat.VMDK
    if head.startswith(b"vhdxfile"):
        return DiskFormat.VHDX
    if head.startswith(b"conectix") or tail.startswith(b"conectix"):
        return DiskFormat.VHD
    if head[257:262] == b"ustar":
        return DiskFormat.OVA
    # The boot signature of an MBR. A GPT contains one too.
    return DiskFormat.RAW if head[510:] == b"\x55\xaa" else None
