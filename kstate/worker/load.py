"""What a worker reports of itself: its full present state, as an immutable snapshot that another thread may send."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from kstate.errors import KstateError
from kstate.interfaces import Log
from kstate.messages import Heartbeat, TilePhase, TileReport
from kstate.plan import Member, Parked, reports_topic
from kstate.wire import encode_report
from kstate.worker.edges import WorkerEdges
from kstate.worker.in_hand import InHand
from kstate.worker.ownership import OwnedShard, Piece
from kstate.worker.pulse import Pulse
from kstate.worker.state_size import StateSizes


class Load:
    """The newest snapshot; `beat` may be called from another thread than everything else."""

    def __init__(self, app: str, member: Member, host: str, pid: int, edges: WorkerEdges | None = None) -> None:
        """Without the worker's edges it knows nothing of how busy it is, how large its state, who died before."""
        self._topic = reports_topic(app)
        self._beats = 0
        self._opened = False
        self._in_hand = InHand() if edges is None else edges.in_hand
        self._pulse = Pulse() if edges is None else edges.pulse
        self._sizes = None if edges is None else StateSizes(edges.store, edges.clock)
        self.snapshot = Heartbeat(
            member.incarnation,
            member.name,
            host,
            pid,
            0,
            0,
            (),
            build=member.build,
            fatalities=self._in_hand.fatalities,
        )

    def opened(self) -> None:
        """The transactional id is open: heartbeats may begin (S3)."""
        self._opened = True

    def publish(
        self,
        plan_version: int,
        shards: Iterable[OwnedShard],
        copies: Iterable[TileReport],
        unfinished: Collection[Piece] = (),
        parked: Iterable[Parked] = (),
    ) -> None:
        """Take a new snapshot; what it says of progress is committed, also in mid-epoch.

        Of `unfinished` pieces it says none: they may stand at their ends and still have something to emit. `copies`:
        what is copied or restored, as it stands. `parked`: by the newest plan.
        """
        shards = list(shards)
        sizes = {} if self._sizes is None else self._sizes.of(shards)
        running = [
            replace(
                _running(shard, piece, told=piece not in unfinished),
                state_bytes=sizes.get((shard.shard, piece.key_range), 0),
            )
            for shard in shards
            for piece in shard.pieces
        ]
        self._in_hand.passed(running, parked)
        self.snapshot = replace(
            self.snapshot,
            plan_version=plan_version,
            tiles=(*running, *copies),
            fatalities=self._in_hand.fatalities,
        )

    def answers_at(self, address: str) -> None:
        """Where queries of the state are answered."""
        self.snapshot = replace(self.snapshot, queries=address)

    def leaving(self) -> None:
        """The last epoch is committed: the tiles may be given away at once."""
        self.snapshot = replace(self.snapshot, leaving=True)

    def fatal(self, error: KstateError) -> None:
        """The worker stops because of this error."""
        self.snapshot = replace(self.snapshot, fatal=str(error), exit_code=error.exit_code)

    def beat(self, log: Log) -> None:
        """Send the snapshot, once there is something to say."""
        if not self._opened:
            return
        self._beats += 1
        beat = replace(self.snapshot, sequence=self._beats, busy_percent=self._pulse.busy_percent())
        log.report(self._topic, {"value": encode_report(beat), "partition": 0})


def _running(shard: OwnedShard, piece: Piece, *, told: bool) -> TileReport:
    """Committed progress; live progress where the running epoch has nothing to commit (only control records passed)."""
    newest = shard.lineage.get(piece.key_range.lo)
    progress = piece.progress if not piece.touched else newest.progress if newest else shard.starts
    epoch = newest.epoch if newest else 0
    report = TileReport(
        shard.shard, piece.key_range, piece.grant, TilePhase.RUNNING, epoch, dict(progress) if told else {}
    )
    marked = shard.lineage.slice(piece.key_range).values()
    if len(marked) != 1 or shard.lineage.gaps(piece.key_range):
        return report
    return replace(report, marked_at=marked[0].offset - 1, base=marked[0].base)
