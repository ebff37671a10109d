"""Whether a VMDK is all there: its directory, and each piece of the disk that it names.

The sparse extents of VMware's Virtual Disk Format 5.0; those that are streamed are compressed.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Final

_SECTOR: Final = 512
_HEADER: Final = struct.Struct("<4sIIQQQQIQQQ")
_COMPRESSED: Final = 1 << 16
# The directory stands at the end, and a second header there says where.
_AT_THE_END: Final = 2**64 - 1


def is_whole(data: bytes) -> bool:
    """Whether nothing of a sparse VMDK is missing."""
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
            if place > 1:  # 0 and 1 stand for zeros
                if flags & _COMPRESSED:
                    _, packed = struct.unpack_from("<QI", data, start)
                    start += 12
                    found = len(zlib.decompress(data[start : start + packed]))
                else:
                    found = len(data[start : start + size])
                if found != size:
                    return False
    return True
