"""The committed state of an operator as of a moment, read from its backup topic: nobody who runs is asked or disturbed.

A moment is a time (what was committed before it counts), or an offset of one backup partition, or now. Each partition
is brought into a scratch store of its own, by kstate.state.recall, and given out in the order of slots and keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from kstate.answers import Entry
from kstate.cli.state_rows import Rows
from kstate.clock import Clock, run_steps
from kstate.config import MIB
from kstate.errors import ConfigError
from kstate.interfaces import Log, Store
from kstate.keyspace import KeyRange
from kstate.plan import TopicPartition, backup_topic
from kstate.state.layout import shard_bounds, shard_prefix
from kstate.state.lineage import watermark_of
from kstate.state.local_copy import RestoreTarget
from kstate.state.recall import NEWEST, recall

RUN_BYTES = 64 * MIB
"""Collected in memory before it is written to the scratch store."""


@dataclass(frozen=True, slots=True)
class Moment:
    """`time_ms`: ms since the epoch; `offset`: of a backup partition; neither: now."""

    time_ms: int | None = None
    offset: int | None = None


NOW = Moment()


def read_moment(text: str | None) -> Moment:
    """An instant in ISO 8601 with its offset from UTC, or `@OFFSET`. Raises ConfigError."""
    if text is None:
        return NOW
    if text.startswith("@") and text[1:].isdecimal():
        return Moment(offset=int(text[1:]))
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ConfigError(
            f"{text!r} is no moment.",
            hint="write an instant and its offset from UTC, as 2026-11-21T10:00:00Z, or @OFFSET of the backup log.",
        )
    return Moment(time_ms=round(instant.astimezone(UTC).timestamp() * 1000))


class Backups:
    """The backup topics of an operator."""

    def __init__(self, log: Log, clock: Clock, app: str, rows: Rows, scratch: Callable[[], Store]) -> None:
        """`scratch` makes an empty store each time."""
        self._log = log
        self._clock = clock
        self._app = app
        self._rows = rows
        self._scratch = scratch

    def entries(self, partition: int, moment: Moment, key_range: KeyRange) -> Iterator[Entry]:
        """All of a key range of a partition, in order. Raises ConfigError when the moment is not retained."""
        rows = self._rows
        source = TopicPartition(backup_topic(self._app, rows.uid), partition)
        target = RestoreTarget(source, rows.operator_id, key_range, partial=rows.partial)
        prefix = len(shard_prefix(rows.operator_id, partition))
        with closing(self._scratch()) as store:
            steps = recall(self._log, store, target, self._until(source, moment), RUN_BYTES)
            lineage = run_steps(steps, self._clock)
            for key, value in store.scan(*shard_bounds(rows.operator_id, partition, key_range)):
                suffix = key[prefix:]
                yield suffix, value, watermark_of(lineage, suffix)

    def _until(self, source: TopicPartition, moment: Moment) -> int:
        if moment.time_ms is not None:
            return self._log.offsets_at([source], moment.time_ms)[source]
        return NEWEST if moment.offset is None else moment.offset
