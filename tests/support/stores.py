"""Damage to a worker's local store, done while nobody has it open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from kstate.adapters.rocksdb import RocksStore
from kstate.keyspace import FULL_RANGE, partition_of, slot_of
from kstate.state.layout import identity_entry, key_suffix, shard_prefix
from kstate.state.lineage import Lineage, lineage_entry
from tests.support.cluster import Cluster

OPERATOR = STATE = 1
"""Numeric ids of the only operator and its first state in the tally job."""

GHOSTS = tuple(f"ghost-{number}" for number in range(40))
"""Keys for which a spoilt store holds state that no marker ever spoke of."""

GHOST_STATE = bytes.fromhex("000001 d00f 14")
"""Format 0, schema 1, n = 1000, total = 10: a stored value of the state `seen`."""


@contextmanager
def opened(made: Cluster, worker: str, cluster_id: str, *, owner: str | None = None) -> Iterator[RocksStore]:
    """A worker's store; `owner`: stamped as that worker's, whoever's folder it is."""
    stamp = identity_entry(made.app, owner or worker, cluster_id)
    with closing(RocksStore(made.data / made.app / worker, stamp, 8 << 20)) as store:
        yield store


def haunt(store: RocksStore, partitions: int) -> None:
    """Give keys state that they never had."""
    for partition in range(partitions):
        keys = [ghost.encode() for ghost in GHOSTS if partition_of(ghost.encode(), partitions) == partition]
        suffixes = [key_suffix(slot_of(key), STATE, key) for key in keys]
        store.write([shard_prefix(OPERATOR, partition) + suffix for suffix in suffixes], [GHOST_STATE] * len(keys))


def spoil(made: Cluster, worker: str, cluster_id: str, partitions: int) -> None:
    """Make the store hold wrong state that it cannot say the origin of, so that it is of no use."""
    with opened(made, worker, cluster_id) as store:
        haunt(store, partitions)
        for partition in range(partitions):
            key, value = lineage_entry(store, OPERATOR, partition, Lineage(), [FULL_RANGE])
            store.write([key], [value])


def files(made: Cluster, worker: str, pattern: str) -> list[Path]:
    """RocksDB's files of a worker's store."""
    return sorted((made.data / made.app / worker / "db").glob(pattern))


def flip(path: Path, at: float) -> None:
    """Turn over the bits of one byte, at a fraction of the file."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 0xFF
    path.write_bytes(data)
