"""`kstate worker JOB --name NAME`: one process of the data plane."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from kstate.adapters.frozen import FrozenAlarm
from kstate.adapters.heart import HeartbeatThread, cpu_s, end_now, main_thread_at
from kstate.adapters.in_hand import FileNotes
from kstate.adapters.kafka import KafkaLog
from kstate.adapters.process import die_with, new_incarnation, on_stop, where_am_i
from kstate.adapters.query_server import QueryServer
from kstate.adapters.rocksdb import RocksStore, open_store
from kstate.cli.logging import configure
from kstate.cli.running import (
    AsJson,
    Incarnation,
    JobArgument,
    Parent,
    RunnableJob,
    await_broker,
    checked_name,
    claim_schemas,
    exit_code_of,
    runnable_job,
)
from kstate.cli.settings import Bootstrap, Data
from kstate.clock import SystemClock, run_steps
from kstate.errors import CorruptStateError, RetryableError
from kstate.plan import Member
from kstate.state.layout import identity_entry
from kstate.worker.edges import WorkerEdges
from kstate.worker.in_hand import Held, InHand
from kstate.worker.load import Load
from kstate.worker.pulse import Pulse, Watchdog
from kstate.worker.queries import Queries
from kstate.worker.worker import Worker

GC_THRESHOLDS = (50_000, 20, 100)
"""A worker keeps hundreds of thousands of small objects alive and makes no cycles of them: with CPython's default of
700 allocations the collector took more than half of the time (12.9 against 5.7 microseconds per record)."""


def worker(  # noqa: PLR0913 (a command takes its options as parameters)
    job: JobArgument,
    *,
    name: Annotated[str, typer.Option("--name", help="Stable name of this worker; it owns a folder of the data.")],
    bootstrap: Bootstrap = None,
    data: Data = None,
    as_json: AsJson = False,
    incarnation: Incarnation = None,
    parent: Parent = None,
) -> None:
    """Run one worker of a job until it is stopped, or the job is complete or halted."""
    die_with(parent)
    logger = configure(name, as_json=as_json)
    with exit_code_of(f"kstate worker {name}"):
        runnable = runnable_job(job, bootstrap, data)
        build = runnable.description().build
        member = Member(checked_name(name), incarnation or new_incarnation(runnable.app, name), build)
        with closing(KafkaLog(runnable.settings, SystemClock())) as log:
            cluster = await_broker(log, logger)
            claim_schemas(runnable, logger)
            with closing(local_store(runnable, member, cluster, logger)) as store:
                in_hand = _in_hand(runnable, member, logger)
                pulse = Pulse(SystemClock(), cpu_s)
                edges = WorkerEdges(log, store, runnable.codecs, SystemClock(), logger, in_hand, pulse)
                try:
                    code = _Life(runnable, member, edges, log.close).run()
                except CorruptStateError as error:
                    store.condemn(str(error))
                    in_hand.settled()  # the store's fault
                    raise
    raise typer.Exit(code)


def local_store(runnable: RunnableJob, member: Member, cluster: str, logger: Any) -> RocksStore:
    """The worker's local store, wiped when it is damaged or somebody else's: the backup has it all."""
    stamp = identity_entry(runnable.app, member.name, cluster)
    folder = _folder(runnable, member)
    opened = open_store(folder, stamp, runnable.settings.state.store_bytes)
    if opened.wiped:
        logger.warning("local store wiped, its content comes from the backup", folder=str(folder), reason=opened.wiped)
    return opened.store


def _folder(runnable: RunnableJob, member: Member) -> Path:
    """The worker's own folder."""
    return runnable.settings.data / runnable.app / member.name


def _in_hand(runnable: RunnableJob, member: Member, logger: Any) -> InHand:
    """What this process has in hand, and what those before it died with; the store must be open: one at a time."""
    in_hand = InHand(FileNotes(_folder(runnable, member)), member.build)
    for died in in_hand.fatalities:
        reason = f"with {died.shard} {died.key_range} in hand, {died.topic!r} from offset {died.offset} on"
        logger.warning("died before", deaths=died.deaths, reason=reason)
    return in_hand


class _Life:
    """One worker's life in this process, and the thread that beats for it and watches it."""

    def __init__(self, runnable: RunnableJob, member: Member, edges: WorkerEdges, flush: Callable[[], None]) -> None:
        """`flush` waits shortly until the last heartbeats are sent."""
        self._edges = edges
        self._flush = flush
        self._failure = runnable.settings.failure
        self._queries = runnable.settings.queries
        self._load = Load(runnable.app, member, *where_am_i(), edges)
        self._worker = Worker(runnable.topology, runnable.settings, edges, self._load, member)
        self._watchdog = Watchdog(edges.in_hand, self._failure.handler_max_ms, edges.clock)

    def run(self) -> int:
        """The exit code; the last heartbeat, sent when it is over, says how it ended."""
        edges, failure = self._edges, self._failure
        on_stop(self._worker.stop, self._overdue)
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        interval_s = failure.heartbeat_ms / 1000
        frozen = FrozenAlarm(interval_s * failure.heartbeats_missed, failure.handler_max_ms / 1000)
        answer = Queries(edges.store, lambda: self._load.snapshot).answer
        with QueryServer(self._queries, answer) as server, HeartbeatThread(self._beat, interval_s, self._watch, frozen):
            self._load.answers_at(server.address)
            code = run_steps(edges.pulse.watched(self._worker.run(), edges.in_hand), edges.clock)
        edges.in_hand.settled()
        self._beat()
        return code

    def _beat(self) -> None:
        self._load.beat(self._edges.log)

    def _overdue(self) -> None:
        self._edges.logger.warning("stopped with an epoch in hand, the next start repeats it")
        self._edges.in_hand.settled()

    def _watch(self) -> None:
        """In the thread of the heartbeats: end the process when its main thread does not come back from user code."""
        if held := self._watchdog.look():
            error = _stuck(held, self._failure.handler_max_ms)
            self._edges.logger.error("stuck", reason=str(error))
            self._load.fatal(error)
            self._beat()
            self._flush()
            end_now(error.exit_code)


def _stuck(held: Held, limit_ms: int) -> RetryableError:
    """Why the process ends: it leaves its note, so that its successor knows."""
    place, (begun, _) = held.place, held.mark()
    source = f"{place.topic}[{place.shard.partition}] from offset {place.offset} on, {place.key_range}"
    last = f"the last record begun is that at offset {begun}" if begun >= 0 else "no record was begun"
    return RetryableError(
        f"Operator {place.shard.operator!r} does not come back: nothing was finished in {limit_ms / 1000:g} s. In hand "
        f"is {source}; {last}; at work is {main_thread_at()}.",
        hint="mend the handler, or allow its calls more time (failure.handler_max_ms).",
    )
