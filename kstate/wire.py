"""Messages as they stand on the control and reports topics: JSON objects with a version and a kind.

They can be read with any Kafka tool. Decoding is strict: every field present, of its type and within its range, and
none more. Anything else is a DecodeError that names the field, what was expected and what was found, never a guess: a
plan half understood would lose or double records. Older versions, which know nothing of builds, are read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kstate.keyspace import SLOTS, KeyRange
from kstate.messages import (
    Control,
    Heartbeat,
    JobHalted,
    LeaderBeat,
    PlanPublished,
    ProcessExited,
    Report,
    TermStarted,
    TileReport,
    WorkerDied,
)
from kstate.plan import Member, Plan, Registry, Shard, Tile
from kstate.strict_json import Fields, dump, list_at, load, row_at, text_at, unique, whole_at

FORMAT_VERSION = 2
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
        case PlanPublished(plan, reason):
            return _dump("plan-published", {"reason": reason, "plan": _plan_out(plan)})


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
            message = PlanPublished(_plan_in(fields.fields("plan"), version), fields.text("reason"))
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
        case _:
            raise fields.fault("kind", "a kind of report", kind)
    fields.end()
    return message


def _plan_out(plan: Plan) -> dict[str, object]:
    registry = plan.registry
    return {
        "app": plan.app,
        "version": plan.version,
        "term": plan.term,
        "members": [{"name": m.name, "incarnation": m.incarnation, "build": m.build} for m in plan.members],
        "dead": list(plan.dead),
        "tiles": [{**_place(t.shard, t.key_range), "worker": t.worker, "grant": t.grant} for t in plan.tiles],
        "registry": {
            "operators": dict(registry.operators),
            "states": [[*name, number] for name, number in registry.states.items()],
            "schemas": [[number, text] for number, text in registry.schemas.items()],
            "keys": dict(registry.keys),
            "written": [[*name, list(numbers)] for name, numbers in registry.written.items()],
            "forms": [[*name, form] for name, form in registry.forms.items()],
            "streams": dict(registry.streams),
            "retired": [list(row) for row in registry.retired],
        },
        "partitions": dict(plan.partitions),
        "starts": [[*place, offset] for place, offset in plan.starts.items()],
        "ends": [[*place, offset] for place, offset in plan.ends.items()],
        "bounded": plan.bounded,
        "complete": plan.complete,
        "build": plan.build,
    }


def _plan_in(fields: Fields, version: int) -> Plan:
    plan = Plan(
        app=fields.text("app"),
        version=fields.whole("version"),
        term=fields.whole("term"),
        members=fields.each("members", _member_in if version > 1 else _member_in_v1),
        dead=fields.each("dead", text_at),
        tiles=fields.each("tiles", _tile_in),
        registry=_registry_in(fields.fields("registry"), version),
        partitions=fields.numbers("partitions"),
        starts=unique(fields.each("starts", _offset_in), "starts"),
        ends=unique(fields.each("ends", _offset_in), "ends"),
        bounded=fields.flag("bounded"),
        complete=fields.flag("complete"),
        build=fields.text("build") if version > 1 else "",
    )
    fields.end()
    return plan


def _registry_in(fields: Fields, version: int) -> Registry:
    registry = Registry(
        operators=fields.numbers("operators"),
        states=unique(fields.each("states", _state_in), "registry.states"),
        schemas=unique(fields.each("schemas", _schema_in), "registry.schemas"),
        keys=fields.texts("keys"),
    )
    if version > 1:
        registry = replace(
            registry,
            written=unique(fields.each("written", _written_in), "registry.written"),
            forms=unique(fields.each("forms", _form_in), "registry.forms"),
            streams=fields.numbers("streams"),
            retired=fields.each("retired", _retired_in),
        )
    fields.end()
    return registry


def _heartbeat_out(beat: Heartbeat) -> dict[str, object]:
    tiles = [
        {
            **_place(t.shard, t.key_range),
            "grant": t.grant,
            "phase": t.phase,
            "epoch": t.epoch,
            "progress": dict(t.progress),
        }
        for t in beat.tiles
    ]
    return {
        "incarnation": beat.incarnation,
        "name": beat.name,
        "host": beat.host,
        "pid": beat.pid,
        "sequence": beat.sequence,
        "plan_version": beat.plan_version,
        "tiles": tiles,
        "fatal": beat.fatal,
        "exit_code": beat.exit_code,
        "leaving": beat.leaving,
        "build": beat.build,
    }


def _heartbeat_in(fields: Fields, version: int) -> Heartbeat:
    return Heartbeat(
        incarnation=fields.text("incarnation"),
        name=fields.text("name"),
        host=fields.text("host"),
        pid=fields.whole("pid"),
        sequence=fields.whole("sequence"),
        plan_version=fields.whole("plan_version"),
        tiles=fields.each("tiles", _tile_report_in),
        fatal=fields.text_or_none("fatal"),
        exit_code=fields.whole("exit_code"),
        leaving=fields.flag("leaving"),
        build=fields.text("build") if version > 1 else "",
    )


def _place(shard: Shard, key_range: KeyRange) -> dict[str, object]:
    return {"operator": shard.operator, "partition": shard.partition, "lo": key_range.lo, "hi": key_range.hi}


def _member_in(item: object, where: str) -> Member:
    fields = Fields(item, where)
    member = Member(fields.text("name"), fields.text("incarnation"), fields.text("build"))
    fields.end()
    return member


def _member_in_v1(item: object, where: str) -> Member:
    fields = Fields(item, where)
    member = Member(fields.text("name"), fields.text("incarnation"))
    fields.end()
    return member


def _tile_in(item: object, where: str) -> Tile:
    fields = Fields(item, where)
    tile = Tile(_shard_in(fields), _range_in(fields), fields.text_or_none("worker"), fields.whole("grant"))
    fields.end()
    return tile


def _tile_report_in(item: object, where: str) -> TileReport:
    fields = Fields(item, where)
    shard, key_range, grant = _shard_in(fields), _range_in(fields), fields.whole("grant")
    phase, epoch, progress = fields.text("phase"), fields.whole("epoch"), fields.numbers("progress")
    fields.end()
    return TileReport(shard, key_range, grant, phase, epoch, progress)


def _offset_in(item: object, where: str) -> tuple[tuple[str, str, int], int]:
    uid, topic, partition, offset = row_at(item, where, 4)
    return (text_at(uid, where), text_at(topic, where), whole_at(partition, where)), whole_at(offset, where)


def _state_in(item: object, where: str) -> tuple[tuple[str, str], int]:
    uid, name, number = row_at(item, where, 3)
    return (text_at(uid, where), text_at(name, where)), whole_at(number, where)


def _schema_in(item: object, where: str) -> tuple[int, str]:
    number, text = row_at(item, where, 2)
    return whole_at(number, where), text_at(text, where)


def _written_in(item: object, where: str) -> tuple[tuple[str, str], tuple[int, ...]]:
    uid, name, numbers = row_at(item, where, 3)
    ids = tuple(whole_at(number, where) for number in list_at(numbers, where))
    return (text_at(uid, where), text_at(name, where)), ids


def _form_in(item: object, where: str) -> tuple[tuple[str, str], str]:
    uid, name, form = row_at(item, where, 3)
    return (text_at(uid, where), text_at(name, where)), text_at(form, where)


def _retired_in(item: object, where: str) -> tuple[str, str, int]:
    uid, name, number = row_at(item, where, 3)
    return text_at(uid, where), text_at(name, where), whole_at(number, where)


def _shard_in(fields: Fields) -> Shard:
    return Shard(fields.text("operator"), fields.whole("partition"))


def _range_in(fields: Fields) -> KeyRange:
    lo, hi = fields.whole("lo"), fields.whole("hi")
    if not lo < hi <= SLOTS:
        raise fields.fault("hi", f"a slot above {lo}, at most {SLOTS}", hi)
    return KeyRange(lo, hi)


def _dump(kind: str, body: Mapping[str, object]) -> bytes:
    return dump({"v": FORMAT_VERSION, "kind": kind, **body})


def _load(data: bytes, what: str) -> tuple[str, Fields, int]:
    """The kind, the remaining fields and the format version of a message."""
    fields = load(data, what)
    version = fields.whole("v")
    if not OLDEST_VERSION <= version <= FORMAT_VERSION:
        raise fields.fault("v", f"format version {OLDEST_VERSION} to {FORMAT_VERSION}", version)
    return fields.text("kind"), fields, version
