"""A restore over a backup log in memory, step by step, into a store in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import TypeVar

from kstate.clock import Steps
from kstate.config import Settings, StateSettings
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.plan import TopicPartition
from kstate.state.layout import shard_prefix
from kstate.state.lineage import Lineage, lineage_entry
from kstate.state.restore import RestoreTarget, restore
from kstate.testing.memory_log import MemoryReader
from kstate.testing.memory_store import MemoryStore
from tests.support.backup_log import HIGH, LOW, OPERATOR, SOURCE, BackupLog, entry, held, lineage_of

T = TypeVar("T")

RUN_BYTES = 2_000
"""Small enough for several ingested runs."""
SETTINGS = Settings(state=StateSettings(store_bytes=4 * RUN_BYTES))
PREFIX = shard_prefix(OPERATOR, SOURCE.partition)


@dataclass
class Bench:
    """A filled backup log, a store, and what the restore reported."""

    backup: BackupLog = field(default_factory=BackupLog)
    store: MemoryStore = field(default_factory=MemoryStore)
    said: list[str] = field(default_factory=list)

    def steps(self, key_range: KeyRange = FULL_RANGE, settings: Settings = SETTINGS) -> Steps[Lineage]:
        target = RestoreTarget(SOURCE, OPERATOR, key_range)
        return restore(self.backup.log, self.store, target, self.backup.clock, settings, self.said.append)

    def restore(self, key_range: KeyRange = FULL_RANGE, settings: Settings = SETTINGS) -> list[str]:
        """Run to the end and check the result; the names of the steps."""
        names: list[str] = []
        lineage = finish(self.steps(key_range, settings), names)
        self.check(key_range, lineage)
        return names

    def check(self, key_range: KeyRange, lineage: Lineage) -> None:
        """Result, stored lineage and stored state are those of the log."""
        assert lineage == self.backup.lineage.slice(key_range)
        assert lineage_of(self.store, key_range) == lineage
        assert held(self.store, key_range) == self.backup.part(key_range)

    def epochs(self, count: int, key_range: KeyRange = FULL_RANGE, seed: int = 0) -> None:
        """Commit epochs that put and delete entries all over a key range."""
        rng = Random(seed)
        for i in range(count):
            suffixes = {entry(rng.randrange(key_range.lo, key_range.hi), b"key") for _ in range(8)}
            known = [key[6:] for key, _ in self.backup.part(key_range)]
            gone = rng.sample(known, min(3, len(known)))
            self.backup.commit(dict.fromkeys(suffixes, b"v%d" % i) | dict.fromkeys(gone), key_range)

    def put_stale(self, key_range: KeyRange = FULL_RANGE) -> None:
        """A local copy, durable, that is of no use: old entries of slots that the lineage does not know."""
        key, value = lineage_entry(self.store, OPERATOR, SOURCE.partition, Lineage(), [key_range])
        stale = [PREFIX + entry(key_range.lo + i, b"stale") for i in range(20)]
        self.store.write([key, *stale], [value, *(b"old" for _ in stale)])
        self.store.flush()

    def put_ahead(self) -> None:
        """A local copy that was committed further than the log reaches."""
        position = replace(self.backup.lineage.values()[0], offset=1_000_000)
        key, value = lineage_entry(self.store, OPERATOR, SOURCE.partition, Lineage([(FULL_RANGE, position)]))
        self.store.write([key], [value])

    def assigned(self) -> list[int]:
        """From now on: where readers of the backup log are put."""
        seen: list[int] = []
        make = self.backup.log.reader

        def watched() -> MemoryReader:
            reader = make()
            assign = reader.assign

            def noted(positions: Mapping[TopicPartition, int]) -> None:
                seen.append(positions[SOURCE])
                assign(positions)

            reader.assign = noted  # type: ignore[method-assign]
            return reader

        self.backup.log.reader = watched  # type: ignore[method-assign]
        return seen


def finish(steps: Steps[T], names: list[str] | None = None) -> T:
    """Exhaust a restore, noting the names of its steps."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        if names is not None:
            names.append(step.name)


def step_until(steps: Steps[Lineage], name: str) -> None:
    """Go on until a step of this name was taken."""
    while next(steps).name != name:
        continue


def filled_bench() -> Bench:
    """A log of 20 epochs of each half, and an empty store."""
    made = Bench()
    made.epochs(20, LOW, seed=1)
    made.epochs(20, HIGH, seed=2)
    return made
