"""`kstate state get | scan | export | diff`: what a job has committed, now or as of a retained moment.

Read from the backup topics alone, so it works while the job runs, and when nothing of it does; or, with --live, asked
of the workers. Every key range is shown as of the last epoch that it committed before the moment. Exit codes: 0, 1
`get` found nothing or `diff` something, 2 refused, 5 no broker, or a worker that does not answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, TextIO

import typer

from kstate.adapters.query_server import ask
from kstate.adapters.rocksdb import RocksStore, open_store
from kstate.cli.moves import OperatorArgument, Range
from kstate.cli.order_request import read_range
from kstate.cli.settings import Bootstrap
from kstate.cli.state_live import Owners, Patience
from kstate.cli.state_past import Backups, read_moment
from kstate.cli.state_rows import Row, Rows
from kstate.cli.state_view import Difference, StateView
from kstate.cli.status import Timeout, onlooker
from kstate.cli.watching import AppArgument, Watch, patiently
from kstate.clock import run_steps
from kstate.config import MIB
from kstate.coordinator.observed import Observed
from kstate.errors import ConfigError
from kstate.keyspace import FULL_RANGE
from kstate.state.layout import identity_entry

SCRATCH_BYTES = 64 * MIB
"""Memory of a scratch store."""

app = typer.Typer(help="Show, export and compare the committed state of operators.", no_args_is_help=True)

StateArgument = Annotated[str, typer.Argument(metavar="STATE", help="The state's name.")]
KeyArgument = Annotated[
    str, typer.Argument(metavar="KEY", help='Text, a number, 0x… for bytes; a composite key as JSON: ["berlin", 42].')
]
AsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="WHEN", help="An instant, as 2026-11-21T10:00:00Z, or @OFFSET of the backup log."),
]
Partition = Annotated[
    int | None, typer.Option("--partition", min=0, help="Only this input partition; default: all of them.")
]
Live = Annotated[bool, typer.Option("--live", help="Ask the workers that run the keys; see queries.host.")]
States = Annotated[list[str] | None, typer.Option("--state", help="Only this state; may be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]


@app.command()
def get(  # noqa: PLR0913 (a command takes its options as parameters)
    job: AppArgument,
    operator: OperatorArgument,
    state: StateArgument,
    key: KeyArgument,
    *,
    as_of: AsOf = None,
    live: Live = False,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
    timeout: Timeout = 10.0,
) -> None:
    """Show what a state has of a key."""
    with _view("get", job, operator, bootstrap, timeout, live=live) as view:
        found = view.get(state, key, read_moment(as_of))
        _print(found, sys.stdout, as_json=as_json)
    if not found:
        typer.echo(f"{operator}: {state} has nothing of {key!r}", err=True)
        raise typer.Exit(1)


@app.command()
def scan(  # noqa: PLR0913 (as above)
    job: AppArgument,
    operator: OperatorArgument,
    *,
    state: States = None,
    partition: Partition = None,
    key_range: Range = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="End after so many entries.")] = None,
    as_of: AsOf = None,
    live: Live = False,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
    timeout: Timeout = 10.0,
) -> None:
    """Show all entries, in the order of partition, slot and key."""
    with _view("scan", job, operator, bootstrap, timeout, live=live) as view:
        rows = _scanned(view, partition, key_range, as_of, state)
        _print(islice(rows, limit), sys.stdout, as_json=as_json)


@app.command()
def export(  # noqa: PLR0913 (as above)
    job: AppArgument,
    operator: OperatorArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write JSON lines; it must not exist.")],
    *,
    state: States = None,
    partition: Partition = None,
    key_range: Range = None,
    as_of: AsOf = None,
    live: Live = False,
    bootstrap: Bootstrap = None,
    timeout: Timeout = 10.0,
) -> None:
    """Write all entries to a file, as JSON lines; the file is there when it is whole."""
    with _view("export", job, operator, bootstrap, timeout, live=live) as view:
        if file.exists():
            raise ConfigError(f"{file} exists.", hint="name another file, or remove it.")
        draft = file.with_name(f"{file.name}.part")
        try:
            with draft.open("w", encoding="utf-8") as out:
                written = _print(_scanned(view, partition, key_range, as_of, state), out, as_json=True)
            draft.rename(file)
        except OSError as error:
            raise ConfigError(f"{file} cannot be written: {error.strerror}.", hint="name another file.") from error
        finally:
            draft.unlink(missing_ok=True)
        typer.echo(f"{written:,} entries written to {file}")


@app.command()
def diff(  # noqa: PLR0913 (as above)
    job: AppArgument,
    operator: OperatorArgument,
    *,
    since: Annotated[str, typer.Option("--from", metavar="WHEN", help="The earlier moment, as for --as-of.")],
    to: Annotated[str | None, typer.Option("--to", metavar="WHEN", help="The later moment; default: now.")] = None,
    partition: Partition = None,
    key_range: Range = None,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
    timeout: Timeout = 10.0,
) -> None:
    """Show what has come, gone and changed between two moments; exit code 1 when anything has."""
    with _view("diff", job, operator, bootstrap, timeout) as view:
        moments, span, found = (read_moment(since), read_moment(to)), read_range(key_range) or FULL_RANGE, 0
        for number in _chosen(view, partition):
            for each in view.diff(number, *moments, span):
                found += 1
                typer.echo(json.dumps(_diff_json(each), ensure_ascii=False) if as_json else _diff_text(each))
    if found:
        raise typer.Exit(1)


@contextmanager
def _view(
    command: str, job: str, operator: str, bootstrap: str | None, timeout: float, *, live: bool = False
) -> Iterator[StateView]:
    """What a command shows; the scratch stores behind it are gone afterwards."""
    with onlooker(f"kstate state {command}", job, bootstrap) as (watch, edges, _), ExitStack() as stack:
        run_steps(patiently(watch.begin, edges.clock, timeout), edges.clock)
        plan = watch.observed.control.plan
        if plan is None:
            raise ConfigError(f"Job '{watch.app}' has no plan yet: it has no state.", hint="start its workers.")
        rows = Rows(plan, operator)
        if live:
            owners = Owners(rows, lambda: _looked(watch), ask, Patience(edges.clock, timeout))
            yield StateView(plan, rows, owners.entries)
        else:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="kstate-state-")))
            backups = Backups(edges.log, edges.clock, watch.app, rows, _scratch(folder))
            yield StateView(plan, rows, backups.entries)


def _looked(watch: Watch) -> Observed:
    watch.look()
    return watch.observed


def _scratch(folder: Path) -> Callable[[], RocksStore]:
    numbers = count()
    stamp = identity_entry("scratch", "scratch", "scratch")
    return lambda: open_store(folder / str(next(numbers)), stamp, SCRATCH_BYTES).store


def _scanned(
    view: StateView, partition: int | None, key_range: str | None, as_of: str | None, states: list[str] | None
) -> Iterator[Row]:
    moment, span = read_moment(as_of), read_range(key_range) or FULL_RANGE
    if moment.offset is not None and partition is None and len(view.partitions) > 1:
        raise ConfigError(
            f"{as_of} is an offset of one backup partition, and there are several.", hint="give --partition, or a time."
        )
    view.check_states(states or [])
    for number in _chosen(view, partition):
        rows = view.scan(number, moment, span)
        yield from (row for row in rows if row.state in states) if states else rows


def _chosen(view: StateView, partition: int | None) -> list[int]:
    if partition is None:
        return view.partitions
    if partition not in view.partitions:
        raise ConfigError(
            f"There is no partition {partition}.", hint=f"take one from 0 to {max(view.partitions, default=0)}."
        )
    return [partition]


def _print(rows: Iterable[Row], out: TextIO, *, as_json: bool) -> int:
    written = 0
    for row in rows:
        out.write(f"{json.dumps(row.as_json(), ensure_ascii=False) if as_json else row}\n")
        written += 1
    return written


def _diff_json(difference: Difference) -> dict[str, object]:
    before, after = difference.before, difference.after
    return {"before": before and before.as_json(), "after": after and after.as_json()}


def _diff_text(difference: Difference) -> str:
    lines = [f"{sign} {row}" for sign, row in (("-", difference.before), ("+", difference.after)) if row is not None]
    return "\n".join(lines)
