"""A job's overview as tables for people and as JSON for programs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from textwrap import shorten
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kstate.coordinator.status import MoveStatus, Overview, ShardStatus, WorkerStatus
from kstate.keyspace import KeyRange

WIDTH = 160
"""Columns where nobody says how wide the page is."""
DECISIONS_SHOWN = 8
"""The newest; `--json` has them all."""

REASON_SHOWN = 240
"""Characters of a reason: a plan may begin many moves."""

ShardName = tuple[str, int, int, int]
"""Operator, partition, lo, hi."""

_COLOURS = {
    "running": "green",
    "warm": "green",
    "leading": "green",
    "complete": "green",
    "restoring": "yellow",
    "warming": "yellow",
    "draining": "yellow",
    "leaving": "yellow",
    "moving": "yellow",
    "waiting": "yellow",
    "starting": "yellow",
    "release": "yellow",
    "silent": "red",
    "dead": "red",
    "lost": "red",
    "unowned": "red",
    "parked": "red",
    "halted": "red",
    "no leader": "red",
    "no workers": "red",
    "of another build": "red",
}


def as_json(shown: Overview) -> dict[str, Any]:
    """The overview as plain values; keys as in `kstate.coordinator.status`."""
    return asdict(shown)


def console() -> Console:
    """Standard output; wide where it is no terminal, so that nothing is cut off in a file or a pipe."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    return Console(file=sys.stdout, width=width, highlight=False)


def page(shown: Overview, rates: Mapping[ShardName, float] | None = None, note: str = "") -> RenderableType:
    """Everything about a job that fits a page; with `rates` (records per second) a column for them."""
    parts: list[RenderableType] = [_head(shown)]
    if shown.workers:
        parts.append(_workers(shown.workers))
    if shown.shards:
        parts.append(_shards(shown.shards, rates))
    if shown.moves:
        parts.append(_moves(shown.moves))
    parts += [
        Text(f"parked: {each.operator}[{each.partition}] {_range(each)}: {each.parked}", "red")
        for each in shown.shards
        if each.parked
    ]
    if shown.decisions:
        parts.append(_decisions(shown))
    if note:
        parts.append(Text(note, "dim"))
    return Group(*parts)


def name_of(shard: ShardStatus) -> ShardName:
    """What names a shard from one look to the next."""
    return shard.operator, shard.partition, shard.lo, shard.hi


def _head(shown: Overview) -> Text:
    plan = "no plan yet" if shown.plan_version is None else f"plan {shown.plan_version}"
    text = Text.assemble((shown.app, "bold"), "  ", _word(shown.state), f"  {plan}")
    if shown.build:
        text.append(f"  build {shown.build}")
    if shown.reason:
        text.append(f"\n{shown.reason}", "red")
    leader = shown.leader
    if leader is None:
        text.append("\nleader    none so far")
    else:
        heard = f"heard {leader.beat_age_s:.1f} s ago" if leader.beat_age_s is not None else "not heard of late"
        text.append_text(
            Text.assemble("\nleader    ", _word(leader.state), f"  {leader.name}, term {leader.term}, {heard}")
        )
    if shown.state == "no leader":
        text.append("\nno coordinator leads: workers go on, nobody decides; start one with `kstate coordinator JOB`")
    if not shown.workers:
        text.append("\nworkers   none; start some with `kstate run JOB` or `kstate worker JOB --name NAME`")
    return text


def _workers(workers: Iterable[WorkerStatus]) -> Table:
    table = _table("worker", "state", ">busy", ">ranges", "host", ">pid", ">heard", "incarnation")
    for each in workers:
        busy = f"{each.load.busy_percent}%" if each.pid else ""
        pid = str(each.pid) if each.pid else ""
        row = (busy, str(each.load.tiles), each.host, pid, _age(each.beat_age_s), each.id)
        table.add_row(each.name, _word(each.state), *row)
    return table


def _shards(shards: Iterable[ShardStatus], rates: Mapping[ShardName, float] | None) -> Table:
    rate = [] if rates is None else [">records/s"]
    table = _table("shard", "keys", "worker", "phase", *rate, ">lag", ">epoch", ">state", "standbys")
    for each in shards:
        phase = _word(each.phase)
        if each.deaths:
            phase.append(f", {each.deaths} died here", "red")
        rated = [] if rates is None else [_number(rates.get(name_of(each)))]
        copies = ", ".join(f"{s.worker} {s.phase}{f' -{s.behind:,}' if s.behind else ''}" for s in each.standbys)
        row = (*rated, _number(each.lag), f"{each.epoch}", _bytes(each.state_bytes), copies)
        table.add_row(f"{each.operator}[{each.partition}]", _range(each), each.worker or "nobody", phase, *row)
    return table


def _moves(moves: Iterable[MoveStatus]) -> Table:
    table = _table("move", "shard", "keys", "from → to", "phase", "copy", ">behind", ">age", "order")
    for each in moves:
        place = f"{each.operator}[{each.partition}]", _range(each), f"{each.source} → {each.target}"
        age = _age(each.age_s)
        table.add_row(str(each.id), *place, _word(each.phase), each.copy, f"{each.behind:,}", age, each.order)
    return table


def _decisions(shown: Overview) -> Table:
    table = _table(">ago", "decided", "why")
    for each in shown.decisions[-DECISIONS_SHOWN:]:
        table.add_row(_age(each.age_s), each.what, shorten(each.reason, REASON_SHOWN, placeholder=" …"))
    return table


def _table(*columns: str) -> Table:
    """Columns by name; `>` aligns to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    for column in columns:
        name = column.removeprefix(">")
        table.add_column(name, justify="right" if name != column else "left", no_wrap=name not in {"why", "standbys"})
    return table


def _word(state: str) -> Text:
    return Text(state, _COLOURS.get(state, ""))


def _range(each: ShardStatus | MoveStatus) -> str:
    return str(KeyRange(each.lo, each.hi))


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:,.0f}"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return (
        f"{seconds:.1f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6_000
        else f"{seconds / 3600:.0f} h"
    )


def _bytes(count: int) -> str:
    value, units = float(count), ["B", "KiB", "MiB", "GiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
