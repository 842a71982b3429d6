"""`kstate split | merge | move | drain | rebalance`: moving work by hand, while it runs.

Each command asks the leader, tells how the moves go, and ends when the last of them is over. Exit codes: 0 as ordered,
1 another end than ordered, 2 refused, 5 nobody answered or still under way, 130 interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated

import typer

from kstate.adapters.kafka import KafkaLog
from kstate.adapters.process import new_order_id
from kstate.cli.order_report import EXIT_CODES, as_json, verdict
from kstate.cli.order_request import Request, read_cut, read_range, read_shard
from kstate.cli.ordering import Ordering, Patience
from kstate.cli.settings import Bootstrap, load_settings
from kstate.cli.watching import AppArgument, WatchEdges, app_of, quiet
from kstate.clock import SystemClock, run_steps
from kstate.errors import ConfigError, KstateError
from kstate.messages import OrderKind

INTERRUPTED_EXIT_CODE = 130
"""What shells give for an interrupted command."""

OperatorArgument = Annotated[str, typer.Argument(metavar="OPERATOR", help="The operator's uid.")]
PartitionArgument = Annotated[str, typer.Argument(metavar="PARTITION", help="Number of its input partition.")]
Range = Annotated[
    str | None, typer.Option("--range", metavar="LO:HI", help="Key range in slots, as 0:0x8000; default: all of it.")
]
To = Annotated[str | None, typer.Option("--to", metavar="WORKER", help="Name of a worker; default: who has least.")]
Json = Annotated[bool, typer.Option("--json", help="Print what became of it as one JSON object.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="End when the leader has answered; the moves go on.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, metavar="S", help="Seconds to wait, all in all.")]


@dataclass(frozen=True, slots=True)
class _Options:
    """What all commands that order have in common."""

    job: str
    bootstrap: str | None
    as_json: bool
    no_wait: bool
    timeout: float


def split(  # noqa: PLR0913 (a command takes its options as parameters)
    job: AppArgument,
    operator: OperatorArgument,
    partition: PartitionArgument,
    *,
    key_range: Range = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="SLOT", help="Cut here: a slot, or a fraction of the range, as 0.5.")
    ] = None,
    parts: Annotated[
        int | None, typer.Option("--parts", min=2, help="How many parts of equal width; default 2.")
    ] = None,
    to: To = None,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
    no_wait: NoWait = False,
    timeout: Timeout = 60.0,
) -> None:
    """Cut a key range of a partition, and hand all parts but the first to others; other keys do not pause."""

    def request() -> Request:
        if at is not None and parts is not None:
            raise ConfigError("--at cuts in two, --parts in several.", hint="give one of them.")
        where = read_shard(operator, partition)
        return Request(OrderKind.SPLIT, where, read_range(key_range), read_cut(at), parts, to)

    _order("split", request, _Options(job, bootstrap, as_json, no_wait, timeout))


def merge(  # noqa: PLR0913 (a command takes its options as parameters)
    job: AppArgument,
    operator: OperatorArgument,
    partition: PartitionArgument,
    *,
    key_range: Range = None,
    to: To = None,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
    no_wait: NoWait = False,
    timeout: Timeout = 60.0,
) -> None:
    """Bring all key ranges of a partition, or those that overlap LO:HI, to one worker, where they become one again."""

    def request() -> Request:
        return Request(OrderKind.MERGE, read_shard(operator, partition), read_range(key_range), target=to)

    _order("merge", request, _Options(job, bootstrap, as_json, no_wait, timeout))


def move(  # noqa: PLR0913 (a command takes its options as parameters)
    job: AppArgument,
    operator: OperatorArgument,
    partition: PartitionArgument,
    *,
    to: Annotated[str, typer.Option("--to", metavar="WORKER", help="Name of the worker that gets it.")],
    key_range: Range = None,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
    no_wait: NoWait = False,
    timeout: Timeout = 60.0,
) -> None:
    """Hand a partition, or a key range of it, to a worker."""

    def request() -> Request:
        return Request(OrderKind.MOVE, read_shard(operator, partition), read_range(key_range), target=to)

    _order("move", request, _Options(job, bootstrap, as_json, no_wait, timeout))


def drain(
    job: AppArgument,
    worker: Annotated[str, typer.Argument(metavar="WORKER", help="Name of a worker.")],
    *,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
    no_wait: NoWait = False,
    timeout: Timeout = 60.0,
) -> None:
    """Hand all that a worker has to the others, and give it nothing more: then it can be stopped without any pause."""
    options = _Options(job, bootstrap, as_json, no_wait, timeout)
    _order("drain", lambda: Request(OrderKind.DRAIN, worker=worker), options)


def rebalance(
    job: AppArgument,
    *,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
    no_wait: NoWait = False,
    timeout: Timeout = 60.0,
) -> None:
    """Even out the number of key ranges of all workers, say after new ones have joined."""
    options = _Options(job, bootstrap, as_json, no_wait, timeout)
    _order("rebalance", lambda: Request(OrderKind.REBALANCE), options)


def _order(command: str, request: Callable[[], Request], options: _Options) -> None:
    """Give an order and follow it; ends the command with the exit code that tells what became of it."""
    quiet()
    try:
        code = _given(command, request(), options)
    except KstateError as error:
        if options.as_json:
            outcome = "refused" if isinstance(error, ConfigError) else "unanswered"
            typer.echo(json.dumps({"order": None, "outcome": outcome, "reason": str(error)}))
        typer.echo(f"kstate {command}: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    raise typer.Exit(code)


def _given(command: str, request: Request, options: _Options) -> int:
    settings = load_settings(options.bootstrap).settings
    app = app_of(options.job)
    tell = _no_words if options.as_json else typer.echo
    with closing(KafkaLog(settings, SystemClock())) as log:
        edges = WatchEdges(log, SystemClock())
        with closing(Ordering(request, new_order_id(), edges, app, tell)) as ordering:
            try:
                progress = run_steps(ordering.run(Patience(options.timeout, not options.no_wait)), edges.clock)
            except KeyboardInterrupt:
                typer.echo(f"kstate {command}: {interrupted(ordering)}", err=True)
                return INTERRUPTED_EXIT_CODE
            names, seconds = ordering.watch.observed.control.names, ordering.elapsed_s
    if options.as_json:
        typer.echo(json.dumps(as_json(progress, names, seconds)))
    code = 0 if options.no_wait and progress.plan is not None else EXIT_CODES[progress.outcome]
    if code:
        typer.echo(f"kstate {command}: {verdict(progress, seconds)}", err=True)
    elif not options.as_json:
        typer.echo(verdict(progress, seconds))
    return code


def _no_words(line: str) -> None:
    """Programs get one object at the end."""


def interrupted(ordering: Ordering) -> str:
    """What a Ctrl-C leaves behind."""
    progress = ordering.progress
    if progress is None:
        return "interrupted, nothing was ordered"
    if not progress.is_answered:
        return f"interrupted; order {progress.order.id} was sent and may still be carried out: see `kstate status`"
    return f"interrupted; order {progress.order.id} goes on without this command: see `kstate status`"
