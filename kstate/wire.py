"""Messages as they stand on the control and reports topics: JSON objects with a version and a kind.

They can be read with any Kafka tool. Decoding is strict: every field present, of its type and within its range, and
none more. Anything else is a DecodeError that names the field, what was expected and what was found, never a guess: a
plan half understood would lose or double records. Older versions, which know nothing of moves and orders, or of builds,
are read as well. The plan has a module of its own (kstate.plan_wire).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kstate.keyspace import KeyRange
from kstate.messages import (
    Control,
    Fatality,
    Heartbeat,
    JobHalted,
    LeaderBeat,
    Order,
    OrderAnswered,
    OrderKind,
    PlanPublished,
    ProcessExited,
    Report,
    TermStarted,
    TilePhase,
    TileReport,
    WorkerDied,
)
from kstate.plan import Shard
from kstate.plan_wire import place_out, plan_in, plan_out, range_in, range_out, shard_in, shard_out
from kstate.strict_json import Fields, dump, load

FORMAT_VERSION = 3
OLDEST_VERSION = 1


def encode_control(message: Control) -> bytes:
    """The value of a record of the control topic."""
    match message:
        case TermStarted(term, leader):
            return _dump("term-started", {"term": term, "leader": leader})
        case WorkerDied(term, incarnation, reason):
            return _dump("worker-died", {"term": term, "incarnation": incarnation, "reason": reason})
        case JobHalted(term, reason, exit_code):
            return _dump("job-halted", {"term": term, "reason": reason, "exit_code": exit_code})
        case PlanPublished(plan, reason, order):
            return _dump("plan-published", {"reason": reason, "order": order, "plan": plan_out(plan)})
        case OrderAnswered(term, order, accepted, reason):
            body = {"term": term, "order": order, "accepted": accepted, "reason": reason}
            return _dump("order-answered", body)


def decode_control(data: bytes) -> Control:
    """The message in a record of the control topic. Raises DecodeError."""
    kind, fields, version = _load(data, "Control message")
    message: Control
    match kind:
        case "term-started":
            message = TermStarted(fields.whole("term"), fields.text("leader"))
        case "worker-died":
            message = WorkerDied(fields.whole("term"), fields.text("incarnation"), fields.text("reason"))
        case "job-halted":
            message = JobHalted(fields.whole("term"), fields.text("reason"), fields.whole("exit_code"))
        case "plan-published":
            order = fields.text("order") if version > 2 else ""
            message = PlanPublished(plan_in(fields.fields("plan"), version), fields.text("reason"), order)
        case "order-answered" if version > 2:
            term, order, accepted = fields.whole("term"), fields.text("order"), fields.flag("accepted")
            message = OrderAnswered(term, order, accepted, fields.text("reason"))
        case _:
            raise fields.fault("kind", "a kind of control message", kind)
    fields.end()
    return message


def encode_report(message: Report) -> bytes:
    """The value of a record of the reports topic."""
    match message:
        case Heartbeat():
            return _dump("heartbeat", _heartbeat_out(message))
        case ProcessExited(incarnation, exit_code, restarts):
            body = {"incarnation": incarnation, "exit_code": exit_code, "restarts": restarts}
            return _dump("process-exited", body)
        case LeaderBeat(term, leader):
            return _dump("leader-beat", {"term": term, "leader": leader})
        case Order():
            return _dump("order", _order_out(message))


def decode_report(data: bytes) -> Report:
    """The message in a record of the reports topic. Raises DecodeError."""
    kind, fields, version = _load(data, "Report")
    message: Report
    match kind:
        case "heartbeat":
            message = _heartbeat_in(fields, version)
        case "process-exited":
            exit_code = fields.whole("exit_code", least=-(1 << 31))
            message = ProcessExited(fields.text("incarnation"), exit_code, fields.flag("restarts"))
        case "leader-beat":
            message = LeaderBeat(fields.whole("term"), fields.text("leader"))
        case "order" if version > 2:
            message = _order_in(fields)
        case _:
            raise fields.fault("kind", "a kind of report", kind)
    fields.end()
    return message


def _heartbeat_out(beat: Heartbeat) -> dict[str, object]:
    return {
        "incarnation": beat.incarnation,
        "name": beat.name,
        "host": beat.host,
        "pid": beat.pid,
        "sequence": beat.sequence,
        "plan_version": beat.plan_version,
        "tiles": [_tile_report_out(tile) for tile in beat.tiles],
        "fatal": beat.fatal,
        "exit_code": beat.exit_code,
        "leaving": beat.leaving,
        "build": beat.build,
        "busy_percent": beat.busy_percent,
        "fatalities": [_fatality_out(fatality) for fatality in beat.fatalities],
        "queries": beat.queries,
    }


def _heartbeat_in(fields: Fields, version: int) -> Heartbeat:
    beat = Heartbeat(
        incarnation=fields.text("incarnation"),
        name=fields.text("name"),
        host=fields.text("host"),
        pid=fields.whole("pid"),
        sequence=fields.whole("sequence"),
        plan_version=fields.whole("plan_version"),
        tiles=fields.each("tiles", _tile_report_in if version > 2 else _tile_report_in_v2),
        fatal=fields.text_or_none("fatal"),
        exit_code=fields.whole("exit_code"),
        leaving=fields.flag("leaving"),
        build=fields.text("build") if version > 1 else "",
    )
    if version > 2:
        fatalities = fields.each("fatalities", _fatality_in)
        busy, queries = fields.whole("busy_percent"), fields.text("queries")
        beat = replace(beat, busy_percent=busy, fatalities=fatalities, queries=queries)
    return beat


def _tile_report_out(tile: TileReport) -> dict[str, object]:
    return {
        **place_out(tile.shard, tile.key_range),
        "grant": tile.grant,
        "phase": tile.phase.value,
        "epoch": tile.epoch,
        "progress": dict(tile.progress),
        "behind": tile.behind,
        "state_bytes": tile.state_bytes,
        "marked_at": tile.marked_at,
        "base": tile.base,
    }


def _tile_report_in(item: object, where: str) -> TileReport:
    fields = Fields(item, where)
    report = replace(
        _older_fields(fields),
        behind=fields.whole("behind"),
        state_bytes=fields.whole("state_bytes"),
        marked_at=fields.whole_or_none("marked_at"),
        base=fields.whole("base"),
    )
    fields.end()
    return report


def _tile_report_in_v2(item: object, where: str) -> TileReport:
    fields = Fields(item, where)
    report = _older_fields(fields)
    fields.end()
    return report


def _older_fields(fields: Fields) -> TileReport:
    """What all versions say of a tile."""
    shard, key_range, grant = shard_in(fields), range_in(fields), fields.whole("grant")
    phase, epoch, progress = fields.choice("phase", TilePhase), fields.whole("epoch"), fields.numbers("progress")
    return TileReport(shard, key_range, grant, phase, epoch, progress)


def _fatality_out(fatality: Fatality) -> dict[str, object]:
    place = place_out(fatality.shard, fatality.key_range)
    return {**place, "topic": fatality.topic, "offset": fatality.offset, "deaths": fatality.deaths}


def _fatality_in(item: object, where: str) -> Fatality:
    fields = Fields(item, where)
    shard, key_range, topic = shard_in(fields), range_in(fields), fields.text("topic")
    fatality = Fatality(shard, key_range, topic, fields.whole("offset"), fields.whole("deaths"))
    fields.end()
    return fatality


def _order_out(order: Order) -> dict[str, object]:
    return {
        "id": order.id,
        "order": order.kind.value,
        "shard": None if order.shard is None else shard_out(order.shard),
        "key_range": None if order.key_range is None else range_out(order.key_range),
        "worker": order.worker,
        "target": order.target,
        "at": order.at,
        "parts": order.parts,
    }


def _order_in(fields: Fields) -> Order:
    return Order(
        id=fields.text("id"),
        kind=fields.choice("order", OrderKind),
        shard=fields.optional("shard", _shard_in),
        key_range=fields.optional("key_range", _range_in),
        worker=fields.text_or_none("worker"),
        target=fields.text_or_none("target"),
        at=fields.whole_or_none("at"),
        parts=fields.whole("parts"),
    )


def _shard_in(item: object, where: str) -> Shard:
    fields = Fields(item, where)
    shard = shard_in(fields)
    fields.end()
    return shard


def _range_in(item: object, where: str) -> KeyRange:
    fields = Fields(item, where)
    key_range = range_in(fields)
    fields.end()
    return key_range


def _dump(kind: str, body: Mapping[str, object]) -> bytes:
    return dump({"v": FORMAT_VERSION, "kind": kind, **body})


def _load(data: bytes, what: str) -> tuple[str, Fields, int]:
    """The kind, the remaining fields and the format version of a message."""
    fields = load(data, what)
    version = fields.whole("v")
    if not OLDEST_VERSION <= version <= FORMAT_VERSION:
        raise fields.fault("v", f"format version {OLDEST_VERSION} to {FORMAT_VERSION}", version)
    return fields.text("kind"), fields, version
