"""Tiles on their way to this worker: each is restored step by step beside the epochs of the tiles that run already."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from kstate.clock import Step, Steps
from kstate.plan import Tile
from kstate.state.lineage import Lineage


@dataclass(frozen=True, slots=True)
class Adopted:
    """A restored tile, ready to run."""

    tile: Tile
    lineage: Lineage


class Adoptions:
    """The queue of tiles being restored, one at a time.

    `restore` starts the restore of a tile; it takes H only then, hence after the plan that grants the tile was read
    (S1).
    """

    def __init__(self, restore: Callable[[Tile], Steps[Lineage]]) -> None:
        self._restore = restore
        self._waiting: deque[Tile] = deque()
        self._running: tuple[Tile, Steps[Lineage]] | None = None

    def add(self, tile: Tile) -> None:
        """Restore this tile after those already waiting."""
        self._waiting.append(tile)

    def tiles(self) -> list[Tile]:
        """All that are not adopted yet."""
        return ([self._running[0]] if self._running else []) + list(self._waiting)

    def step(self) -> Step | Adopted | None:
        """Go on by one step: the step taken, a tile that is ready, or None when there is nothing to restore.

        A RetryableError puts the tile back into the queue, to be restored from where its local copy stands.
        """
        if self._running is None:
            if not self._waiting:
                return None
            tile = self._waiting.popleft()
            self._running = (tile, self._restore(tile))
        tile, steps = self._running
        try:
            return next(steps)
        except StopIteration as done:
            self._running = None
            return Adopted(tile, done.value)
        except BaseException:
            self._running = None
            self._waiting.appendleft(tile)
            raise
