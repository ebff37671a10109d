"""Disks of all formats that ImportImage takes, as qemu-img made them; see README.md."""

from __future__ import annotations

import lzma
from pathlib import Path

FORMATS = ("OVA", "VMDK", "VHD", "VHDX", "RAW")


def real_disk(disk_format: str) -> bytes:
    """A disk of a format."""
    packed = Path(__file__).with_name(f"disk.{disk_format.lower()}.xz")
    return lzma.decompress(packed.read_bytes())
