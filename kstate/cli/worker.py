"""`kstate worker JOB --name NAME`: one process of the data plane."""

from __future__ import annotations

import gc
from contextlib import closing
from typing import Annotated, Any

import typer

from kstate.adapters.heart import HeartbeatThread
from kstate.adapters.kafka import KafkaLog
from kstate.adapters.process import die_with, new_incarnation, on_stop, where_am_i
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
from kstate.errors import CorruptStateError
from kstate.plan import Member
from kstate.state.layout import identity_entry
from kstate.worker.edges import WorkerEdges
from kstate.worker.load import Load
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
                edges = WorkerEdges(log, store, runnable.codecs, SystemClock(), logger)
                try:
                    code = _run(runnable, member, edges)
                except CorruptStateError as error:
                    store.condemn(str(error))
                    raise
    raise typer.Exit(code)


def local_store(runnable: RunnableJob, member: Member, cluster: str, logger: Any) -> RocksStore:
    """The worker's local store, wiped when it is damaged or somebody else's: the backup has it all."""
    stamp = identity_entry(runnable.app, member.name, cluster)
    folder = runnable.settings.data / runnable.app / member.name
    opened = open_store(folder, stamp, runnable.settings.state.store_bytes)
    if opened.wiped:
        logger.warning("local store wiped, its content comes from the backup", folder=str(folder), reason=opened.wiped)
    return opened.store


def _run(runnable: RunnableJob, member: Member, edges: WorkerEdges) -> int:
    """The worker's life; the last heartbeat, sent when it is over, says how it ended."""
    load = Load(runnable.app, member, *where_am_i())
    life = Worker(runnable.topology, runnable.settings, edges, load, member)
    on_stop(life.stop, lambda: edges.logger.warning("stopped with an epoch in hand, the next start repeats it"))
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    with HeartbeatThread(lambda: load.beat(edges.log), runnable.settings.failure.heartbeat_ms / 1000):
        code = run_steps(life.run(), edges.clock)
    load.beat(edges.log)
    return code
