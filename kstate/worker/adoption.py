"""Tiles on their way to this worker: each is restored step by step beside the epochs of the tiles that run already."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from kstate.clock import Step, Steps
from kstate.errors import RetryableError
from kstate.plan import Tile
from kstate.state.lineage import Lineage

AT_ONCE = 4
"""Each restore has a reader of its own: threads and fetch buffers."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A restored tile, ready to run."""

    tile: Tile
    lineage: Lineage


class Adoptions:
    """Tiles being restored, a few at a time in turn: while one waits for the log, another goes on.

    `restore` starts the restore of a tile; it takes H only then, hence after the plan that grants the tile was read
    (S1).
    """

    def __init__(self, restore: Callable[[Tile], Steps[Lineage]]) -> None:
        self._restore = restore
        self._queued: deque[Tile] = deque()
        self._running: deque[tuple[Tile, Steps[Lineage]]] = deque()
        self._waits = 0
        """How many steps in a row were waits."""

    def add(self, tile: Tile) -> None:
        """Restore this tile after those already waiting."""
        self._queued.append(tile)

    def tiles(self) -> list[Tile]:
        """All that are not adopted yet."""
        return [tile for tile, _ in self._running] + list(self._queued)

    @property
    def waiting(self) -> bool:
        """Every restore that runs waits for something."""
        return self._waits >= len(self._running)

    def step(self) -> Step | Adopted | None:
        """Go on by one step: the step taken, a tile that is ready, or None when there is nothing to restore.

        A RetryableError puts the tile back into the queue, to be restored from where its local copy stands.
        """
        while self._queued and len(self._running) < AT_ONCE:
            tile = self._queued.popleft()
            self._running.append((tile, self._restore(tile)))
        if not self._running:
            return None
        tile, steps = self._running.popleft()
        try:
            step = next(steps)
        except StopIteration as done:
            self._waits = 0
            return Adopted(tile, done.value)
        except RetryableError:
            self._queued.append(tile)
            raise
        self._running.append((tile, steps))
        self._waits = self._waits + 1 if step.wait else 0
        return step
