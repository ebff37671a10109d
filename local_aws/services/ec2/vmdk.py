"""Check that a VMDK is complete: its directory, and each grain that the directory names.

It reads sparse extents of VMware's Virtual Disk Format 5.0, which may be compressed.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Final

_SECTOR: Final = 512
_HEADER: Final = struct.Struct("<4sIIQQQQIQQQ")
_COMPRESSED: Final = 1 << 16
# The directory is at the end of the file, and a second header there has its offset.
_AT_THE_END: Final = 2**64 - 1


def is_whole(data: bytes) -> bool:
    """Return whether a sparse VMDK is complete."""
    try:
        return _is_whole(data)
    except (struct.error, zlib.error):
        return False


def _is_whole(data: bytes) -> bool:
    header = _HEADER.unpack_from(data)
    if header[9] == _AT_THE_END:
        header = _HEADER.unpack_from(data, len(data) - 2 * _SECTOR)
    magic, _, flags, capacity, grain, _, _, entries, _, directory, _ = header
    if magic != b"KDMV":
        return False
    tables = math.ceil(capacity / (grain * entries)) if capacity else 0
    for table in struct.unpack_from(f"<{tables}I", data, directory * _SECTOR):
        for place in struct.unpack_from(f"<{entries}I", data, table * _SECTOR) if table else ():
            size = grain * _SECTOR
            start = place * _SECTOR
            if place > 1:  # 0 and 1 mean a grain of zeros
                if flags & _COMPRESSED:
                    _, packed = struct.unpack_from("<QI", data, start)
                    start += 12
                    found = len(zlib.decompress(data[start : start + packed]))
                else:
                    found = len(data[start : start + size])
                if found != size:
                    return False
    return True
