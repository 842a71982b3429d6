"""What the killed worker had in hand, and how long its keys stood still; pure, from what the logs say afterwards.

*In hand* are records whose handlers had run and whose epoch was not committed: the worker wrote down each batch that it
had handled, the backup log holds the last markers that it committed. What lies between must be done again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from benchmarks.demo.gaps import Group
from kstate.plan import InputPartition, Tile

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
    since: float | None = None
    """When it had handled the first batch of them, in Unix seconds by its own note; None: there are none."""

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
            if self.since is None:
                self.since = datetime.fromisoformat(fields["timestamp"]).timestamp()
        elif fields.get("event") in (COMMITTED, UNDONE):
            self.in_hand, self.since = 0, None
            self.handled.clear()


@dataclass(frozen=True, slots=True)
class Seen:
    """A committed output record as a live reader saw it; `at` is monotonic seconds."""

    at: float
    partition: int
    offset: int
    group: Group


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds from the kill to the next committed output of any lost tile, and until the last of them had one."""

    first_s: float
    all_s: float
    tiles: int
    """How many of them were heard of again."""


class Recovering:
    """How long the keys of a dead worker stand still, told from each output that is seen after its death.

    `ends` are the read_uncommitted ends of the output partitions, taken after the process was gone: what lies behind
    them is by somebody else. `lost` has the tile of each key group that the dead worker owned.
    """

    def __init__(self, killed_at: float, ends: Mapping[int, int], lost: Mapping[Group, Tile]) -> None:
        self._killed_at = killed_at
        self._ends = ends
        self._lost = lost
        self._first: dict[Tile, float] = {}

    def take(self, record: Seen) -> None:
        """An output was seen."""
        tile = self._lost.get(record.group)
        if tile is not None and record.offset >= self._ends[record.partition]:
            self._first.setdefault(tile, record.at - self._killed_at)

    @property
    def silent(self) -> int:
        """How many lost tiles were not heard of again."""
        return len(set(self._lost.values())) - len(self._first)

    @property
    def result(self) -> Recovery | None:
        """So far; None while nothing was heard of any of them."""
        first = self._first.values()
        return Recovery(min(first), max(first), len(first)) if first else None
