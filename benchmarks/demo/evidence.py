"""What the killed worker had in hand, and how long its keys stood still; pure, from what the logs say afterwards.

*In hand* are records whose handlers had run and whose epoch was not committed: the worker wrote down each batch that it
had handled, the backup log holds the last marker that it committed. What lies between must be done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kstate.plan import InputPartition

HANDLED = "handled"
"""The worker's log line after each batch that it handled."""
COMMITTED = "committed"
"""Its log line after each epoch."""
UNDONE = "undone"
"""Its log line when it went back to what is committed, to do the epoch again."""


@dataclass(slots=True)
class Diary:
    """What one worker wrote down: how far it handled each input partition, and how much since its last commit."""

    incarnation: str
    handled: dict[InputPartition, int]
    """(operator uid, topic, partition) → offset behind the last record handled, since the last commit."""
    in_hand: int = 0
    epochs: int = 0
    """Committed so far."""

    def take(self, line: str) -> None:
        """One line of the log; lines of others and lines that are cut off mean nothing."""
        try:
            fields = json.loads(line)
        except ValueError:
            return
        if not isinstance(fields, dict) or fields.get("incarnation") != self.incarnation:
            return
        if fields.get("event") == HANDLED:
            place = fields["operator"], fields["topic"], fields["partition"]
            self.handled[place] = fields["next_offset"]
            self.in_hand += fields["records"]
        elif fields.get("event") in (COMMITTED, UNDONE):
            self.epochs += fields["event"] == COMMITTED
            self.in_hand = 0
            self.handled.clear()


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets [lo, hi) of an input partition."""

    place: InputPartition
    lo: int
    hi: int

    def holds(self, topic: str, partition: int, offset: int) -> bool:
        """Whether a record lies within."""
        return self.place[1:] == (topic, partition) and self.lo <= offset < self.hi


def uncommitted(handled: Mapping[InputPartition, int], committed: Mapping[InputPartition, int]) -> list[Span]:
    """What was handled beyond the last committed marker; a place without marker starts where the plan says."""
    return [Span(place, committed[place], hi) for place, hi in handled.items() if hi > committed[place]]


@dataclass(frozen=True, slots=True)
class Seen:
    """A committed output record as a live reader saw it; `at` is monotonic seconds."""

    at: float
    partition: int
    offset: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds from the kill to the next committed output of any lost tile, and until the last of them had one."""

    first_s: float
    all_s: float
    tiles: int


def recovery(
    seen: Iterable[Seen], killed_at: float, ends: Mapping[int, int], lost_tile: Callable[[bytes], int | None]
) -> Recovery | None:
    """How long the keys of the dead worker stood still; None when none of them was heard of again.

    `ends` are the read_uncommitted ends of the output partitions, taken after the process was gone: what lies behind
    them is by somebody else. `lost_tile` gives the tile of a key if the dead worker owned it.
    """
    first: dict[int, float] = {}
    for record in seen:
        tile = lost_tile(record.key)
        if tile is not None and record.offset >= ends[record.partition]:
            first.setdefault(tile, record.at - killed_at)
    return Recovery(min(first.values()), max(first.values()), len(first)) if first else None
