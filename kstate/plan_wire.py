"""The plan as it stands in its message: JSON objects and lists, read strictly (kstate.strict_json).

Versions 1 and 2 of the format know nothing of moves, standbys, parked ranges and drained workers, version 1 nothing of
builds: in what is read of them these are empty.
"""

from __future__ import annotations

from dataclasses import replace

from kstate.keyspace import SLOTS, KeyRange
from kstate.plan import Member, Move, MovePhase, Parked, Plan, Registry, Shard, Standby, Tile
from kstate.strict_json import Fields, list_at, row_at, text_at, unique, whole_at


def plan_out(plan: Plan) -> dict[str, object]:
    """A plan as values of JSON, in the newest format."""
    return {
        "app": plan.app,
        "version": plan.version,
        "term": plan.term,
        "members": [{"name": m.name, "incarnation": m.incarnation, "build": m.build} for m in plan.members],
        "dead": list(plan.dead),
        "tiles": [{**place_out(t.shard, t.key_range), "worker": t.worker, "grant": t.grant} for t in plan.tiles],
        "registry": _registry_out(plan.registry),
        "partitions": dict(plan.partitions),
        "starts": [[*place, offset] for place, offset in plan.starts.items()],
        "ends": [[*place, offset] for place, offset in plan.ends.items()],
        "bounded": plan.bounded,
        "complete": plan.complete,
        "build": plan.build,
        "moves": [_move_out(move) for move in plan.moves],
        "standbys": [{**place_out(s.shard, s.key_range), "worker": s.worker} for s in plan.standbys],
        "parked": [{**place_out(p.shard, p.key_range), "reason": p.reason} for p in plan.parked],
        "drained": list(plan.drained),
    }


def plan_in(fields: Fields, version: int) -> Plan:
    """A plan of this version of the format. Raises DecodeError."""
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
    if version > 2:
        plan = replace(
            plan,
            moves=fields.each("moves", _move_in),
            standbys=fields.each("standbys", _standby_in),
            parked=fields.each("parked", _parked_in),
            drained=fields.each("drained", text_at),
        )
    fields.end()
    return plan


def place_out(shard: Shard, key_range: KeyRange) -> dict[str, object]:
    """A key range of a shard as four fields, shared by all that has one."""
    return {**shard_out(shard), **range_out(key_range)}


def shard_out(shard: Shard) -> dict[str, object]:
    """A shard as two fields."""
    return {"operator": shard.operator, "partition": shard.partition}


def range_out(key_range: KeyRange) -> dict[str, object]:
    """A key range as two fields."""
    return {"lo": key_range.lo, "hi": key_range.hi}


def shard_in(fields: Fields) -> Shard:
    """The shard in these fields. Raises DecodeError."""
    return Shard(fields.text("operator"), fields.whole("partition"))


def range_in(fields: Fields) -> KeyRange:
    """The key range in these fields. Raises DecodeError."""
    lo, hi = fields.whole("lo"), fields.whole("hi")
    if not lo < hi <= SLOTS:
        raise fields.fault("hi", f"a slot above {lo}, at most {SLOTS}", hi)
    return KeyRange(lo, hi)


def _registry_out(registry: Registry) -> dict[str, object]:
    return {
        "operators": dict(registry.operators),
        "states": [[*name, number] for name, number in registry.states.items()],
        "schemas": [[number, text] for number, text in registry.schemas.items()],
        "keys": dict(registry.keys),
        "written": [[*name, list(numbers)] for name, numbers in registry.written.items()],
        "forms": [[*name, form] for name, form in registry.forms.items()],
        "streams": dict(registry.streams),
        "retired": [list(row) for row in registry.retired],
    }


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
    tile = Tile(shard_in(fields), range_in(fields), fields.text_or_none("worker"), fields.whole("grant"))
    fields.end()
    return tile


def _move_out(move: Move) -> dict[str, object]:
    return {
        "id": move.id,
        **place_out(move.shard, move.key_range),
        "source": move.source,
        "target": move.target,
        "grant": move.grant,
        "phase": move.phase.value,
        "order": move.order,
    }


def _move_in(item: object, where: str) -> Move:
    fields = Fields(item, where)
    move = Move(
        id=fields.whole("id"),
        shard=shard_in(fields),
        key_range=range_in(fields),
        source=fields.text("source"),
        target=fields.text("target"),
        grant=fields.whole("grant"),
        phase=fields.choice("phase", MovePhase),
        order=fields.text("order"),
    )
    fields.end()
    return move


def _standby_in(item: object, where: str) -> Standby:
    fields = Fields(item, where)
    standby = Standby(shard_in(fields), range_in(fields), fields.text("worker"))
    fields.end()
    return standby


def _parked_in(item: object, where: str) -> Parked:
    fields = Fields(item, where)
    parked = Parked(shard_in(fields), range_in(fields), fields.text("reason"))
    fields.end()
    return parked


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
