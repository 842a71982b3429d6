"""`kstate dev`: a real Kafka broker for as long as the command runs, from pip alone."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from kstate.adapters.embedded_broker import BrokerSettings, EmbeddedBroker
from kstate.adapters.kafka_jars import KAFKA_VERSION
from kstate.adapters.kafka_jars import Progress as OnDownload
from kstate.clock import SystemClock
from kstate.errors import KstateError

LOOK_SECONDS = 0.5  # how often we look whether the broker still runs


def dev(
    port: Annotated[int, typer.Option(help="Port for clients; 0 takes any free one.")] = 9092,
    data: Annotated[
        Path | None, typer.Option(help="Folder that keeps the data; without it they are thrown away.")
    ] = None,
    heap_mb: Annotated[int, typer.Option(help="Java heap in MiB.")] = 512,
    as_json: Annotated[bool, typer.Option("--json", help="Print where the broker is as one line of JSON.")] = False,
) -> None:
    """Run a Kafka broker on this machine until Ctrl-C: no Docker, no Java, no Maven needed."""
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell starts what it puts in the background with SIGINT ignored
        signal.signal(number, _interrupt)
    try:
        with download_bar() as on_download:
            broker = EmbeddedBroker(BrokerSettings(port, data, heap_mb), on_download=on_download)
            broker.start()
        try:
            typer.echo(_where(broker, as_json))
            _watch(broker)
        finally:
            broker.close()
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
    except KstateError as error:
        typer.echo(f"kstate dev: {error}", err=True)
        raise typer.Exit(error.exit_code) from error


@contextmanager
def download_bar() -> Iterator[OnDownload]:
    """A progress line on stderr that appears only when something is downloaded."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task(f"downloading Kafka {KAFKA_VERSION}, once", total=None)

    def show(done: int, total: int) -> None:
        progress.update(task, completed=done, total=total)
        progress.start()

    try:
        yield show
    finally:
        if progress.live.is_started:
            progress.stop()


def _where(broker: EmbeddedBroker, as_json: bool) -> str:
    kept = broker.settings.data is not None
    if as_json:
        facts = {
            "bootstrap_servers": broker.bootstrap_servers,
            "cluster_id": broker.cluster_id,
            "folder": str(broker.folder),
            "kept": kept,
            "pid": broker.pid,
        }
        return json.dumps(facts)
    return (
        f"Kafka {KAFKA_VERSION} runs at {broker.bootstrap_servers}; "
        f"data and log in {broker.folder} ({'kept' if kept else 'thrown away at the end'}); Ctrl-C stops it\n"
        f"  export KSTATE_BOOTSTRAP_SERVERS={broker.bootstrap_servers}"
    )


def _watch(broker: EmbeddedBroker) -> None:
    """Wait until we are interrupted; a broker that ends by itself is an error."""
    clock = SystemClock()
    while broker.pid is not None:
        clock.sleep(LOOK_SECONDS)
    raise KstateError("The broker has ended by itself.", hint=f"see the end of {broker.log_path}")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(number, frame)
