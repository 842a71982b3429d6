"""Records per second of each key range, from how far its progress came between looks."""

from __future__ import annotations

from collections import deque

from kstate.cli.status_view import ShardName, name_of
from kstate.coordinator.status import Overview

WINDOW_S = 5.0
"""Progress moves in steps of an epoch, so a rate is taken over several."""


class Rates:
    """Remembers the looks of the last seconds."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, dict[ShardName, int]]] = deque()

    def add(self, shown: Overview, at_s: float) -> None:
        """One more look, at a time that only grows."""
        self._looks.append((at_s, {name_of(s): sum(s.progress.values()) for s in shown.shards if s.progress}))
        while len(self._looks) > 2 and at_s - self._looks[0][0] > WINDOW_S:
            self._looks.popleft()

    def now(self) -> dict[ShardName, float]:
        """By key range; those that were seen twice, cut as they are now."""
        newest_s, newest = self._looks[-1]
        found: dict[ShardName, float] = {}
        for at_s, then in self._looks:
            for name in newest.keys() & then.keys() - found.keys():
                if newest_s > at_s:
                    found[name] = max(0.0, (newest[name] - then[name]) / (newest_s - at_s))
        return found
