"""Key ranges that do not run here, or not yet: copies that follow the backup log, and those on their way to run.

    queued ──▶ brought forward ──▶ a copy that follows the log ──▶ adopted
                       └─────────── to run at once ───────────────────▲

Each goes on step by step, beside the epochs of what runs already. A copy that is to run takes H only then, hence after
the plan that grants it was read (S1, S6), and goes on from where it stands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kstate.clock import Clock, Step, Steps
from kstate.errors import RetryableError
from kstate.keyspace import KeyRange
from kstate.messages import TilePhase, TileReport
from kstate.plan import Shard
from kstate.state.follow import Follower
from kstate.state.lineage import Lineage, released
from kstate.worker.duties import Role
from kstate.worker.lifecycle import RETRY

AT_ONCE = 4
"""Each that is brought forward takes memory and fetches at full speed; copies at the log's end do not count."""


class ShardRange(NamedTuple):
    """A key range of a shard."""

    shard: Shard
    key_range: KeyRange

    def __str__(self) -> str:
        return f"{self.shard} {self.key_range}"


@dataclass(frozen=True, slots=True)
class Adopted:
    """A key range that is ready to run, with the state of its markers."""

    place: ShardRange
    grant: int
    lineage: Lineage


@dataclass(slots=True, eq=False)
class _Copy:
    place: ShardRange
    role: Role
    follower: Follower
    steps: Steps[Lineage | None] | None = None
    """None before it begins, and after the log did not answer."""
    retry_at: float = float("-inf")
    """Not to begin before (monotonic seconds)."""

    @property
    def is_at_rest(self) -> bool:
        return self.follower.caught_up and (not self.role.runs or self.role.awaits is not None)

    @property
    def phase(self) -> TilePhase:
        """As in a TileReport."""
        if self.role.runs:
            return TilePhase.RESTORING
        return TilePhase.WARM if self.follower.caught_up else TilePhase.WARMING

    def begin(self) -> Steps[Lineage | None]:
        """Go on as the role says."""
        awaits, key_range = self.role.awaits, self.place.key_range
        if not self.role.runs:
            return _endless(self.follower.tail())
        if awaits is None:
            return self.follower.adopt()
        return self.follower.adopt(lambda lineage: released(lineage, key_range, awaits))

    def stop(self) -> None:
        """Let go of what is under way; what is in the store stays."""
        if self.steps is not None:
            self.steps.close()
            self.steps = None


class Adoptions:
    """What is copied or restored, in turn: while one waits for the log, another goes on.

    Invariant: no two of them overlap, so each slot has one writer in the local store.
    """

    def __init__(self, follower: Callable[[ShardRange, Role], Follower], clock: Clock) -> None:
        self._follower = follower
        self._clock = clock
        self._queued: deque[_Copy] = deque()
        self._running: deque[_Copy] = deque()
        self._waits = 0
        """How many steps in a row were waits."""

    def want(self, wanted: Mapping[ShardRange, Role]) -> list[ShardRange]:
        """Go on with exactly these; what is here already goes on from where it stands. Returns what is given up."""
        known = {copy.place: copy for copy in self._all()}
        gone = [copy for place, copy in known.items() if place not in wanted]
        for copy in gone:
            copy.stop()
            copy.follower.close()
        copies = [known.get(place) or _Copy(place, role, self._follower(place, role)) for place, role in wanted.items()]
        for copy in copies:
            if copy.role != wanted[copy.place]:
                copy.stop()
                copy.role = wanted[copy.place]
        self._running = deque(copy for copy in copies if copy.steps is not None)
        waiting = [copy for copy in copies if copy.steps is None]
        self._queued = deque(sorted(waiting, key=lambda copy: not copy.role.runs))
        self._waits = 0
        return [copy.place for copy in gone]

    def places(self) -> list[ShardRange]:
        """All that are not adopted."""
        return [copy.place for copy in self._all()]

    def reports(self) -> list[TileReport]:
        """How they stand, for a heartbeat."""
        return [
            TileReport(*copy.place, copy.role.grant, copy.phase, 0, {}, copy.follower.behind) for copy in self._all()
        ]

    @property
    def busy(self) -> bool:
        """Something is under way, and does not only wait for its time to be tried again."""
        return bool(self._running)

    @property
    def waiting(self) -> bool:
        """All that are under way wait for something."""
        return self._waits >= len(self._running)

    def step(self, *, gentle: bool) -> Step | Adopted | None:
        """Go on by one step: the step taken, a key range that is ready, or None when there is nothing to do.

        `gentle`: something runs here that must not wait for long. A RetryableError puts it back into the queue, to go
        on a little later from where the local copy stands; nothing else waits for it.
        """
        self._start_queued()
        if not self._running:
            return None
        copy = self._running.popleft()
        copy.follower.gentle = gentle
        assert copy.steps is not None
        try:
            step = next(copy.steps)
        except StopIteration as done:
            self._waits = 0
            copy.follower.close()
            return Adopted(copy.place, copy.role.grant, done.value)
        except RetryableError:
            copy.steps, copy.retry_at = None, self._clock.monotonic() + RETRY.wait
            self._queued.append(copy)
            raise
        self._running.append(copy)
        self._waits = self._waits + 1 if step.wait else 0
        return step

    def _start_queued(self) -> None:
        """What is to run goes before copies: one that is still far behind waits for it, with what it has stored."""
        busy = [copy for copy in self._running if not copy.is_at_rest]
        now = self._clock.monotonic() if self._queued else 0.0
        while due := [copy for copy in self._queued if copy.retry_at <= now]:
            copy = next((copy for copy in due if copy.role.runs), due[0])
            if len(busy) >= AT_ONCE:
                others = [each for each in busy if not each.role.runs]
                if not copy.role.runs or not others:
                    return
                self._put_back(others[-1])
                busy.remove(others[-1])
            self._queued.remove(copy)
            copy.steps = copy.begin()
            self._running.append(copy)
            busy.append(copy)

    def _put_back(self, copy: _Copy) -> None:
        copy.stop()
        copy.follower.close()
        self._running.remove(copy)
        self._queued.append(copy)

    def _all(self) -> Iterable[_Copy]:
        return [*self._running, *self._queued]


def _endless(steps: Steps[None]) -> Steps[Lineage | None]:
    yield from steps
    raise AssertionError("a copy follows its log until it is told otherwise")
