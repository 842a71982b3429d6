"""Settings as frozen values, validated whole and at once; the environment is read only in kstate.cli."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from kstate.errors import ConfigError

MIB = 1 << 20

BLOCK_BYTES_MAX = 512 * 1024
"""Largest block in the backup topic: well below Kafka's default limit of 1 MiB for a batch."""

_SECRET_MARKS = ("password", "secret", "token", "sasl.jaas", "key.pem", "oauthbearer.config")


@dataclass(frozen=True, slots=True)
class EpochSettings:
    """When an epoch ends: whichever limit is met first. Longer: less overhead, more to replay (the paper's c)."""

    interval_ms: int = 1000
    """Where it is set outside the code it takes the place of `Job.epoch`, which the engine goes by."""
    records_max: int = 500_000
    bytes_max: int = 64 * MIB
    """Input plus collected outputs plus changed state, in bytes."""
    poll_records: int = 10_000
    """Largest number of records asked of the client at once."""


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Memory and limits of a worker's state."""

    cache_bytes: int = 256 * MIB
    """Bound of the cache of decoded objects, estimated from encoded sizes."""
    store_bytes: int = 128 * MIB
    """Bound of RocksDB's block cache and memtables together."""
    value_bytes_max: int = BLOCK_BYTES_MAX - 4096 - 65536
    """Largest encoded state value: it must fit a block together with its key and header."""
    output_bytes_max: int = 1_000_000
    """Largest encoded output record with its key; Kafka's default message.max.bytes is 1,048,588."""


@dataclass(frozen=True, slots=True)
class RebaseSettings:
    """When the state is written anew to the backup log, so that older records can be trimmed (kstate.worker.rebasing).

    The log holds about three times the state, and at least what is said here.
    """

    grown_bytes: int = 128 * MIB
    """Of each key range, no cycle begins before so many bytes of changes since the last one: small, busy states are
    written anew seldom.
    """
    slice_bytes: int = 256 << 10
    """An epoch writes at least so much anew, and at most as much as its changes, or this."""
    log_bytes: int = 64 * MIB
    """Any range is written anew when the log behind its base has grown by four times its state and so much more."""
    trim_every_ms: int = 10_000
    """How often the leader looks what of the backup logs and internal streams is not needed any more."""
    plans_kept: int = 200
    """The control topic is trimmed behind so many of the newest plans (at most 5,000), whenever there are twice as
    many."""
    history_ms: int = 0
    """Earlier moments can be read (`kstate state --as-of`) for at least so long; 0: as far as the logs happen to go."""


@dataclass(frozen=True, slots=True)
class FailureSettings:
    """How failures are noticed and how many are tolerated."""

    heartbeat_ms: int = 400
    heartbeats_missed: int = 4
    transaction_timeout_ms: int = 10_000
    commit_slow_ms: int = 5_000
    """A commit slower than this taints its producer (S4): librdkafka may have retried EndTxn silently."""
    stuck_log_ms: int = 20_000
    """Transaction timeout + 10 s: a last stable offset that stands still for longer is named (S10)."""
    reject_fraction_max: float = 0.10
    rejects_min: int = 100
    """The job stops when more than the fraction, and at least this many records, of an epoch fail."""
    successor_wait_ms: int = 1_000
    """How long the tiles of a dead worker wait for a new incarnation of the same name before others get them."""
    restart_wait_ms: int = 15_000
    """The same, where a supervisor said that it starts the worker again at once."""
    handler_max_ms: int = 60_000
    """A process in which user code finishes neither a call nor a record for so long ends itself: an endless loop?"""
    deaths_max: int = 3
    """So many processes in a row that die at the same progress of a key range park its tile."""

    @property
    def silence_max_ms(self) -> int:
        """Who is not heard of for longer is suspected to be dead."""
        return self.heartbeat_ms * self.heartbeats_missed


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    """Who takes over from the dead, and how prepared."""

    standbys: int = 0
    """How many workers beside its owner keep a copy of each tile close to the end of its backup log."""
    parallelism: int = 1
    """Into how many key ranges a lost tile without a standby is cut, to be restored by as many workers at once."""


@dataclass(frozen=True, slots=True)
class QuerySettings:
    """Whether workers answer queries of their state (`kstate state --live`). Whoever reaches them may read it all."""

    host: str = ""
    """Address to listen on; empty: queries are not answered."""
    port: int = 0
    """0: one that is free, told in heartbeats."""
    advertised: str = ""
    """Host name under which others reach this one; empty: `host`, or the name of this machine when that is 0.0.0.0."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a process of kstate is told from outside."""

    bootstrap_servers: str = "127.0.0.1:9092"
    client: Mapping[str, str] = field(default_factory=dict)
    """Further librdkafka properties (TLS, SASL), passed through; secrets are redacted wherever they are shown."""
    data: Path = Path(".kstate")
    """Folder of the local stores, one sub-folder per application and worker name."""
    epoch: EpochSettings = field(default_factory=EpochSettings)
    state: StateSettings = field(default_factory=StateSettings)
    rebase: RebaseSettings = field(default_factory=RebaseSettings)
    failure: FailureSettings = field(default_factory=FailureSettings)
    recovery: RecoverySettings = field(default_factory=RecoverySettings)
    queries: QuerySettings = field(default_factory=QuerySettings)
    stream_partitions: int = 16
    """Partitions of internal streams."""
    replication: int = -1
    """Replication factor of internal topics; -1: the broker's default."""
    registry: str = field(default="", repr=False)
    """Schema registry of the topics with `format="confluent"`: a URL, which may hold a password, or a folder."""

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {value:g}, expected {'>= 0' if name in _MAY_BE_ZERO else '> 0'}"
            for name, value in _numbers(self)
            if value < 0 or (value == 0 and name not in _MAY_BE_ZERO)
        ]
        if not self.bootstrap_servers.strip():
            faults.append("bootstrap_servers is empty")
        if faults:
            raise ConfigError("Settings: " + "; ".join(faults) + ".", hint="set them in kstate.toml or KSTATE_*.")


_POSITIVE: Mapping[str, type[Any]] = {
    "epoch": EpochSettings,
    "state": StateSettings,
    "rebase": RebaseSettings,
    "failure": FailureSettings,
    "recovery": RecoverySettings,
}
"""Groups of which every setting is a number above 0, but for these:"""
_MAY_BE_ZERO = frozenset({"rebase.history_ms", "recovery.standbys", "queries.port"})


def _numbers(settings: Settings) -> list[tuple[str, float]]:
    """Every numeric setting of the nested values with its dotted name; all of them must be positive."""
    nested = [
        (f"{part}.{f.name}", float(getattr(getattr(settings, part), f.name)))
        for part, kind in _POSITIVE.items()
        for f in fields(kind)
    ]
    return [*nested, ("stream_partitions", settings.stream_partitions), ("queries.port", settings.queries.port)]


def is_secret(name: str) -> bool:
    """Whether the value of this client property must never be shown."""
    return any(mark in name for mark in _SECRET_MARKS)
