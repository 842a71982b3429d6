"""What the golden files of the state formats hold; `python -m tests.golden.state_formats` writes missing ones.

Files are hex, one frame or value a line. They are never rewritten: a release reads what every release before it wrote.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.progress import SlotMap
from kstate.state.blocks import BlockHeader, BlockKind, encode_blocks
from kstate.state.checkpoint import Changes, EpochEnd, PieceId, advance, checkpoint
from kstate.state.layout import key_suffix
from kstate.state.lineage import Lineage, Position, encode_lineage
from kstate.state.markers import Marker, MarkerKind, encode_marker, joint_checksum, writer_id
from kstate.state.values import value_prefix
from kstate.times import UNKNOWN_TIME, Times, Upstream

FOLDER = Path(__file__).parent
LEFT, RIGHT = KeyRange(0, 0x4000), KeyRange(0x4000, 0x8000)
WRITER = "worker-1.7f3a"

DELTA = BlockHeader(2, KeyRange(0, 0x8000), BlockKind.DELTA, 6, writer_id(WRITER), bytes(range(8)))
BASE = BlockHeader(2, LEFT, BlockKind.BASE, 6, writer_id(WRITER))
SUFFIXES = [key_suffix(0x0102, 1, b"apple"), key_suffix(0x3FFF, 1, b""), key_suffix(0x7ABC, 2, b"x" * 130, b"sub")]
VALUES = [value_prefix(1) + b"\x02", None, value_prefix(2, 1_750_000_000_000) + b"\x06abc"]
BLOCKS = encode_blocks(DELTA, SUFFIXES, VALUES) + encode_blocks(BASE, SUFFIXES[:1], VALUES[:1], first_index=1)

TIMES_V1 = Times(inputs={"words": -1})
"""What a marker of version 1 could say."""
TIMES = Times(
    watermark=1_750_000_000_000,
    clock_ms=1_750_000_000_123,
    inputs={"words": -1, "größen": 1_750_000_000_000},
    idle=frozenset({"words", "größen"}),
    streams={
        "app.split.words": (
            Upstream(0, 2, LEFT, 12, 1_750_000_000_000),
            Upstream(0, 2, RIGHT, 13, UNKNOWN_TIME, idle=True),
            Upstream(1, 2, FULL_RANGE, 9, 1_749_999_999_999),
        ),
        "quiet": (),
    },
)

MARKER = Marker(
    operator_id=2,
    key_range=KeyRange(0, 0x8000),
    kind=MarkerKind.EPOCH,
    epoch=6,
    incarnation=WRITER,
    grant=12,
    progress={"words": 1234, "größen": 5},
    times=TIMES,
    previous=((LEFT, 5), (RIGHT, 3)),
    base=99,
    blocks=2,
    entries=4,
    checksum=joint_checksum(frame[8:16] for frame in BLOCKS),
)
RELEASE = Marker(2, FULL_RANGE, MarkerKind.RELEASE, 1, WRITER, 1, {}, Times(), (), 0, 0, 0, joint_checksum([]), move=13)
MARKER_V1 = replace(MARKER, times=TIMES_V1)

LINEAGE = Lineage(
    [
        (LEFT, Position(100, 6, 12, WRITER, {"words": 1234}, TIMES, 99, marked=KeyRange(0, 0x8000))),
        (KeyRange(0x8000, 0x10000), Position(7, 1, 13, "worker-2.00ff", {}, Times(), 0, move=14, marked=FULL_RANGE)),
    ]
)
LINEAGE_V2 = SlotMap((key_range, replace(p, move=None, marked=None)) for key_range, p in LINEAGE)
LINEAGE_V1 = SlotMap((key_range, replace(p, times=TIMES_V1 if p.progress else p.times)) for key_range, p in LINEAGE_V2)

BACKUP_LINEAGE = Lineage()


def _backup() -> list[bytes]:
    """A whole backup log of operator 2: two halves, then the whole, by two writers."""
    high = key_suffix(0x9ABC, 1, b"cherry")
    epochs: list[tuple[KeyRange, dict[bytes, bytes | None], str]] = [
        (KeyRange(0, 0x8000), dict(zip(SUFFIXES, VALUES, strict=True)), WRITER),
        (KeyRange(0x8000, 0x10000), {high: VALUES[0]}, "worker-2.00ff"),
        (FULL_RANGE, {SUFFIXES[0]: None, SUFFIXES[1]: VALUES[0], high: VALUES[2]}, WRITER),
    ]
    log: list[bytes] = []
    for key_range, entries, writer in epochs:
        changes = Changes(list(entries), list(entries.values()))
        made = checkpoint(
            PieceId(2, 0, key_range), changes, BACKUP_LINEAGE, EpochEnd(writer, 12, {"words": len(log)}, TIMES)
        )
        log += [*made.blocks, encode_marker(made.marker)]
        advance(BACKUP_LINEAGE, made.marker, len(log) - 1)
    return log


_LOG = _backup()
BACKUP_LINEAGES = {
    1: SlotMap((key_range, replace(position, times=Times())) for key_range, position in BACKUP_LINEAGE),
    2: BACKUP_LINEAGE,
}
"""By version of the markers."""
BACKUP_STATE = {SUFFIXES[1]: VALUES[0], SUFFIXES[2]: VALUES[2], key_suffix(0x9ABC, 1, b"cherry"): VALUES[2]}

CONTENT = {
    "backup-v2.hex": _LOG,
    "frames-v2.hex": [*BLOCKS, encode_marker(MARKER), encode_marker(RELEASE)],
    "lineage-v3.hex": [encode_lineage(LINEAGE), encode_lineage(Lineage())],
}


def golden(name: str) -> list[bytes]:
    """The lines of a golden file."""
    return [bytes.fromhex(line) for line in (FOLDER / name).read_text().splitlines()]


def main() -> None:
    """Write what is not there yet."""
    for name, lines in CONTENT.items():
        if not (FOLDER / name).exists():
            (FOLDER / name).write_text("".join(f"{line.hex()}\n" for line in lines))


if __name__ == "__main__":
    main()
