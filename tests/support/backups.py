"""The backup log as it stands in the topic, read with a plain client, aborted records included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kstate.state.blocks import Block, decode_frame
from kstate.state.markers import Marker, writer_id
from tests.support.oracle import committed


@dataclass(frozen=True, slots=True)
class Frame:
    """A block or marker and its place."""

    partition: int
    offset: int
    frame: Block | Marker

    @property
    def writer(self) -> int:
        """The short form of the writer's incarnation."""
        return self.frame.writer if isinstance(self.frame, Marker) else self.frame.header.writer


def frames(bootstrap_servers: str, topic: str, isolation: str = "read_uncommitted") -> list[Frame]:
    """Everything that was ever written to a backup topic, in the order of each partition."""
    records = committed(bootstrap_servers, topic, isolation)
    return [Frame(record.partition, record.offset, decode_frame(record.value or b"")) for record in records]


def late_frames(given: Sequence[Frame], dead: str, heirs: Iterable[str]) -> list[Frame]:
    """Frames of a dead incarnation that stand behind the first marker of an heir in the same partition.

    `heirs` are incarnations that wrote there only after the dead one was replaced.
    """
    heir_ids = {writer_id(heir) for heir in heirs}
    taken_over: dict[int, int] = {}
    for each in given:
        if isinstance(each.frame, Marker) and each.writer in heir_ids:
            taken_over.setdefault(each.partition, each.offset)
    return [
        each
        for each in given
        if each.writer == writer_id(dead) and each.offset > taken_over.get(each.partition, each.offset)
    ]
