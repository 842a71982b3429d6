"""Which partitions a client still reads: librdkafka may lose track of one, for ever, and says nothing of it.

A broker that goes away at the wrong moment may do that (its issue 4492). So a partition of which nothing was heard for
too long is asked for its end, and when there is more of it than was read, the reader begins with a new client. Trouble
and a new assignment are the likely moments; but not every trouble is told, so the quiet ones are asked as well, now and
then. A partition behind a long queue of others is only late: whoever is called deaf too soon loses that queue, again
and again. Hence more patience while the client has more than it was asked for, and twice as much with each new client.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kstate.plan import TopicPartition

SUSPECT_SECONDS: Final = 10.0
"""Behind an assignment or trouble; a partition with records behind the position brings them within a second."""
QUIET_SECONDS: Final = 15.0
"""Without any reason to think of deafness: of a broker that was restarted, some clients say nothing at all (seen)."""
BUSY_FACTOR: Final = 6
"""Times as long while the client's queue is full of others' records."""
PATIENCE_MAX: Final = 32


class Hearing:
    """When each partition was heard of; times are monotonic seconds."""

    def __init__(self) -> None:
        self._since: dict[TopicPartition, float] = {}
        self._suspect: set[TopicPartition] = set()
        self._patience = 1

    def begin(self, sources: Iterable[TopicPartition], now: float) -> None:
        """These are read from now on, in place of or beside others."""
        for source in sources:
            self._since[source] = now
            self._suspect.add(source)

    def end(self, sources: Iterable[TopicPartition]) -> None:
        """These are read no more."""
        for source in sources:
            self._since.pop(source, None)
            self._suspect.discard(source)

    def heard(self, source: TopicPartition, now: float) -> None:
        """A record, or the news that the end is reached."""
        if source in self._since:
            self._since[source] = now
            self._suspect.discard(source)
            if not self._suspect:
                self._patience = 1

    def trouble(self, now: float) -> None:
        """Something happened that may have made all of them deaf."""
        for source in self._since.keys() - self._suspect:
            self._since[source] = now
        self._suspect |= self._since.keys()

    def due(self, now: float, *, busy: bool) -> list[TopicPartition]:
        """Those to ask for, then not again for as long; `busy`: the client has more in its queue than was wanted."""
        factor = self._patience * (BUSY_FACTOR if busy else 1)
        limits = {True: factor * SUSPECT_SECONDS, False: factor * QUIET_SECONDS}
        found = [source for source, since in self._since.items() if now - since >= limits[source in self._suspect]]
        self._since |= dict.fromkeys(found, now)
        return found

    @property
    def suspicious(self) -> bool:
        """Whether there is any reason to ask but silence."""
        return bool(self._suspect)

    def renewed(self) -> None:
        """There is a new client because of one that was due."""
        self._patience = min(2 * self._patience, PATIENCE_MAX)
