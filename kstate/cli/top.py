"""`kstate top JOB`: how a job stands, again and again, with records per second."""

from __future__ import annotations

import json
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.live import Live

from kstate.cli.rates import Rates
from kstate.cli.settings import Bootstrap
from kstate.cli.status import Timeout, looked, onlooker
from kstate.cli.status_view import as_json as overview_json
from kstate.cli.status_view import console, name_of, page
from kstate.cli.watching import WATCH, AppArgument, Watch, WatchEdges
from kstate.clock import Steps, run_steps
from kstate.config import FailureSettings
from kstate.coordinator.status import Overview
from kstate.errors import RetryableError

REFRESH_S = 1.0
QUITTING = frozenset(b"qQ")
KEYS_MAX = 64
SAMPLE_S = 3.0
"""How long one picture by itself is looked for: rates need some epochs."""


def top(
    job: AppArgument,
    *,
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end.")] = False,
    bootstrap: Bootstrap = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one picture as a JSON object and end.")] = False,
    timeout: Timeout = 10.0,
) -> None:
    """Watch a job live: records per second, lag, load, moves, decisions. Ends with q or Ctrl-C.

    Where the output is no terminal it prints one picture.
    """
    with onlooker("kstate top", job, bootstrap) as (watch, edges, failure):
        first = run_steps(looked(watch, edges, failure, timeout), edges.clock)
        if once or as_json or not sys.stdout.isatty():
            shown, rates = run_steps(sampled(watch, edges, failure, first), edges.clock)
            if as_json:
                typer.echo(json.dumps(_with_rates(shown, rates)))
            else:
                console().print(page(shown, rates.now()))
        else:
            _live(watch, edges, failure, first)


def sampled(
    watch: Watch, edges: WatchEdges, failure: FailureSettings, first: Overview
) -> Steps[tuple[Overview, Rates]]:
    """One picture with rates."""
    rates = Rates()
    began_s = edges.clock.monotonic()
    rates.add(first, began_s)
    while edges.clock.monotonic() - began_s < SAMPLE_S:
        yield WATCH
        watch.look()
    shown = watch.overview(failure.silence_max_ms)
    rates.add(shown, edges.clock.monotonic())
    return shown, rates


def _with_rates(shown: Overview, rates: Rates) -> dict[str, object]:
    """The JSON of `status` with `records_per_s` in each shard, null where it is not known."""
    known = rates.now()
    plain = overview_json(shown)
    for shard, fields in zip(shown.shards, plain["shards"], strict=True):
        fields["records_per_s"] = known.get(name_of(shard))
    return plain


def _live(watch: Watch, edges: WatchEdges, failure: FailureSettings, shown: Overview) -> None:
    """Until somebody has seen enough. A broker that is away for a while is named and waited for."""
    rates, trouble = Rates(), ""
    with Live(console=console(), screen=True, auto_refresh=False) as live, _keys():
        while True:
            rates.add(shown, edges.clock.monotonic())
            live.update(page(shown, rates.now(), trouble or "q quits"), refresh=True)
            if sys.stdin.isatty() and _is_quit(REFRESH_S):
                return
            if not sys.stdin.isatty():
                edges.clock.sleep(REFRESH_S)
            try:
                watch.look()
                shown, trouble = watch.overview(failure.silence_max_ms), ""
            except RetryableError as error:
                trouble = str(error)


@contextmanager
def _keys() -> Iterator[None]:
    """Keys are read as they are pressed, without Enter and unseen."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin, termios.TCSADRAIN)  # keeps what was typed while we started
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _is_quit(seconds: float) -> bool:
    """Wait for a key; whether it is one that quits."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and bool(set(os.read(sys.stdin.fileno(), KEYS_MAX)) & QUITTING)
