"""A reader of control topic and heartbeats: who leads, who owns, who moves, for whoever stages a chaos run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from kstate.coordinator.observed import MoveName, name_of
from kstate.keyspace import KeyRange
from kstate.messages import Control, Heartbeat, OrderAnswered, PlanPublished, TermStarted, WorkerDied
from kstate.plan import Move, Plan, Tile, control_topic, reports_topic
from kstate.wire import decode_control, decode_report
from tests.support.chaos_observer import Lost
from tests.support.chaos_reader import SteadyReader
from tests.support.oracle import ends, reader


@dataclass(frozen=True, slots=True)
class Heard:
    """A message of the control topic and when it was seen (monotonic seconds)."""

    at: float
    message: Control


class ControlWatch:
    """The thread; its attributes may be read at any time."""

    def __init__(self, servers: str, app: str) -> None:
        self.plan: Plan | None = None
        self.leader = ""
        """Incarnation of the newest term's."""
        self.term = 0
        self.beats: dict[str, Heartbeat] = {}
        self.heard: list[Heard] = []
        self.answers: dict[str, str] = {}
        """Order → "accepted", or the reason for which it was refused."""
        self.begun: dict[MoveName, Move] = {}
        """Every move of any plan, as it was named last."""
        self.ended: dict[MoveName, str] = {}
        """Move → the reason of the plan in which it was no more."""
        self.dead: set[str] = set()
        self.failure: Exception | None = None
        self._servers = servers
        self._topics = control_topic(app), reports_topic(app)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control-watch", daemon=True)

    def __enter__(self) -> ControlWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(10)

    # -- what is asked of it

    def tiles_of(self, incarnation: str) -> list[Lost]:
        """What a worker owns by the newest plan."""
        plan = self.plan
        tiles: tuple[Tile, ...] = plan.owned_by(incarnation) if plan else ()
        return [Lost(tile.shard.operator, tile.shard.partition, tile.key_range) for tile in tiles]

    def standbys_of(self, shard: str, key_range: KeyRange) -> tuple[str, ...]:
        """Who keeps copies of a range."""
        standbys = self.plan.standbys if self.plan else ()
        return tuple(s.worker for s in standbys if str(s.shard) == shard and s.key_range.overlap(key_range))

    def settled(self) -> bool:
        """Everything has an owner that runs it, as far as heartbeats tell, and no move is under way."""
        plan = self.plan
        if plan is None or plan.moves or any(tile.worker is None or tile.worker in self.dead for tile in plan.tiles):
            return False
        return all(self._runs(tile) for tile in plan.tiles)

    def _runs(self, tile: Tile) -> bool:
        beat = self.beats.get(tile.worker or "")
        if beat is None:
            return False
        running = [t for t in beat.tiles if t.phase == "running" and t.shard == tile.shard]
        covered = sum(o.width for t in running if (o := t.key_range.overlap(tile.key_range)) is not None)
        return covered >= tile.key_range.width

    def terms(self) -> int:
        """How many terms there were."""
        return sum(isinstance(heard.message, TermStarted) for heard in self.heard)

    # -- reading

    def _run(self) -> None:
        try:
            self._follow()
        except Exception as failure:  # noqa: BLE001 - shown by whoever looks at the watch
            self.failure = failure

    def _follow(self) -> None:
        looking = reader(self._servers)
        while not all(topic in looking.list_topics(timeout=10).topics for topic in self._topics):
            if self._stopping.wait(0.2):
                return
        looking.close()
        control, reports = self._topics
        following = SteadyReader(self._servers, {(control, 0): 0, (reports, 0): ends(self._servers, reports)[0]})
        while not self._stopping.is_set():
            for message in following.consume(500, 0.02):
                self._take(message.topic() == control, message.value() or b"")
        following.close()

    def _take(self, is_control: bool, data: bytes | str) -> None:
        raw = data.encode() if isinstance(data, str) else data
        if not is_control:
            report = decode_report(raw)
            if isinstance(report, Heartbeat):
                self.beats[report.incarnation] = report
            return
        message = decode_control(raw)
        self.heard.append(Heard(time.monotonic(), message))
        match message:
            case TermStarted(term, leader):
                self.term, self.leader = term, leader
            case WorkerDied(_, incarnation, _):
                self.dead.add(incarnation)
            case OrderAnswered(_, order, accepted, reason):
                self.answers[order] = "accepted" if accepted else reason
            case PlanPublished(plan, reason, order):
                self._planned(plan, reason, order)
            case _:
                pass

    def _planned(self, plan: Plan, reason: str, order: str) -> None:
        if order:
            self.answers[order] = "accepted"
        moves = {name_of(move): move for move in plan.moves}
        for known in set(self.begun) - set(self.ended) - set(moves):
            self.ended[known] = reason
        self.begun |= moves
        self.plan = plan


def waited(condition: Callable[[], object], seconds: float, pause: float = 0.01) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
