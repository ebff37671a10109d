"""Create the disks of the tests, by `make disks`. It needs qemu-img."""

from __future__ import annotations

import io
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from local_aws.client.prerequisites import raw_disk

HERE = Path(__file__).parent
# The subformats that VM Import takes.
OPTIONS = {
    "vmdk": ["-O", "vmdk", "-o", "subformat=streamOptimized"],
    "vhd": ["-O", "vpc", "-o", "subformat=dynamic"],
    "vhdx": ["-O", "vhdx", "-o", "subformat=dynamic"],
}
DESCRIPTOR = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
  <References><File ovf:id="file1" ovf:href="disk.vmdk" ovf:size="{size}"/></References>
  <DiskSection>
    <Info>The disk of the machine</Info>
    <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="{capacity}"
      ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
</Envelope>
"""
MEBIBYTES = 4


def main() -> None:
    """Write disk.<format>.xz for each format."""
    if shutil.which("qemu-img") is None:
        sys.exit("qemu-img is needed: Debian has it in the package qemu-utils")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = folder / "disk.raw"
        raw.write_bytes(raw_disk(MEBIBYTES))
        for ending, options in OPTIONS.items():
            made = folder / f"disk.{ending}"
            subprocess.run(["qemu-img", "convert", "-f", "raw", *options, raw, made], check=True)
        (folder / "disk.ova").write_bytes(ova((folder / "disk.vmdk").read_bytes()))
        for made in folder.iterdir():
            packed = lzma.compress(made.read_bytes(), preset=9 | lzma.PRESET_EXTREME)
            (HERE / f"{made.name}.xz").write_bytes(packed)


def ova(vmdk: bytes) -> bytes:
    """An archive as the OVF specification wants it: the descriptor first."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        descriptor = DESCRIPTOR.format(size=len(vmdk), capacity=MEBIBYTES * 2**20).encode()
        for name, content in (("machine.ovf", descriptor), ("disk.vmdk", vmdk)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


if __name__ == "__main__":
    main()
