"""Frames of internal streams."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kstate.errors import DecodeError
from kstate.keyspace import KeyRange
from kstate.worker.stream_frames import (
    WatermarkFrame,
    decode_watermark,
    encode_watermark,
    frames_of,
    record_frame,
    split_record_frames,
    watermark_rows,
)
from tests.support.times import i64, key_ranges, u64

FRAME = WatermarkFrame("split-größer", 3, 16, KeyRange(0x4000, 0x8000), 12, -5, idle=True)
WHOLE = encode_watermark(FRAME)

frames = st.builds(
    WatermarkFrame, st.text(min_size=1), st.integers(0, 9), st.integers(10, 99), key_ranges, u64, i64, st.booleans()
)


def test_the_layout_is_the_documented_one() -> None:
    """Other releases read it."""
    assert WHOLE[:34] == struct.pack(">BqBIIIIQ", 1, -5, 1, 3, 16, 0x4000, 0x8000, 12)
    assert WHOLE[34:].decode() == "split-größer"
    assert record_frame(-5, b"x") == struct.pack(">Bq", 0, -5) + b"x"


@settings(deadline=None)
@given(frames)
def test_a_watermark_is_read_back_as_it_was_written(frame: WatermarkFrame) -> None:
    """Every field."""
    assert decode_watermark(encode_watermark(frame)) == frame


@pytest.mark.parametrize(
    "damaged",
    [
        *(WHOLE[:end] for end in range(35)),
        WHOLE[:-1] + b"\xff",
        b"\x00" + WHOLE[1:],
        b"\x02" + WHOLE[1:],
        WHOLE[:9] + b"\x02" + WHOLE[10:],
        WHOLE[:10] + struct.pack(">I", 16) + WHOLE[14:],
        WHOLE[:18] + struct.pack(">II", 5, 5) + WHOLE[26:],
        WHOLE[:18] + struct.pack(">II", 0, 65537) + WHOLE[26:],
        record_frame(1, b"x" * 40),
    ],
)
def test_whatever_is_no_watermark_is_refused(damaged: bytes) -> None:
    """Truncated, another kind, unknown flags, a partition or key range that cannot be."""
    with pytest.raises(DecodeError, match="Watermark frame"):
        decode_watermark(damaged)


def test_watermarks_are_found_among_records() -> None:
    """By their first byte; a record whose payload begins like one is none."""
    values = [record_frame(1, b"\x01"), WHOLE, None, b"", record_frame(1 << 56, b""), b"\x01"]
    assert watermark_rows(values) == [1, 5]
    assert watermark_rows([]) == []


def test_a_watermark_is_no_record() -> None:
    """Whoever forgets to take it out is told."""
    with pytest.raises(DecodeError, match="kind 01"):
        split_record_frames([record_frame(7, b"a"), WHOLE])


def test_a_frame_goes_to_every_partition_of_every_stream() -> None:
    """Any of them may be read by somebody who waits for this piece."""
    sent = frames_of(FRAME, {"app.split.words": 3, "app.split.lines": 1})
    assert [(topic, [m["partition"] for m in messages]) for topic, messages in sent] == [
        ("app.split.words", [0, 1, 2]),
        ("app.split.lines", [0]),
    ]
    assert all(message == {"key": None, "value": WHOLE, "partition": i} for i, message in enumerate(sent[0][1]))
    assert frames_of(FRAME, {}) == []
