"""Frames of the backup log: blocks and markers."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from kstate.config import BLOCK_BYTES_MAX
from kstate.errors import DecodeError
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.state.blocks import Block, BlockHeader, BlockKind, decode_frame, encode_blocks
from kstate.state.frames import FrameKind, seal, unseal
from kstate.state.layout import key_suffix
from kstate.state.markers import Marker, MarkerKind, encode_marker, writer_id
from tests.golden.state_formats import (
    BASE,
    BLOCKS,
    CONTENT,
    DELTA,
    MARKER,
    MARKER_V1,
    RELEASE,
    SUFFIXES,
    VALUES,
    golden,
)
from tests.support.times import times

HEADER = BlockHeader(1, FULL_RANGE, BlockKind.DELTA, 4, writer_id("w"))
GOLDEN_FRAMES = CONTENT["frames-v2.hex"]

ranges = st.lists(st.integers(0, 65536), min_size=2, max_size=2, unique=True).map(lambda ends: KeyRange(*sorted(ends)))
u64 = st.integers(0, (1 << 64) - 1)
numbers = st.dictionaries(st.text(max_size=8), st.integers(0, (1 << 63) - 1), max_size=3)


@st.composite
def markers(draw: st.DrawFn) -> Marker:
    """Any valid marker."""
    key_range = draw(ranges)
    cuts = sorted(draw(st.sets(st.integers(key_range.lo, key_range.hi), max_size=6)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    previous = tuple((KeyRange(lo, hi), draw(st.integers(1, (1 << 64) - 2))) for lo, hi in pairs)
    move = draw(st.none() | st.integers(1, (1 << 64) - 1))
    return Marker(
        operator_id=draw(st.integers(1, 65534)),
        key_range=key_range,
        kind=MarkerKind.EPOCH if move is None else MarkerKind.RELEASE,
        epoch=1 + max((epoch for _, epoch in previous), default=0),
        incarnation=draw(st.text(min_size=1, max_size=20)),
        grant=draw(u64),
        progress=draw(numbers),
        times=draw(times()),
        previous=previous,
        base=draw(u64),
        blocks=draw(st.integers(0, (1 << 32) - 1)),
        entries=draw(st.integers(0, (1 << 32) - 1)),
        checksum=draw(u64),
        move=move,
    )


@settings(deadline=None)
@given(markers())
@example(MARKER)
@example(RELEASE)
def test_a_marker_is_read_back_as_it_was_made(marker: Marker) -> None:
    """Every field, and the same bytes again."""
    frame = encode_marker(marker)
    found = decode_frame(frame)
    assert found == marker
    assert isinstance(found, Marker)
    assert encode_marker(found) == frame


an_entry = st.tuples(st.integers(0, 65535), st.binary(max_size=200), st.none() | st.binary(max_size=300))
entries = st.lists(an_entry, min_size=1, max_size=20)


@given(entries)
def test_entries_come_back_in_their_order(made: list[tuple[int, bytes, bytes | None]]) -> None:
    """Deletions and empty values are told apart."""
    suffixes = [key_suffix(slot, 1, key) for slot, key, _ in made]
    values = [value for _, _, value in made]
    (frame,) = encode_blocks(HEADER, suffixes, values)
    block = decode_frame(frame)
    assert isinstance(block, Block)
    assert (block.header, block.index, block.count) == (HEADER, 0, len(made))
    assert block.entries() == (suffixes, values)


def test_no_entries_make_no_block() -> None:
    """An epoch may change nothing but progress."""
    assert encode_blocks(HEADER, [], []) == []


@pytest.mark.parametrize("size", [10, 3_000, 200_000])
def test_blocks_are_cut_as_full_as_the_limit_allows(size: int) -> None:
    """No block over the limit, none that the next one's first entry would have fitted into; order and index kept."""
    rng = random.Random(size)
    suffixes = [key_suffix(rng.randrange(65536), 1, rng.randbytes(9)) for _ in range(1_500_000 // size)]
    values: list[bytes | None] = [rng.randbytes(rng.randrange(size)) for _ in suffixes]
    frames = encode_blocks(HEADER, suffixes, values)
    blocks = [block for frame in frames if isinstance(block := decode_frame(frame), Block)]
    assert [block.index for block in blocks] == list(range(len(frames)))
    assert [pair for block in blocks for pair in zip(*block.entries(), strict=True)] == list(
        zip(suffixes, values, strict=True)
    )
    for before, after in pairwise(blocks):
        suffixes, values = after.entries()
        room = BLOCK_BYTES_MAX - len(before.frame)
        assert 0 <= room < len(suffixes[0]) + len(values[0] or b"") + 8


def test_an_entry_fills_a_block_to_the_last_byte_and_no_further() -> None:
    """The error names state, key and sizes."""
    suffix = key_suffix(9, 3, b"giant")
    room = BLOCK_BYTES_MAX - 60 - 8 - len(suffix)
    (frame,) = encode_blocks(HEADER, [suffix], [bytes(room)])
    assert len(frame) == BLOCK_BYTES_MAX
    with pytest.raises(ValueError, match=r"state 3, key b'giant', slot 9 needs .* bytes; a block holds"):
        encode_blocks(HEADER, [suffix], [bytes(room + 1)])


def test_the_documented_offsets_hold() -> None:
    """The table in the module is what is written."""
    (frame,) = encode_blocks(DELTA, SUFFIXES, VALUES)
    assert frame[:8] == b"KSBL" + bytes([1, 1, 0, 2])
    assert struct.unpack_from(">IIQQ8sIB3sI", frame, 16) == (
        *(0, 0x8000, 6, writer_id("worker-1.7f3a"), bytes(range(8)), 0, 1, bytes(3), 3),
    )
    assert struct.unpack_from(">6I", frame, 60) == (*map(len, SUFFIXES), 4, 0xFFFFFFFF, 15)
    assert frame[84:] == b"".join(SUFFIXES) + b"".join(filter(None, VALUES))
    marker = encode_marker(MARKER)
    assert marker[:8] == b"KSBL" + bytes([2, 2, 0, 2])
    assert struct.unpack_from(">IIQQQQQIIBB", marker, 16) == (0, 0x8000, 6, 12, 99, 0, MARKER.checksum, 2, 4, 1, 0)
    assert marker[74:89] == b"\x00\x0dworker-1.7f3a"


def test_golden_frames_decode_and_are_written_so_today() -> None:
    """The bytes are part of the contract."""
    frames = golden("frames-v2.hex")
    assert frames == GOLDEN_FRAMES
    delta, base, marker, release = map(decode_frame, frames)
    assert isinstance(delta, Block)
    assert isinstance(base, Block)
    assert (delta.header, delta.index, *delta.entries()) == (DELTA, 0, SUFFIXES, VALUES)
    assert (base.header, base.index, *base.entries()) == (BASE, 1, SUFFIXES[:1], VALUES[:1])
    assert encode_blocks(delta.header, *delta.entries()) + encode_blocks(base.header, *base.entries(), 1) == BLOCKS
    assert (marker, release) == (MARKER, RELEASE)


def test_frames_of_version_1_are_still_read() -> None:
    """Files of release 0.1: blocks are as today, markers knew the watermarks of inputs only."""
    frames = golden("frames-v1.hex")
    assert frames[:2] == BLOCKS
    assert list(map(decode_frame, frames[2:])) == [MARKER_V1, RELEASE]


def test_every_flipped_bit_is_noticed() -> None:
    """All of them, one at a time, in every golden frame."""
    for frame in GOLDEN_FRAMES:
        for at in range(8 * len(frame)):
            damaged = bytearray(frame)
            damaged[at // 8] ^= 1 << at % 8
            with pytest.raises(DecodeError):
                decode_frame(bytes(damaged))


def test_every_truncation_and_every_appended_byte_is_noticed() -> None:
    """A frame ends where its fields end."""
    for frame in GOLDEN_FRAMES:
        for end in range(len(frame)):
            with pytest.raises(DecodeError):
                decode_frame(frame[:end])
        with pytest.raises(DecodeError):
            decode_frame(frame + b"\x00")


@given(
    st.sampled_from(GOLDEN_FRAMES),
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), min_size=1, max_size=9),
)
def test_bursts_of_damage_are_noticed(frame: bytes, burst: list[tuple[int, int]]) -> None:
    """Several bytes anywhere."""
    damaged = bytearray(frame)
    for at, bits in burst:
        damaged[at % len(frame)] ^= bits
    if damaged != frame:
        with pytest.raises(DecodeError):
            decode_frame(bytes(damaged))


@given(st.binary(max_size=400))
def test_random_bytes_are_no_frame(data: bytes) -> None:
    """Nothing but DecodeError is raised."""
    with pytest.raises(DecodeError):
        decode_frame(data)


@settings(max_examples=300)
@given(st.sampled_from(GOLDEN_FRAMES), st.data())
def test_fields_under_a_right_checksum_are_still_checked(frame: bytes, data: st.DataObject) -> None:
    """A faulty writer is not believed: what decodes is what kstate writes for it, all else is a DecodeError."""
    body = bytearray(frame[16:])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 3))
    forged = seal(unseal(frame)[0], 2, bytes(body[: len(body) - cut]))
    try:
        found = decode_frame(forged)
    except DecodeError:
        return
    if isinstance(found, Marker):
        assert encode_marker(found) == forged
    else:
        assert encode_blocks(found.header, *found.entries(), first_index=found.index) == [forged]


