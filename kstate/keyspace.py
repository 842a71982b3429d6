"""The key space: slots, key ranges, and the partition of a key.

A *slot* is the top 16 bits of xxh3_64 of the key bytes, 0…65535; a *key range* is a half-open interval of slots.
Both are part of the stored format and never change. The partition of a record that kstate writes is Kafka's murmur2 on
the message key, exactly as the Java producer computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from zlib import crc32

from xxhash import xxh3_64_intdigest

SLOTS = 1 << 16
_SLOT_SHIFT = 64 - 16


@dataclass(frozen=True, slots=True, order=True)
class KeyRange:
    """Half-open interval [lo, hi) of slots; 0 <= lo < hi <= 65536."""

    lo: int
    hi: int

    def __post_init__(self) -> None:
        if not 0 <= self.lo < self.hi <= SLOTS:
            raise ValueError(f"key range [{self.lo}, {self.hi}) is not within [0, {SLOTS})")

    def __contains__(self, slot: int) -> bool:
        return self.lo <= slot < self.hi

    def __str__(self) -> str:
        return f"[0x{self.lo:04x}, 0x{self.hi:04x})"

    @property
    def width(self) -> int:
        """Number of slots."""
        return self.hi - self.lo

    def covers(self, other: KeyRange) -> bool:
        """Whether all slots of another range are in this one."""
        return self.lo <= other.lo and other.hi <= self.hi

    def overlap(self, other: KeyRange) -> KeyRange | None:
        """The slots in both ranges, None when there are none."""
        lo, hi = max(self.lo, other.lo), min(self.hi, other.hi)
        return KeyRange(lo, hi) if lo < hi else None

    def parts(self, n: int) -> list[KeyRange]:
        """The range cut into n parts of about equal width, ascending; n is at most the width."""
        bounds = [self.lo + self.width * part // n for part in range(n + 1)]
        return [KeyRange(lo, hi) for lo, hi in pairwise(bounds)]


FULL_RANGE = KeyRange(0, SLOTS)


def slot_of(key: bytes) -> int:
    """The slot of canonical key bytes."""
    return int(xxh3_64_intdigest(key)) >> _SLOT_SHIFT


def slot_of_offset(offset: int) -> int:
    """The slot of a record without a key, from its offset (8 bytes, big-endian), so that unkeyed load splits too."""
    return slot_of(offset.to_bytes(8, "big"))


def murmur2(data: bytes) -> int:
    """Kafka's murmur2 (seed 0x9747b28c) as an unsigned 32-bit integer; source: org.apache.kafka.common.utils.Utils."""
    length = len(data)
    mask = 0xFFFFFFFF
    h = 0x9747B28C ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * 0x5BD1E995 & mask
        k = (k ^ (k >> 24)) * 0x5BD1E995 & mask
        h = (h * 0x5BD1E995 & mask) ^ k
    tail = data[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * 0x5BD1E995 & mask
    h = (h ^ (h >> 13)) * 0x5BD1E995 & mask
    return h ^ (h >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition a Java producer gives to this message key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def crc32_partition_of(key: bytes, partitions: int) -> int:
    """The partition librdkafka's own partitioners give to this message key (`consistent_random`, its default, scatters
    empty keys).
    """
    return crc32(key) % partitions


PARTITIONERS: Mapping[str, Callable[[bytes, int], int]] = {"murmur2": partition_of, "crc32": crc32_partition_of}
"""Partitioners of foreign producers that can be checked, by the name an input gives them."""
