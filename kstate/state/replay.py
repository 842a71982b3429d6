"""replay-buffer-state: where the inputs start again (paper: SEEP, section 3.2; the buffer is the Kafka log itself).

The newest marker that covers a slot says where it stands (rule S8). Slots that stand differently are pieces of their
own: they share one reader, which starts at the least of their offsets, and each skips what it has done already.
"""

from __future__ import annotations

from dataclasses import dataclass

from kstate.keyspace import KeyRange
from kstate.plan import Plan, Shard
from kstate.progress import Progress, SlotMap
from kstate.state.lineage import Lineage
from kstate.times import Times


@dataclass(frozen=True, slots=True)
class ReplayPiece:
    """Neighbouring slots that go on from one progress; the times are those of their markers."""

    key_range: KeyRange
    progress: Progress
    times: Times


def plan_starts(plan: Plan, shard: Shard) -> Progress:
    """Input topic → start offset of a slot without a marker, as the plan fixed it; never "latest"."""
    return {
        topic: offset
        for (uid, topic, partition), offset in plan.starts.items()
        if (uid, partition) == (shard.operator, shard.partition)
    }


def replay_pieces(lineage: Lineage, key_range: KeyRange, starts: Progress) -> list[ReplayPiece]:
    """The pieces of a key range in slot order: together they cover it once.

    `starts` names the operator's inputs. It holds for gaps, which no marker covers, and for an input that a marker does
    not know because a newer version of the job added it; an input that the job no longer has is left out.
    """
    standing: SlotMap[tuple[Progress, Times]] = SlotMap([(key_range, (starts, Times()))])
    for piece, position in lineage.slice(key_range):
        progress = {topic: position.progress.get(topic, start) for topic, start in starts.items()}
        standing.assign(piece, (progress, position.times))
    return [ReplayPiece(piece, progress, times) for piece, (progress, times) in standing]