def _forged(kind: FrameKind, operator: int, change: Callable[[bytearray], object], frame: bytes) -> bytes:
    body = bytearray(frame[16:])
    change(body)
    return seal(kind, operator, bytes(body))


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (0, 0xFF, r"key range \[.*\) is not within"),
        (36, 3, "3 is not a valid BlockKind"),
        (37, 1, "where zeros are reserved"),
        (43, 0, "0 entries"),
        (40, 1, "do not fit"),
        (47, 1, "its columns end at byte"),
    ],
)
def test_a_block_with_an_unsound_field_is_refused(at: int, value: int, reason: str) -> None:
    """Key range, kind, reserved bytes, count, lengths."""
    forged = _forged(FrameKind.BLOCK, 2, lambda body: body.__setitem__(at, value), BLOCKS[0])
    with pytest.raises(DecodeError, match=reason):
        decode_frame(forged)


def test_a_key_outside_the_blocks_range_is_refused() -> None:
    """It would be applied to slots that the marker does not speak of."""
    narrow = replace(HEADER, key_range=KeyRange(10, 20))
    for slot in (9, 20):
        with pytest.raises(DecodeError, match="its slots are"):
            decode_frame(encode_blocks(narrow, [key_suffix(10, 1, b"a"), key_suffix(slot, 1, b"b")], [b"", b""])[0])


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 7},
        {"epoch": 5},
        {"previous": ((KeyRange(0, 9), 5), (KeyRange(8, 10), 1))},
        {"previous": ((KeyRange(0x4000, 0x8001), 5),)},
        {"previous": ((KeyRange(0, 9), 5), (KeyRange(9, 10), 0))},
        {"kind": MarkerKind.RELEASE},
        {"move": 3},
        {"incarnation": ""},
        {"progress": {"words": -1}},
    ],
)
def test_a_marker_that_breaks_an_invariant_cannot_be_made(change: dict[str, Any]) -> None:
    """Nor read: reading makes one."""
    with pytest.raises(ValueError, match="marker of epoch"):
        replace(MARKER, **change)


def test_frames_of_an_unknown_kind_or_version_say_so() -> None:
    """A newer release wrote them."""
    with pytest.raises(DecodeError, match="kind 1 has format version 2, this release reads 1 to 1"):
        decode_frame(b"KSBL\x02" + BLOCKS[0][5:])
    for version in (0, 3):
        with pytest.raises(DecodeError, match=f"kind 2 has format version {version}, this release reads 1 to 2"):
            decode_frame(b"KSBL%c" % version + GOLDEN_FRAMES[2][5:])
    start = b"KSBL\x01\x03\x00\x02"
    with pytest.raises(DecodeError, match="kind 3"):
        decode_frame(start + xxh3_64_intdigest(b"", int.from_bytes(start, "big")).to_bytes(8, "big"))
