"""Read disk images, and find out by their magic numbers whether they have the format stated."""

from __future__ import annotations

import io
import re
import tarfile
from dataclasses import dataclass

from local_aws.services.ec2.vmdk import is_whole

FORMATS = ("OVA", "VHD", "VHDX", "VMDK", "RAW")


class DiskError(Exception):
    """VM Import refuses a disk; the message is the StatusMessage of the task."""


@dataclass(frozen=True)
class Disk:
    """A disk in a file: its format after unpacking, and its size in bytes."""

    format: str
    size: int


def read_disks(disk_format: str | None, data: bytes) -> list[Disk]:
    """Return the disks in a file: one, or all that the descriptor of an OVA names.

    Args:
        disk_format: One of `FORMATS`, or None for the format that the bytes have.
        data: The content of the file.

    Raises:
        DiskError: The bytes contradict the format.
    """
    found = _format_of(data)
    wanted = disk_format or found
    if wanted == "OVA" == found:
        return _disks_of_ova(data)
    if wanted == found == "VMDK" and data[:4] == b"KDMV" and not is_whole(data):
        raise DiskError("ClientError: Uncompressed data has invalid length")
    if wanted == found != "RAW":
        return [Disk(found, len(data))]
    if wanted == "RAW":
        # The partition table of MBR, or the protective one of GPT.
        if found != "RAW" or data[510:512] != b"\x55\xaa":
            raise DiskError("ClientError: No valid partitions. Not a valid volume.")
        return [Disk("RAW", len(data))]
    # This message was observed for OVA (packer-plugin-amazon #457).
    raise DiskError(f"ClientError: Disk validation failed [Unsupported {wanted} format]")


def _format_of(data: bytes) -> str:
    if data[:4] == b"KDMV" or data[:21] == b"# Disk DescriptorFile":
        return "VMDK"
    if data[:8] == b"vhdxfile":
        return "VHDX"
    if b"conectix" in (data[:8], data[-512:][:8]):
        return "VHD"
    if data[257:262] == b"ustar":
        return "OVA"
    return "RAW"


def _disks_of_ova(data: bytes) -> list[Disk]:
    unsupported = DiskError("ClientError: Disk validation failed [Unsupported OVA format]")
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            sizes = {member.name: member.size for member in archive.getmembers()}
            descriptor = next((name for name in sizes if name.endswith(".ovf")), "")
            file = archive.extractfile(descriptor) if descriptor else None
            text = file.read().decode("utf-8", "replace") if file else ""
    except tarfile.TarError:
        raise unsupported from None
    names = re.findall(r'<(?:\w+:)?File\b[^>]*?\bhref="([^"]+)"', text.replace("ovf:href", "href"))
    if not names or any(name not in sizes for name in names):
        raise unsupported
    return [Disk("VMDK", sizes[name]) for name in names]
