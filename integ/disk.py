"""The disk that is imported: where it is, and whether EC2 can import it as far as one can see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from integ.account import AccountError
from integ.definition import Disk

if TYPE_CHECKING:
    from integ.account import Account

GIB: Final = 2**30
# The price of a simulated run is that of a disk of this size.
TYPICAL_GIB: Final = 10
# The first bytes of a file, by the ending of its name, as offset and content.
_MAGIC: Final = {
    ".raw": (510, b"\x55\xaa"),
    ".vmdk": (0, b"KDMV"),
    ".vhdx": (0, b"vhdxfile"),
    ".ova": (257, b"ustar"),
    ".vhd": None,  # its mark is at the end of the file
}
ADVICE: Final = (
    "A real import needs a bootable disk of an operating system that VM Import supports, see "
    "https://docs.aws.amazon.com/vm-import/latest/userguide/prerequisites.html. The smallest ones "
    "are cloud images of Debian or Ubuntu, converted with qemu-img to a stream-optimized VMDK."
)


@dataclass(frozen=True)
class GivenDisk:
    """The disk that the user gave.

    Attributes:
        place: Its file or its S3 URI.
        gibibytes: Its size.
        stored: Where it is, if it is in a bucket already.
    """

    place: str
    gibibytes: float
    stored: Disk | None = None

    @property
    def ending(self) -> str:
        """The ending of its name, which says the format."""
        return Path(self.place).suffix.lower()


def find_disk(account: Account, place: str | None) -> GivenDisk:
    """Find the disk and check what can be checked before the import.

    Args:
        account: The account.
        place: What the user gave: a file or an S3 URI. The simulated AWS needs none.

    Raises:
        AccountError: There is no disk, or it cannot be imported.
    """
    if place is None:
        if account.is_simulated:
            return GivenDisk("an empty disk.raw", TYPICAL_GIB)
        raise AccountError(f"no disk is given: use --disk FILE or --disk s3://BUCKET/KEY. {ADVICE}")
    ending = Path(place).suffix.lower()
    if ending not in _MAGIC:
        raise AccountError(f"disk {place!r} is not valid: use one of {', '.join(_MAGIC)}. {ADVICE}")
    if place.startswith("s3://"):
        head, size, stored = _head_of_object(account, place)
    else:
        stored = None
        try:
            size = Path(place).stat().st_size
            with Path(place).open("rb") as file:
                head = file.read(512)
        except OSError as error:
            raise AccountError(f"disk {place!r} cannot be read: {error}") from None
    if (magic := _MAGIC[ending]) and head[magic[0] :][: len(magic[1])] != magic[1]:
        raise AccountError(f"disk {place!r} does not have the format of its name. {ADVICE}")
    return GivenDisk(place, max(size / GIB, 1), stored)


def _head_of_object(account: Account, place: str) -> tuple[bytes, int, Disk]:
    parts = urlsplit(place)
    bucket, key, s3 = parts.netloc, parts.path.removeprefix("/"), account.client("s3")
    try:
        size = s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
        head = s3.get_object(Bucket=bucket, Key=key, Range="bytes=0-511")["Body"].read()
    except ClientError as error:
        raise AccountError(f"disk {place!r} cannot be read: {error}") from None
    return head, size, Disk(bucket, key)
