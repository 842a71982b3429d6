"""Whatever bytes come from Kafka or a disk: a decoder gives what its encoder makes, or the error that it promises.

Frames of the backup log, messages of control and reports, lineage, answers to queries and Avro have such tests beside
their own (test_blocks, test_wire, test_lineage, test_answers, test_avro); here are all others, in one table. Samples
are damaged as disks and bugs do it: cut, doubled, spliced, with bytes and lengths replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kstate.adapters.rocksdb_manifest import manifest_fault
from kstate.errors import CorruptStateError, DecodeError
from kstate.keyspace import KeyRange
from kstate.plan import Shard
from kstate.state.layout import Item, index_key, key_suffix, parse_index_key, parse_suffix
from kstate.state.partial_cells import Cell, parse_cell
from kstate.state.values import split_value, value_prefix
from kstate.worker.in_hand import Deaths, Place, decode_ledger, decode_note, encode_ledger, encode_note
from kstate.worker.stream_frames import WatermarkFrame, decode_watermark, encode_watermark, split_record_frames

PLACE = Place(Shard("count", 3), KeyRange(5, 0x9000), "words", 77, None)
RANGE = KeyRange(0x100, 0x8000)


@dataclass(frozen=True)
class Decoder:
    """A decoder, what it is given when all is well, the errors it may raise, and the way back, if there is one."""

    decode: Callable[[bytes], object]
    samples: tuple[bytes, ...]
    errors: tuple[type[Exception], ...] = (DecodeError,)
    again: Callable[[bytes], bytes] | None = None
    """Bytes that can be decoded come out again."""


def _suffix_again(data: bytes) -> bytes:
    return key_suffix(*parse_suffix(data))


def _manifest(data: bytes) -> str | None:
    with TemporaryDirectory() as folder:
        Path(folder, "CURRENT").write_bytes(b"MANIFEST-000001\n")
        Path(folder, "MANIFEST-000001").write_bytes(data)
        return manifest_fault(Path(folder))


DECODERS = {
    "key suffix": Decoder(
        parse_suffix, (key_suffix(7, 2, b"key", b"sub"), key_suffix(0xFFFF, 1, b"k" * 300)), again=_suffix_again
    ),
    "cell": Decoder(
        parse_cell,
        (Cell.of(RANGE).suffix(4), Cell(KeyRange(0x200, 0x300), RANGE).suffix(4)),
        (CorruptStateError, DecodeError),
        lambda data: parse_cell(data).suffix(parse_suffix(data)[1]),
    ),
    "time index": Decoder(
        parse_index_key,
        tuple(index_key(3, 9, "event", Item(at, "state", key, b"sub")) for at, key in ((-5, b"k\0"), (5, b""))),
    ),
    "stored value": Decoder(
        split_value,
        (value_prefix(3) + b"payload", value_prefix(3, -9) + b""),
        again=lambda data: value_prefix(*split_value(data)[:2]) + split_value(data).payload,
    ),
    "watermark frame": Decoder(
        decode_watermark,
        tuple(encode_watermark(WatermarkFrame("count", 3, 4, RANGE, 7, 10**12, idle)) for idle in (True, False)),
        again=lambda data: encode_watermark(decode_watermark(data)),
    ),
    "record frames": Decoder(lambda data: split_record_frames([data]), (b"\x00" + bytes(8) + b"payload",)),
    "note of what is in hand": Decoder(decode_note, (encode_note(PLACE),), ()),
    "ledger of deaths": Decoder(decode_ledger, (encode_ledger("build", (Deaths(PLACE, 2), Deaths(PLACE, 1))),), ()),
    "manifest": Decoder(_manifest, (b"", b"\x00" * 7), ()),
}


@st.composite
def damaged(draw: st.DrawFn, samples: tuple[bytes, ...]) -> bytes:
    """Bytes of any kind, or a sample to which one or two things happened."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(data)))
        to = draw(st.integers(at, len(data)))
        match draw(st.sampled_from(("cut", "replace", "double", "splice", "number", "anything"))):
            case "cut":
                del data[at:to]
            case "replace":
                data[at:to] = draw(st.binary(max_size=9))
            case "double":
                data[at:at] = data[at:to]
            case "splice":
                data[at:] = draw(st.sampled_from(samples))[to:]
            case "number":
                size = draw(st.sampled_from((1, 2, 4, 8)))
                number = draw(st.sampled_from((0, 1, 1 << 8 * size - 1, (1 << 8 * size) - 1)))
                data[at : at + size] = number.to_bytes(size, "big")
            case _:
                data = bytearray(draw(st.binary(max_size=80)))
    return bytes(data)


@pytest.mark.parametrize("name", DECODERS)
def test_samples_are_decoded(name: str) -> None:
    """And come out again."""
    decoder = DECODERS[name]
    for sample in decoder.samples:
        decoder.decode(sample)
        assert decoder.again is None or decoder.again(sample) == sample


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_are_decoded_or_refused(name: str, data: st.DataObject) -> None:
    """With the error that is promised and no other, and what is decoded is what was written."""
    decoder = DECODERS[name]
    given_bytes = data.draw(damaged(decoder.samples))
    try:
        decoder.decode(given_bytes)
    except decoder.errors:
        return
    assert decoder.again is None or decoder.again(given_bytes) == given_bytes
