"""What a job has made of its input, for any job: outputs by key and state by key, and how two runs differ.

The contract (README.md): an operator with one input from outside makes of each key the same outputs in
the same order, whatever crashes, moves and batches do. With several inputs, or behind another operator, the order in
which records meet is open; then the outputs of each key are compared without order, if they do not depend on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kstate.api.specs import OperatorSpec, PartialSpec, TimerSpec, Topology
from kstate.interfaces import Codecs
from kstate.plan import Plan, TopicPartition, dlq_topic
from kstate.state.layout import key_suffix, parse_suffix, shard_bounds, shard_prefix
from kstate.testing.cluster import Cluster
from kstate.testing.inspection import Inspection
from kstate.testing.violations import Kind, Violation

Place = tuple[str, str]
"""(operator uid, name of an output or a state)."""
Row = tuple[bytes | None, int]
"""Value and timestamp of an output record."""
StateKey = tuple[int, bytes]
"""Partition and key of the store below it."""


@dataclass(slots=True)
class Made:
    """What one run has made."""

    outputs: dict[Place, dict[bytes | None, list[Row]]] = field(default_factory=dict)
    states: dict[Place, dict[StateKey, bytes]] = field(default_factory=dict)
    dead_letters: int = 0


def made_by(cluster: Cluster) -> Made:
    """What the workers of a cluster at rest have committed."""
    topology, made = cluster.blueprint.topology, Made()
    plan = cluster.plan()
    assert plan is not None, "a cluster at rest has a plan"
    for spec in topology.operators:
        made.dead_letters += len(_rows(cluster, dlq_topic(topology.app, spec.uid)))
        for output in spec.outputs:
            if not output.internal:
                by_key: dict[bytes | None, list[Row]] = {}
                for key, value, timestamp in _rows(cluster, output.topic):
                    at = timestamp if output.timestamp == "event" else 0
                    by_key.setdefault(key, []).append((value, at))
                made.outputs[spec.uid, output.name] = by_key
        for name, cells in _states(cluster, plan, spec).items():
            made.states[spec.uid, name] = cells
    return made


def is_ordered(topology: Topology, spec: OperatorSpec) -> bool:
    """Whether the order of an operator's outputs per key is a function of the input."""
    written = {output.topic for each in topology.operators for output in each.outputs}
    (first, *more) = spec.inputs
    return not more and not first.internal and first.topic not in written


def differences(topology: Topology, wanted: Made, got: Made) -> Iterator[tuple[Place, Violation]]:
    """What is different, and where."""
    for spec in topology.operators:
        for output in spec.outputs:
            if output.internal:
                continue
            place = spec.uid, output.name
            ordered = is_ordered(topology, spec)
            for violation in _output_faults(wanted.outputs[place], got.outputs[place], ordered=ordered):
                yield _at(place, violation)
    for place, cells in wanted.states.items():
        for violation in _state_faults(cells, got.states.get(place, {})):
            yield _at(place, violation)


def _at(place: Place, violation: Violation) -> tuple[Place, Violation]:
    return place, Violation(violation.kind, f"{'.'.join(place)}: {violation.text}")


def _output_faults(
    wanted: Mapping[bytes | None, list[Row]], got: Mapping[bytes | None, list[Row]], *, ordered: bool
) -> Iterator[Violation]:
    for key in sorted({*wanted, *got}, key=lambda key: key or b""):
        want, have = wanted.get(key, []), got.get(key, [])
        more, less = Counter(have) - Counter(want), Counter(want) - Counter(have)
        if more and not less and all(row in want for row in more):
            yield Violation(Kind.DOUBLED, f"key {_shown(key)}: {more.total()} records more than once")
        elif less and not more:
            yield Violation(Kind.LOST, f"key {_shown(key)}: {less.total()} records are missing")
        elif more or less:
            yield Violation(Kind.STATE, f"key {_shown(key)}: {more.total()} other records than without faults")
        elif ordered and want != have:
            yield Violation(Kind.ORDER, f"key {_shown(key)}: the records of a run without faults in another order")


def _state_faults(wanted: Mapping[StateKey, bytes], got: Mapping[StateKey, bytes]) -> Iterator[Violation]:
    for key in sorted({*wanted, *got}):
        if wanted.get(key) != got.get(key):
            what = "is missing" if key not in got else "should not be there" if key not in wanted else "is another one"
            yield Violation(Kind.STATE, f"the value of key {_shown(parse_suffix(key[1]).key)} {what}")


def _shown(key: bytes | None) -> str:
    if key is None:
        return "None"
    try:
        return repr(key.decode())
    except UnicodeDecodeError:
        return key.hex()


def _rows(cluster: Cluster, topic: str) -> list[tuple[bytes | None, bytes | None, int]]:
    logs = cluster.world.log.broker.topics.get(topic, [])
    found = [r for log in logs for r in cluster.world.log.records(TopicPartition(topic, log.source.partition))]
    return [(record.key, record.value, record.timestamp) for record in found]


def _states(cluster: Cluster, plan: Plan, spec: OperatorSpec) -> dict[str, dict[StateKey, bytes]]:
    """The cells of each state at the owners of their key ranges; a partial state as one value, all parts merged.

    Timers that go by the workers' clock are left out: when those are read depends on everything.
    """
    operator_id, cells = plan.registry.operators[spec.uid], dict[int, dict[StateKey, bytes]]()
    for tile in plan.tiles:
        process = cluster.processes.get(tile.worker or "")
        if tile.shard.operator != spec.uid or process is None:
            continue
        prefix = shard_prefix(operator_id, tile.shard.partition)
        bounds = shard_bounds(operator_id, tile.shard.partition, tile.key_range)
        for key, data in cluster.stores[process.name].scan(*bounds):
            suffix = key[len(prefix) :]
            cells.setdefault(parse_suffix(suffix).state_id, {})[tile.shard.partition, suffix] = data
    found: dict[str, dict[StateKey, bytes]] = {}
    for state in spec.states:
        state_id = plan.registry.states[spec.uid, state.name]
        if isinstance(state, PartialSpec):
            found[state.name] = {
                (0, key_suffix(0, state_id, b"")): _merged(cluster, spec, state, cluster.blueprint.codecs)
            }
        elif not (isinstance(state, TimerSpec) and state.clock == "processing"):
            found[state.name] = cells.get(state_id, {})
    return found


def _merged(cluster: Cluster, spec: OperatorSpec, state: PartialSpec, codecs: Codecs) -> bytes:
    value: Any = Inspection(cluster, codecs).partial(spec, state)
    return codecs.value(state.type).encode(value)
