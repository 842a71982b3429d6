"""A strict look at RocksDB's MANIFEST before RocksDB sees it.

RocksDB 9.8 (in rocksdict 0.3) treats damage there in two ways that we cannot live with: a record of a type that it
keeps for recycled logs sends it into an endless loop that holds Python's interpreter lock, and a length that points
beyond the end of the file passes as a torn tail, silently dropping every edit behind it. So the framing is checked
here first.

Format (rocksdb wiki, "Write Ahead Log File Format"): blocks of 32 KiB; a record = masked CRC32C u32, length u16, type
u8 (1 full, 2 first, 3 middle, 4 last), data, all little-endian; the CRC covers type and data; the last 0…6 bytes of a
block are zeros. Python's speed (about 10 MB/s) is enough: the file is kept below 1 MiB.
"""

from __future__ import annotations

import struct
from pathlib import Path

_BLOCK = 32 * 1024
_HEADER = struct.Struct("<IHB")
_TYPES = range(1, 5)
_CASTAGNOLI = 0x82F63B78
_MASK_DELTA = 0xA282EAD8


def manifest_fault(folder: Path) -> str | None:
    """What is wrong with the database's CURRENT file or the MANIFEST that it names, None when they are sound."""
    try:
        name = (folder / "CURRENT").read_text("ascii").removesuffix("\n")
        data = (folder / name).read_bytes() if name.startswith("MANIFEST-") else b""
    except (OSError, ValueError) as error:
        return f"CURRENT or its MANIFEST cannot be read: {error}"
    if not data:
        return f"CURRENT names {name!r}, which is no MANIFEST with content"
    return _framing_fault(name, data)


def _framing_fault(name: str, data: bytes) -> str | None:
    at = 0
    while at < len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER.size:
            at += left
            continue
        end = at + _HEADER.size
        if end > len(data):
            return f"{name} ends within the header of a record at byte {at}"
        checksum, length, kind = _HEADER.unpack_from(data, at)
        if kind not in _TYPES or length > left - _HEADER.size or end + length > len(data):
            return f"{name} has a record of type {kind} and {length} bytes at byte {at}"
        if _masked_crc32c(memoryview(data)[end - 1 : end + length]) != checksum:
            return f"{name} has a record with a wrong checksum at byte {at}"
        at = end + length
    return None


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _crc_table()


def _masked_crc32c(data: memoryview) -> int:
    """CRC32C, rotated and offset as LevelDB and RocksDB store it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF
