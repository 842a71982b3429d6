"""Who committed what, from the markers of a backup log; pure.

An epoch's markers, the state behind them and its results are one transaction. So whatever input a marker covers for the
first time was counted by the worker that wrote it, and the results were committed with it: a running count answers
every word. That is how we know that a key range really ran where it was moved to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.plan import InputPartition
from kstate.progress import SlotMap
from kstate.state.markers import Marker, MarkerKind


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets [lo, hi) of an input partition, for the keys of a range."""

    place: InputPartition
    """(operator uid, topic, partition)."""
    lo: int
    hi: int
    key_range: KeyRange = FULL_RANGE

    def holds(self, slot: int, offset: int) -> bool:
        """Whether a record of the partition is meant."""
        return self.lo <= offset < self.hi and slot in self.key_range


def stands(markers: Iterable[Marker], place: InputPartition, start: int) -> SlotMap[int]:
    """Slot → next offset of an input partition, by the newest marker that covers it; `start` where none does."""
    reached = SlotMap[int]([(FULL_RANGE, start)])
    for marker in markers:
        if place[1] in marker.progress:
            reached.assign(marker.key_range, marker.progress[place[1]])
    return reached


def uncommitted(
    handled: Mapping[InputPartition, int],
    owned: Mapping[InputPartition, Iterable[KeyRange]],
    committed: Mapping[InputPartition, SlotMap[int]],
) -> list[Span]:
    """What a worker handled of the key ranges that it owned, beyond the last committed markers of each."""
    return [
        Span(place, lo, hi, part)
        for place, hi in handled.items()
        for key_range in owned.get(place, ())
        for part, lo in committed[place].slice(key_range)
        if lo < hi
    ]


def run_by(markers: Iterable[Marker], worker: str, move: int, place: InputPartition) -> list[Span]:
    """What an incarnation committed of the keys that were released for a move, once they were.

    Nothing, before that release and of other keys: the worker may have run those at any time.
    """
    free = SlotMap[int]()
    """Slot → where it stood by its newest marker, of the slots released for the move."""
    found: list[Span] = []
    for marker in markers:
        offset = marker.progress.get(place[1])
        if offset is None:
            continue
        if marker.kind is MarkerKind.RELEASE and marker.move == move:
            free.assign(marker.key_range, offset)
            continue
        for part, lo in free.slice(marker.key_range):
            if marker.incarnation == worker and offset > lo:
                found.append(Span(place, lo, offset, part))
            free.assign(part, offset)
    return found
