"""Where the stories of moves are played: one shard of the sample job, in parts, and who has which."""

from __future__ import annotations

from kstate.keyspace import SLOTS, KeyRange
from kstate.plan import Shard
from kstate.testing.story import Story
from kstate.testing.world import Process

SHARD = Shard("count", 0)
"""Its words are emu, dog and fox, in the order of their slots."""
LOWER, UPPER = KeyRange(0, 0x7800), KeyRange(0x7800, SLOTS)
MIDDLE, TOP = KeyRange(0x7800, 0xA000), KeyRange(0xA000, SLOTS)


def cast(story: Story) -> tuple[Process, list[Process]]:
    """Who runs the shard, and the other workers."""
    source = story.owner(SHARD)
    return source, story.others(source)


def about_to_commit(story: Story, process: Process, *, alone: bool = False) -> bool:
    """Go on until a worker has written all of an epoch in which the shard has a part; `alone`: and nothing else."""
    while story.reach(process, "flushed"):
        written = {shard for shard, _ in story.run.oracle.undecided(process.incarnation)}
        if SHARD in written and not (alone and len(written) > 1):
            return True
    return False
